"""A search in memory for a caller that fits by itself: experiments and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from synque_select.tuning.result import MIXTURE
from synque_select.tuning.space import MixtureSpace
from synque_select.tuning.studies import (
    START,
    optuna_module,
    quiet_optuna,
    study_sampler,
)
from synque_select.types import Mixture

__all__ = ["search_mixtures"]


def search_mixtures(
    value: Callable[[Mixture], float],
    space: MixtureSpace,
    *,
    n_trials: int,
    mode: Literal["max", "min"],
    starts: Mapping[str, Mixture],
    sampler: Any = "tpe",
    n_startup: int = 2,
    seed: int = 0,
) -> list[tuple[Mixture, float]]:
    """Try mixtures one after another and return each with its value, in their order.

    Args:
        value: Takes a mixture and gives what is to be maximised or minimised.
        space: Which mixtures are allowed.
        n_trials: How many.
        mode: "max" where a larger value is better, else "min".
        starts: Name to mixture: tried first.
        sampler: As in `tune_mixture`.
        n_startup: Number of random trials after the starts.
        seed: Of the sampler.

    Raises:
        DependencyError: optuna is missing.
        ConfigError: There is no such sampler.
    """
    optuna = optuna_module()

    def objective(trial: Any) -> float:
        mixture = space.suggest(trial)
        trial.set_user_attr(MIXTURE, dict(mixture.weights))
        return value(mixture)

    with quiet_optuna():
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        study.sampler = study_sampler(sampler, n_startup, seed)
        for name, mixture in starts.items():
            study.enqueue_trial(space.params(mixture), user_attrs={START: name})
        study.optimize(objective, n_trials=n_trials)
    return [
        (Mixture(trial.user_attrs[MIXTURE], "tuned"), float(trial.value))
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE"
    ]
