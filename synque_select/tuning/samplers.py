"""Samplers and pruners by name, as Optuna's objects that know the roles of trials."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synque_select.errors import ConfigError, did_you_mean
from synque_select.tuning.studies import (
    ROLE,
    Plan,
    is_prior,
    origin_of,
    place_of,
    without_experimental_warnings,
)

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
# attributes of a trial that CMA-ES reads later
_NOTES_OF_SAMPLERS = ("cma:",)
PRUNERS = ("hyperband", "median", "none", "successive_halving")


def check_sampler(sampler: object) -> None:
    """Check the name of a sampler; an object of another type must be a sampler of Optuna.

    Raises:
        ConfigError: It is neither, or needs a package that is missing.
    """
    if not isinstance(sampler, str):
        from optuna.samplers import BaseSampler

        if isinstance(sampler, BaseSampler):
            return
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler={sampler!r}: {did_you_mean(str(sampler), SAMPLERS)}; or a sampler of Optuna"
        )
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError("sampler='cmaes' needs the package cmaes: pip install cmaes")


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


def study_sampler(sampler: str | BaseSampler, plan: Plan, seed: int) -> BaseSampler:
    """Return a sampler that draws what the plan has at the place of each trial.

    The starts are the plan's. What it leaves open of them, which are the user's hyper-parameters,
    and the random points after them are drawn at random, each with a seed of its own, made of the
    seed and the place: another worker that has finished more or fewer trials draws the same. A
    sampler that is given by name is made anew for each trial, seeded in
    the same way, and sees the finished trials in the order of their places. So workers that share a
    study draw independently of each other, and one worker draws the same points whether it was
    killed on the way or not. A sampler of the user's sees the study as it is.
    """
    if isinstance(sampler, str):
        return _plan_sampler(_sampler_factory(sampler, plan, seed), plan, seed, by_place=True)
    given: BaseSampler = sampler
    return _plan_sampler(lambda _: given, plan, seed, by_place=False)


def _sampler_factory(name: str, plan: Plan, seed: int) -> Callable[[int], BaseSampler]:
    """Return a function that takes a place and makes its sampler."""
    from optuna import samplers

    n_before = len(plan.starts) + plan.n_startup

    class SequenceSampler(samplers.QMCSampler):
        """Draws the point of a place; Optuna counts the points that were ever drawn."""

        def __init__(self, place: int) -> None:
            super().__init__(seed=seed, warn_independent_sampling=False)
            self._place = place

        def _find_sample_id(self, study: Study, search_space: object) -> int:
            return max(0, self._place - n_before)

    make: dict[str, Callable[[int], BaseSampler]] = {
        "cmaes": lambda _: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda place: samplers.GPSampler(
            seed=_place_seed(seed, place), n_startup_trials=1, deterministic_objective=True
        ),
        "qmc": SequenceSampler,
        "random": lambda place: samplers.RandomSampler(seed=_place_seed(seed, place)),
        "tpe": lambda place: samplers.TPESampler(
            seed=_place_seed(seed, place),
            n_startup_trials=1,
            multivariate=True,
            constant_liar=True,
        ),
    }
    return make[name]


def _place_seed(seed: int, place: int) -> int:
    # SeedSequence and not seed + place: neighboring seeds of two studies must not share trials
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


@dataclass(frozen=True)
class _ByPlace:
    """A study in memory whose trials have the order of their places, and the current trial in it.

    Samplers and pruners see trials in the order of their numbers, which a repeated trial changes.

    Args:
        study: The copy.
        trial: The current trial in it, the last one.
    """

    study: Study
    trial: FrozenTrial

    @classmethod
    def of(cls, study: Study, trial: FrozenTrial, *, with_priors: bool = True) -> _ByPlace:
        import optuna

        states = ("COMPLETE", "PRUNED", "RUNNING")
        others = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.state.name in states
            and other.number != trial.number
            and (with_priors or not is_prior(other))
        ]
        with without_experimental_warnings():
            ordered = optuna.create_study(
                study_name=study.study_name,
                direction=study.direction,
                sampler=optuna.samplers.RandomSampler(),
                pruner=optuna.pruners.NopPruner(),
            )
        places = {other.number: place_of(study, other) for other in others}
        for other in sorted(others, key=lambda one: (places[one.number], one.number)):
            ordered.add_trial(other)
        ordered.add_trial(trial)
        return cls(ordered, ordered.get_trials(deepcopy=False)[-1])

    def pass_on(self, study: Study, trial: FrozenTrial) -> None:
        """Pass what a sampler or pruner has noted at the current trial on to the study."""
        noted = self.study.get_trials(deepcopy=False)[-1].system_attrs
        for name, value in noted.items():
            if trial.system_attrs.get(name) != value:
                study._storage.set_trial_system_attr(trial._trial_id, name, value)


def _plan_sampler(
    make: Callable[[int], BaseSampler], plan: Plan, seed: int, *, by_place: bool
) -> BaseSampler:
    from optuna.samplers import BaseSampler, RandomSampler

    class PlanSampler(BaseSampler):
        """Passes each trial to a sampler of its own."""

        def __init__(self) -> None:
            self._start: Mapping[str, float] = {}
            self._own: BaseSampler = RandomSampler()
            self._seen: _ByPlace | None = None

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            place = place_of(study, trial)
            self._start, self._seen = plan.point(place), None
            if by_place:
                _take_over(study, trial)
            with without_experimental_warnings():
                if plan.role(place) != "adaptive":
                    self._own = RandomSampler(seed=_place_seed(seed, place))
                    return
                self._own = make(place)
                if by_place:
                    self._seen = _ByPlace.of(study, trial)
                self._own.before_trial(*self._view(study, trial))
            self._pass_on(study, trial)

        def infer_relative_search_space(
            self, study: Study, trial: FrozenTrial
        ) -> dict[str, BaseDistribution]:
            return self._own.infer_relative_search_space(*self._view(study, trial))

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            drawn = self._own.sample_relative(*self._view(study, trial), search_space)
            self._pass_on(study, trial)
            return drawn

        def sample_independent(
            self,
            study: Study,
            trial: FrozenTrial,
            param_name: str,
            param_distribution: BaseDistribution,
        ) -> object:
            if param_name in self._start:
                return self._start[param_name]
            return self._own.sample_independent(
                *self._view(study, trial), param_name, param_distribution
            )

        def after_trial(
            self,
            study: Study,
            trial: FrozenTrial,
            state: TrialState,
            values: Sequence[float] | None,
        ) -> None:
            if not by_place:
                self._own.after_trial(study, trial, state, values)

        def _view(self, study: Study, trial: FrozenTrial) -> tuple[Study, FrozenTrial]:
            return (study, trial) if self._seen is None else (self._seen.study, self._seen.trial)

        def _pass_on(self, study: Study, trial: FrozenTrial) -> None:
            if self._seen is not None:
                self._seen.pass_on(study, trial)

    return PlanSampler()


def _take_over(study: Study, trial: FrozenTrial) -> None:
    """Pass on what a sampler has noted at an earlier attempt at the same place.

    A point that was chosen is not drawn again, but CMA-ES reads a trial only if it has its notes.
    """
    origin = origin_of(trial)
    for other in study.get_trials(deepcopy=False):
        if origin_of(other) == origin and other.number < trial.number:
            for name, value in other.system_attrs.items():
                if name.startswith(_NOTES_OF_SAMPLERS):
                    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def study_pruner(pruner: str | BasePruner, max_steps: int, n_reports: int) -> BasePruner:
    """Return a pruner that spares random trials: those that it left would be a selected sample."""
    if isinstance(pruner, str):
        return _sparing(_pruner(pruner, max_steps, n_reports), by_place=True)
    return _sparing(pruner, by_place=False)


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


def _sparing(pruner: BasePruner, *, by_place: bool) -> BasePruner:
    from optuna.pruners import BasePruner

    class SparingPruner(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            if trial.user_attrs.get(ROLE) == "random":
                return False
            if not by_place:
                return pruner.prune(study, trial)
            seen = _ByPlace.of(study, trial, with_priors=False)
            is_pruned = pruner.prune(seen.study, seen.trial)
            seen.pass_on(study, trial)
            return is_pruned

    return SparingPruner()
