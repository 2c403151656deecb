"""The value of a trial: a validation metric of a short fit, or a proxy's score of the mixture."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, cast, final

from synque_select.errors import ConfigError, RecordError
from synque_select.records.run_folder import to_jsonable
from synque_select.records.store import RunStore
from synque_select.training.bookkeeping import known_records, store_record
from synque_select.training.comparability import content_sha256, hyper_parameters, weights_sha256
from synque_select.training.lightning_compat import lightning_module_of, package_of
from synque_select.training.short_fit import ModelFactory, ShortFit, ShortFits
from synque_select.tuning.distributed import Ranks
from synque_select.tuning.mixture_scores import MixtureScores
from synque_select.tuning.result import MIXTURE, PARAMETERS, SECONDS
from synque_select.tuning.space import MixtureSpace
from synque_select.tuning.studies import ROLE, START, Plan, Role, is_own_attribute, place_of
from synque_select.types import Mixture, RunKind, RunRecord
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from optuna import Trial

    from synque_select.training.lightning_compat import AnyCallback, AnyModule, AnyTrainer

__all__ = ["FitObjective", "ProxyObjective", "Sampling", "TrialPlan", "UntrainedPlan"]


@final
class TrialPlan(TypedDict):
    """What a trial chose, as plain values that every rank can follow."""

    study: str
    run_id: str
    number: int
    role: Role
    mixture: JsonObject
    hyper_parameters: JsonObject


@final
class UntrainedPlan(TypedDict):
    """The hyper-parameters of a model that is measured without training, on every rank."""

    untrained: JsonObject


@dataclass
class Sampling:
    """How a trial becomes a plan.

    Args:
        space: The space of mixtures.
        hyper_parameters: Takes a trial and returns the user's hyper-parameters; None for none.
        plan: The plan of the study; None until it is open.
    """

    space: MixtureSpace
    hyper_parameters: Callable[[Trial], Mapping[str, object]] | None
    plan: Plan | None = None

    def sample(self, trial: Trial) -> TrialPlan:
        """Let a trial choose, and store its choice in the study."""
        assert self.plan is not None
        study = trial.study
        place = place_of(study, study.get_trials(deepcopy=False)[trial.number])
        role = self.plan.role(place)
        trial.set_user_attr(ROLE, role)
        trial.set_user_attr(START, self.plan.start(place))
        mixture = self.space.suggest(trial)
        trial.set_user_attr(MIXTURE, dict(mixture.weights))
        _set_numbers(trial, "weight", mixture.weights)
        parameters = self._hyper_parameters(trial)
        trial.set_user_attr(PARAMETERS, parameters)
        return {
            "study": study.study_name,
            # a trial and its repetition share one record
            "run_id": content_sha256([self.plan.study_id, place])[:32],
            "number": trial.number,
            "role": role,
            "mixture": mixture.to_dict(),
            "hyper_parameters": parameters,
        }

    def _hyper_parameters(self, trial: Trial) -> JsonObject:
        if self.hyper_parameters is None:
            return {}
        given = self.hyper_parameters(_users_trial(trial, self.space.parameter_names))
        try:
            values = to_jsonable(dict(given), undefined=math.nan, where="hyper_parameters")
            json.dumps(values, allow_nan=False)
            return cast(JsonObject, values)
        except (RecordError, TypeError, ValueError) as error:
            raise ConfigError(
                f"hyper_parameters(trial) gave {given!r}: allowed is a mapping from argument of "
                "the model factory to finite number or text"
            ) from error


def _users_trial(trial: Trial, reserved: Collection[str]) -> Trial:
    """Return a trial that refuses names of the mixture's parameters, whose values it has."""
    users = copy.copy(trial)
    calls: dict[str, Callable[..., object]] = {
        "set_user_attr": partial(_set_attribute, trial),
        "suggest_categorical": partial(_suggest_choice, trial, reserved),
        "suggest_float": partial(_suggest, trial.suggest_float, reserved),
        "suggest_int": partial(_suggest, trial.suggest_int, reserved),
    }
    for name, call in calls.items():
        setattr(users, name, call)
    return users


def _set_attribute(trial: Trial, key: str, value: object) -> None:
    """Set an attribute of the user's, which must not be one that the study is read by."""
    if is_own_attribute(key):
        raise ConfigError(
            f"hyper_parameters(trial) sets the attribute {key!r}, in which the study keeps its own "
            "state: choose another name"
        )
    trial.set_user_attr(key, value)


def _suggest(
    suggest: Callable[..., object],
    reserved: Collection[str],
    name: str,
    *args: object,
    **more: object,
) -> object:
    if name in reserved:
        raise ConfigError(
            f"hyper_parameters(trial) suggests {name!r}, which is the name of a parameter of the "
            "mixture: choose another name"
        )
    return suggest(name, *args, **more)


def _suggest_choice(
    trial: Trial, reserved: Collection[str], name: str, choices: Sequence[Any]
) -> object:
    """Suggest a choice that every storage gives back as it is; of a tuple it makes a list."""
    for choice in choices:
        if not (choice is None or isinstance(choice, str | int | float)):
            raise ConfigError(
                f"hyper_parameters(trial) suggests {name!r} with the choice {choice!r}: allowed "
                "are texts, numbers, True, False and None; suggest a name, and look up its value"
            )
    return _suggest(trial.suggest_categorical, reserved, name, choices)


@dataclass(frozen=True)
class ProxyObjective:
    """A proxy's score of the mixture; nothing is trained.

    Args:
        sampling: How trials choose.
        scores: Scores mixtures.
        key: The proxy's key.
    """

    sampling: Sampling
    scores: MixtureScores
    key: str

    def __call__(self, trial: Trial) -> float:
        """Return the score of the mixture that the trial chooses."""
        mixture = Mixture.from_dict(self.sampling.sample(trial)["mixture"])
        value = self.scores.of(mixture, [self.key])[self.key]
        _set_numbers(trial, "proxy", {self.key: value})
        return value


@dataclass
class FitObjective:
    """The monitored metric at the end of a short fit; each fit is a run record of kind "trial".

    Args:
        sampling: How trials choose.
        fits: Budget, data and metric.
        model_factory: Takes the user's hyper-parameters and makes a fresh module.
        ranks: The processes that fit together.
        store: The run store.
        scores: Scores the mixtures of random trials; None on ranks other than 0.
        is_reported: Whether the pruner is asked during the fit.
    """

    sampling: Sampling
    fits: ShortFits
    model_factory: ModelFactory
    ranks: Ranks
    store: RunStore
    scores: MixtureScores | None
    is_reported: bool

    def __call__(self, trial: Trial) -> float:
        """Sample on rank 0, fit on all ranks; called on rank 0."""
        return self.follow(self.ranks.share(lambda: self.sampling.sample(trial)), trial)

    def follow(self, plan: TrialPlan, trial: Trial | None = None) -> float:
        """Fit the planned mixture on every rank, and store the record on rank 0.

        Args:
            plan: What to fit.
            trial: The trial; None on ranks other than 0.
        """
        from optuna import TrialPruned

        mixture, start = Mixture.from_dict(plan["mixture"]), _FitStart()
        callbacks = [start.callback(self.fits.datamodule)]
        options = self.fits.options
        if self.is_reported:
            callbacks.append(_pruning_callback(self.fits.datamodule, trial, options.monitor))
        try:
            fit, key = self.fits.run(
                partial(self.model_factory, **plan["hyper_parameters"]),
                mixture,
                finished=self._finished,
                callbacks=callbacks,
            )
        except TrialPruned as pruned:
            if self.ranks.is_zero:
                details: JsonObject = {"pruned": str(pruned)}
                key = start.key(self.fits)
                store_record(self.store, self._record(plan, mixture, key, {}, details))
            raise
        if not self.ranks.is_zero:
            return fit.metrics[self.fits.monitor]
        return self.finish(plan, trial, fit, key)

    def finish(self, plan: TrialPlan, trial: Trial | None, fit: ShortFit, key: JsonObject) -> float:
        """Store the record of a fit that has finished, and return its value.

        Args:
            plan: What was fitted.
            trial: The trial; None if it is not known here.
            fit: The fit.
            key: Its comparability key.
        """
        mixture = Mixture.from_dict(plan["mixture"])
        if trial is not None:
            trial.set_user_attr(SECONDS, fit.seconds)
            if self.scores is not None:
                scores = self.scores.follow_from_candidates(mixture)
                _set_numbers(trial, "proxy", scores)
        details: JsonObject = {"probe": fit.fit_id, "seconds": fit.seconds}
        record = self._record(plan, mixture, key, fit.metrics, details, fit.created)
        store_record(self.store, record)
        return fit.metrics[self.fits.monitor]

    def untrained(self, plan: UntrainedPlan) -> RunRecord | str:
        """Measure the model as it is on every rank, and store the record on rank 0.

        Returns:
            The record, or a sentence that says why the model cannot be measured before a fit.
        """
        record = self.fits.untrained(
            partial(self.model_factory, **plan["untrained"]),
            finished=partial(self._finished, kinds=("mixture",)),
        )
        if self.ranks.is_zero and isinstance(record, RunRecord):
            store_record(self.store, record)
        return record

    def _finished(
        self, fit_id: str, kinds: Sequence[RunKind] = ("trial", "probe")
    ) -> RunRecord | None:
        """Look up a fit that any worker has finished; several ranks always fit again together."""
        if self.ranks.n_ranks > 1:
            return None
        records = [r for r in known_records(self.store) if r.details.get("probe") == fit_id]
        return next((r for kind in kinds for r in records if r.kind == kind), None)

    def _record(
        self,
        plan: TrialPlan,
        mixture: Mixture,
        key: JsonObject,
        metrics: Mapping[str, float],
        details: JsonObject,
        created: str | None = None,
    ) -> RunRecord:
        options, is_random = self.fits.options, plan["role"] == "random"
        earlier = None if self.sampling.plan is None else self.sampling.plan.earlier
        # of the trials only random ones may enter a correlation, so only they are scored
        is_scored = is_random and bool(metrics) and self.scores is not None
        return RunRecord.of(
            self.fits.ranking,
            mixture,
            run_id=plan["run_id"],
            kind="trial",
            key=key,
            scores=self.scores.of(mixture) if is_scored and self.scores else {},
            metrics=metrics,
            monitor=self.fits.monitor,
            mode=options.mode,
            seed=options.seed,
            created=created,
            details={
                **self.fits.details,
                **details,
                "startup": is_random,
                "study": plan["study"],
                "number": plan["number"],
                "role": plan["role"],
                "hyper_parameters": plan["hyper_parameters"],
                **({"earlier": earlier} if earlier else {}),
            },
        )


def _set_numbers(trial: Trial, kind: str, values: Mapping[str, float]) -> None:
    """Store numbers one by one, which is what the Optuna dashboard sorts and draws.

    They are for looking at: of the trials that a sampler has guided, no correlation is computed.
    """
    for name, value in values.items():
        if math.isfinite(value):
            trial.set_user_attr(f"{kind}/{name}", value)


def _pruning_callback(part: object, trial: Trial | None, monitor: str) -> AnyCallback:
    """Return the PruningCallback for the package that an object comes from."""
    if package_of(part) == "lightning":
        from synque_select.callbacks.lightning import PruningCallback as LightningPruningCallback

        return LightningPruningCallback(trial, monitor)
    from synque_select.callbacks.pytorch_lightning import PruningCallback

    return PruningCallback(trial, monitor)


class _FitStart:
    """Keeps from the start of a fit what its key needs, should the fit be pruned."""

    def callback(self, part: object) -> AnyCallback:
        """Return the callback that calls this object, of the package of another object."""
        callbacks = lightning_module_of(part, "callbacks")
        callback: AnyCallback = callbacks.LambdaCallback(on_train_start=self._keep)
        return callback

    def _keep(self, trainer: AnyTrainer, pl_module: AnyModule) -> None:
        self._model, self._weights = type(pl_module), weights_sha256(pl_module)
        self._parameters = hyper_parameters(trainer, pl_module)
        self._batch_size = trainer.datamodule.batch_size  # type: ignore[union-attr]

    def key(self, fits: ShortFits) -> JsonObject:
        return fits.key(self._model, self._batch_size, self._parameters, self._weights)
