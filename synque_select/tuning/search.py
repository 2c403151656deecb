"""A search in memory for callers that train by themselves: experiments and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from synque_select.errors import LightningError
from synque_select.tuning.result import MIXTURE
from synque_select.tuning.samplers import check_sampler, study_sampler
from synque_select.tuning.space import MixtureSpace
from synque_select.tuning.studies import Plan, direction_of, quiet_optuna, require_optuna
from synque_select.types import Mixture
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

__all__ = ["search_mixtures"]


def search_mixtures(
    value: Callable[[Mixture], float],
    space: MixtureSpace,
    *,
    n_trials: int,
    mode: Literal["max", "min"],
    starts: Mapping[str, Mixture],
    sampler: str | BaseSampler = "tpe",
    n_startup: int = 2,
    seed: int = 0,
) -> list[tuple[Mixture, float]]:
    """Try mixtures one after another; return each that has a value, with it, in their order.

    Args:
        value: Takes a mixture and returns the value to optimize.
        space: Which mixtures are allowed.
        n_trials: Number of mixtures to try.
        mode: "max" if a larger value is better, else "min".
        starts: Name to mixture, tried first.
        sampler: As in `TuneOptions`.
        n_startup: Number of random trials after the starts.
        seed: Random seed of the sampler.

    Raises:
        DependencyError: optuna is missing.
        ConfigError: No sampler of this name exists.
        LightningError: No value is finite.
    """
    require_optuna()
    check_sampler(sampler)
    import optuna

    def objective(trial: Trial) -> float:
        mixture = space.suggest(trial)
        trial.set_user_attr(MIXTURE, dict(mixture.weights))
        trial_value = value(mixture)
        # infinite is as undefined as NaN, with which Optuna takes a trial for failed
        return trial_value if math.isfinite(trial_value) else math.nan

    with quiet_optuna():
        study = optuna.create_study(direction=direction_of(mode))
        points = {name: space.params(mixture) for name, mixture in starts.items()}
        study.sampler = study_sampler(sampler, Plan("", points, n_startup), seed)
        study.optimize(objective, n_trials=n_trials)
    finished = [
        (Mixture(trial.user_attrs[MIXTURE], "tuned"), trial.value)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and trial.value is not None
    ]
    if not finished:
        raise LightningError(
            f"none of {counted(n_trials, 'mixture')} has a finite metric: check that training "
            "converges (a smaller learning rate) and what the module logs"
        )
    return finished
