"""Samplers and pruners by name, as Optuna's objects that know the roles of trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synque_select.errors import ConfigError, did_you_mean
from synque_select.tuning.studies import ROLE, origin_of, role_of, without_experimental_warnings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "check_pruner",
    "check_sampler",
    "study_pruner",
    "study_sampler",
]

SAMPLERS = ("cmaes", "gp", "qmc", "random", "tpe")
PRUNERS = ("hyperband", "median", "none", "successive_halving")


def check_sampler(sampler: object) -> None:
    """Check the name of a sampler; an object of another type must be a sampler of Optuna.

    Raises:
        ConfigError: It is neither.
    """
    if not isinstance(sampler, str):
        from optuna.samplers import BaseSampler

        if isinstance(sampler, BaseSampler):
            return
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler={sampler!r}: {did_you_mean(str(sampler), SAMPLERS)}; or a sampler of Optuna"
        )


def check_pruner(pruner: object) -> None:
    """Check the name of a pruner; an object of another type must be a pruner of Optuna.

    Raises:
        ConfigError: It is neither.
    """
    if not isinstance(pruner, str):
        from optuna.pruners import BasePruner

        if isinstance(pruner, BasePruner):
            return
    if pruner not in PRUNERS:
        raise ConfigError(
            f"pruner={pruner!r}: {did_you_mean(str(pruner), PRUNERS)}; or a pruner of Optuna"
        )


def study_sampler(sampler: str | BaseSampler, n_startup: int, seed: int) -> BaseSampler:
    """Return a sampler that starts with random trials and goes on with the given one.

    A sampler that is given by name is made anew for each trial, seeded with the seed and the
    trial's number: workers that share a study draw independently of each other, and a resumed study
    draws what an uninterrupted one would have drawn. (CMA-ES and quasi-random sequences continue
    from trial to trial, so they keep one seed.)
    """
    if not isinstance(sampler, str):
        return _trial_sampler(lambda _: sampler, n_startup, seed)
    return _trial_sampler(_sampler_factory(sampler, seed), n_startup, seed)


def _sampler_factory(name: str, seed: int) -> Callable[[int], BaseSampler]:
    """Return a function that takes a trial's number and makes its sampler."""
    from optuna import samplers

    make: dict[str, Callable[[int], BaseSampler]] = {
        "cmaes": lambda _: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda number: samplers.GPSampler(
            seed=_trial_seed(seed, number), n_startup_trials=1, deterministic_objective=True
        ),
        "qmc": lambda _: samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda number: samplers.RandomSampler(seed=_trial_seed(seed, number)),
        "tpe": lambda number: samplers.TPESampler(
            seed=_trial_seed(seed, number),
            n_startup_trials=1,
            multivariate=True,
            constant_liar=True,
        ),
    }
    return make[name]


def _trial_seed(seed: int, number: int) -> int:
    # SeedSequence and not seed + number: neighboring seeds of two studies must not share trials
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _trial_sampler(make: Callable[[int], BaseSampler], n_startup: int, seed: int) -> BaseSampler:
    from optuna.samplers import BaseSampler, RandomSampler

    class TrialSampler(BaseSampler):
        """Passes each trial to a sampler of its own."""

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            is_random = role_of(study, trial, n_startup) == "random"
            origin = origin_of(trial)
            with without_experimental_warnings():
                self._own = (
                    RandomSampler(seed=_trial_seed(seed, origin)) if is_random else make(origin)
                )
                self._own.before_trial(study, trial)

        def infer_relative_search_space(
            self, study: Study, trial: FrozenTrial
        ) -> dict[str, BaseDistribution]:
            return self._own.infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._own.sample_relative(study, trial, search_space)

        def sample_independent(
            self,
            study: Study,
            trial: FrozenTrial,
            param_name: str,
            param_distribution: BaseDistribution,
        ) -> object:
            return self._own.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(
            self,
            study: Study,
            trial: FrozenTrial,
            state: TrialState,
            values: Sequence[float] | None,
        ) -> None:
            self._own.after_trial(study, trial, state, values)

    return TrialSampler()


def study_pruner(pruner: str | BasePruner, max_steps: int, n_reports: int) -> BasePruner:
    """Return a pruner that spares random trials: those that it left would be a selected sample."""
    return _sparing(_pruner(pruner, max_steps, n_reports) if isinstance(pruner, str) else pruner)


def _pruner(name: str, max_steps: int, n_reports: int) -> BasePruner:
    from optuna import pruners

    make: dict[str, Callable[[], BasePruner]] = {
        "hyperband": lambda: pruners.HyperbandPruner(
            min_resource=max(1, max_steps // n_reports), max_resource=max_steps
        ),
        "median": pruners.MedianPruner,
        "none": pruners.NopPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
    }
    return make[name]()


def _sparing(pruner: BasePruner) -> BasePruner:
    from optuna.pruners import BasePruner

    class SparingPruner(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            return trial.user_attrs.get(ROLE) != "random" and pruner.prune(study, trial)

    return SparingPruner()
