"""What a new study reuses of earlier fits: of probes, and of a study on other candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from synque_select.records.store import RunStore
from synque_select.training.bookkeeping import known_records, store_record
from synque_select.training.comparability import content_sha256
from synque_select.training.short_fit import ModelFactory, ShortFit, ShortFits
from synque_select.tuning.changes import Changes, Content, carried_mixture, changes_between
from synque_select.tuning.result import MIXTURE, PARAMETERS, SECONDS
from synque_select.tuning.space import MixtureSpace, is_mixture_parameter
from synque_select.tuning.studies import (
    EARLIER,
    Beginning,
    is_prior,
    newest_comparable,
)
from synque_select.tuning.study_checks import checked_earlier_trial
from synque_select.types import Mixture
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["Reuse"]

# options of the Trainer by which trials are validated before their end
_VALIDATIONS = ("val_check_interval", "check_val_every_n_epoch")


@dataclass(frozen=True)
class _Earlier:
    """An earlier fit, as a trial of the new study.

    Args:
        source: Where it comes from, in words.
        mixture: The mixture in the new study.
        value: The metric.
        lost: The share of its mixture that the new study does not have.
        trial: The trial that it was; None for a probe.
        fit: The fit and its comparability key, if the new study would run exactly the same fit.
    """

    source: str
    mixture: Mixture
    value: float
    lost: float = 0.0
    trial: FrozenTrial | None = None
    fit: tuple[ShortFit, JsonObject] | None = None

    @property
    def hyper_parameters(self) -> JsonObject:
        return {} if self.trial is None else self.trial.user_attrs.get(PARAMETERS, {})

    @property
    def point(self) -> dict[str, Any]:
        """The user's hyper-parameters as the trial drew them."""
        params = {} if self.trial is None else self.trial.params
        return {name: v for name, v in params.items() if not is_mixture_parameter(name)}

    @property
    def place(self) -> str:
        """What two trials share that are at the same point."""
        return content_sha256([sorted(self.mixture.weights.items()), self.point])


@dataclass(frozen=True)
class _OldStudy:
    """A study on other candidates, and what has changed since."""

    name: str
    trials: Sequence[FrozenTrial]
    changes: Changes


@dataclass(frozen=True)
class Reuse:
    """Finds what a new study can reuse from earlier fits.

    A fit that the new study would run in exactly the same way (`ShortFits.find`) is a trial of it.
    Trials of the newest study whose settings differ only in the candidates are priors where they
    are not the same fit: the sampler sees them, and they are never counted nor chosen.

    Args:
        fits: The fits of the study.
        model_factory: Makes their module.
        has_parameters: Whether the study has hyper-parameters of the user's.
        store: The run store.
        space: The space of mixtures.
        contents: Candidate to its content.
        mode: "max" or "min".
        study: Name of the new study.
    """

    fits: ShortFits
    model_factory: ModelFactory
    has_parameters: bool
    store: RunStore
    space: MixtureSpace
    contents: Mapping[str, Content]
    mode: Literal["max", "min"]
    study: str

    def beginning(
        self, storage: BaseStorage, stamp: JsonObject, starts: Mapping[str, Mixture]
    ) -> Beginning:
        """Return how the new study begins.

        Args:
            storage: Storage of the studies.
            stamp: Settings of the new study.
            starts: Name to mixture of the trials that come first otherwise.
        """
        probes, old = self._probes(), self._old_study(storage, stamp)
        trials = [] if old is None else self._mapped(old)
        reused, priors = _split([*probes, *trials])
        points = self._starts(reused, priors, old, starts)
        if not reused and not priors:
            return Beginning(points)
        for earlier in reused:
            self._record(earlier)
        n_probes = sum(earlier.fit is not None for earlier in probes)
        parts = [f"{n_probes} of {counted(len(self.space.names), 'probe')}"] * bool(probes)
        n_trials = sum(earlier.fit is not None and not earlier.lost for earlier in trials)
        if old is not None:
            parts.append(f"{n_trials} of {counted(len(old.trials), 'trial')} of study {old.name}")
        are = "is" if n_probes + n_trials == len(parts) == 1 else "are"
        sentence = f"{' and '.join(parts)} {are} reused as measured"
        if priors:
            are_priors = counted(len(priors), "other is a prior", "others are priors")
            sentence += f", {are_priors} for the sampler"
        reasons = [old.changes.words] if old is not None and old.changes.words else []
        if n_probes < len(probes):
            reasons.append("probes are not validated during training: pruner='none' reuses them")
        sentence += f" ({'; '.join(reasons)})" * bool(reasons)
        summary: JsonObject = {
            "study": None if old is None else old.name,
            "n_probes": n_probes,
            "n_reused": n_trials,
            "n_priors": len(priors),
            "sentence": sentence,
        }
        return Beginning(points, [self._frozen(one) for one in (*reused, *priors)], summary)

    def _old_study(self, storage: BaseStorage, stamp: JsonObject) -> _OldStudy | None:
        newest = newest_comparable(storage, self.study, stamp)
        if newest is None:
            return None
        study, before = newest
        usable = [trial for trial in study.get_trials(deepcopy=False) if _is_usable(trial)]
        return _OldStudy(study.study_name, usable, changes_between(before, self.contents))

    def _probes(self) -> list[_Earlier]:
        """Return the finished probes of candidates as they are now.

        A probe is validated at its end only. Where trials are validated in between, it may differ
        from a trial in the random numbers of the training, and is a prior.
        """
        if self.has_parameters or self.space.k_range[0] > 1:
            return []
        finished = {str(r.details.get("probe")): r for r in known_records(self.store, "probe")}
        mixtures = [Mixture.equal([name], "probe") for name in self.space.names]
        options = {n: v for n, v in self.fits.trainer_options.items() if n not in _VALIDATIONS}
        same, other = (
            fits.find(self.model_factory, mixtures, finished=finished.get)
            for fits in (self.fits, replace(self.fits, trainer_options=options))
        )
        probes = []
        for mixture, fit, probe in zip(mixtures, same, other, strict=True):
            if (measured := fit or probe) is not None:
                value = measured[0].metrics[self.fits.monitor]
                probes.append(_Earlier(f"probe of {mixture.names[0]}", mixture, value, fit=fit))
        return probes

    def _mapped(self, old: _OldStudy) -> list[_Earlier]:
        """Return trials in the new space, those that are the same fit with it."""
        low, high = self.space.k_range
        mapped = []
        for trial in old.trials:
            weights, lost = carried_mixture(
                trial.user_attrs[MIXTURE], old.changes.carried, self.space.names
            )
            if low <= len(weights) <= high and trial.value is not None:
                source, mixture = f"study {old.name} #{trial.number}", Mixture(weights, "tuned")
                mapped.append(_Earlier(source, mixture, trial.value, lost, trial))
        return self._with_fits(mapped)

    def _with_fits(self, mapped: Sequence[_Earlier]) -> list[_Earlier]:
        records = known_records(self.store)
        finished = {str(r.details.get("probe")): r for r in records if r.kind != "mixture"}
        by_parameters: dict[str, list[_Earlier]] = {}
        for earlier in mapped:
            key = content_sha256([earlier.hyper_parameters])
            by_parameters.setdefault(key, []).append(earlier)
        results = []
        for group in by_parameters.values():
            make = partial(self.model_factory, **group[0].hyper_parameters)
            mixtures = [earlier.mixture for earlier in group]
            known = self.fits.find(make, mixtures, finished=finished.get)
            for earlier, fit in zip(group, known, strict=True):
                if fit is not None:
                    value = fit[0].metrics[self.fits.monitor]
                    # what is left of its mixture may be one that something else has trained on
                    other = f"fit {fit[0].fit_id[:8]} of the run store"
                    source = other if earlier.lost else earlier.source
                    earlier = replace(earlier, source=source, value=value, fit=fit)
                results.append(earlier)
        return results

    def _record(self, earlier: _Earlier) -> None:
        """Store a fit that is a trial of the new study, too; again under the same id."""
        assert earlier.fit is not None
        fit, key = earlier.fit
        details: JsonObject = {
            "startup": False,
            "study": self.study,
            "role": "reused",
            "reused_from": earlier.source,
            "hyper_parameters": earlier.hyper_parameters,
        }
        record = self.fits.record(fit, key, earlier.mixture, kind="trial", details=details)
        run_id = content_sha256([self.study, "reused", fit.fit_id])[:32]
        store_record(self.store, replace(record, run_id=run_id))

    def _frozen(self, earlier: _Earlier) -> FrozenTrial:
        from optuna.trial import create_trial

        old, is_exact = earlier.trial, earlier.fit is not None
        distributions = {} if old is None else old.distributions
        point = earlier.point
        attributes: dict[str, Any] = {
            EARLIER: {"source": earlier.source, "is_prior": not is_exact},
            MIXTURE: dict(earlier.mixture.weights),
            PARAMETERS: earlier.hyper_parameters,
        }
        if earlier.fit is not None:
            attributes[SECONDS] = earlier.fit[0].seconds
        return checked_earlier_trial(
            create_trial(
                value=earlier.value,
                params=self.space.params(earlier.mixture) | point,
                distributions=self.space.distributions()
                | {name: distributions[name] for name in point},
                user_attrs=attributes,
                # a prior's are those of a fit on other data, which no pruner may compare with
                intermediate_values=old.intermediate_values if old and is_exact else None,
            )
        )

    def _starts(
        self,
        reused: Sequence[_Earlier],
        priors: Sequence[_Earlier],
        old: _OldStudy | None,
        starts: Mapping[str, Mixture],
    ) -> dict[str, Mapping[str, float]]:
        """Return the starting points: what was best before, then the others that are not known."""
        points: dict[str, Mapping[str, float]] = {}
        sign = 1 if self.mode == "max" else -1
        best = max((*reused, *priors), key=lambda e: sign * e.value, default=None)
        taken = [] if self.has_parameters else [_rounded(e.mixture) for e in reused]
        mixtures: dict[str, Mixture] = {}
        if best is not None and old is not None:
            if best.fit is None:
                mixtures["earlier best"] = best.mixture
            new = [name for name in self.space.names if name in old.changes.new]
            if new:
                mixtures[f"earlier best with {listed(new)}"] = _joined(best.mixture, new)
        low, high = self.space.k_range
        for name, mixture in mixtures.items():
            if low <= len(mixture.weights) <= high:
                assert best is not None
                points[name] = self.space.params(mixture) | best.point
        for name, mixture in starts.items():
            point = self.space.params(mixture)
            # as a trial would have it: what shares say of weights is rounded
            is_known = _rounded(self.space.mixture(point)) in taken
            if not is_known and not any(self._is_same(point, other) for other in points.values()):
                points[name] = point
        return points

    def _is_same(self, point: Mapping[str, float], other: Mapping[str, float]) -> bool:
        """Return whether two points are one trial: their shares may differ by rounding."""
        one, two = (_rounded(self.space.mixture(each)) for each in (point, other))
        return one == two and point.keys() == other.keys()


def _rounded(mixture: Mixture) -> dict[str, float]:
    return {name: round(weight, 9) for name, weight in mixture.weights.items()}


def _is_usable(trial: FrozenTrial) -> bool:
    is_complete = trial.state.name == "COMPLETE" and MIXTURE in trial.user_attrs
    return is_complete and not is_prior(trial)


def _split(earlier: Sequence[_Earlier]) -> tuple[list[_Earlier], list[_Earlier]]:
    """Return the fits that are the same, each once, and the priors, one for each point.

    Of several priors at a point, the one that has lost least of its mixture is kept.
    """
    reused: dict[str, _Earlier] = {}
    priors: dict[str, _Earlier] = {}
    for one in sorted(earlier, key=lambda one: one.lost):
        if one.fit is not None:
            reused.setdefault(one.fit[0].fit_id, one)
        else:
            priors.setdefault(one.place, one)
    for one in reused.values():
        priors.pop(one.place, None)
    return [*reused.values()], [*priors.values()]


def _joined(mixture: Mixture, new: Sequence[str]) -> Mixture:
    """Return the mixture with candidates beside it, each with an equal part of the whole."""
    share = 1 / (len(mixture.weights) + len(new))
    rest = 1 - share * len(new)
    weights = {name: weight * rest for name, weight in mixture.weights.items()}
    return Mixture(weights | dict.fromkeys(new, share), "tuned")
