"""What a trial is worth: a validation metric of a short fit, or a proxy of the mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning import LightningModule

from synque_select.callbacks.pruning import PruningCallback
from synque_select.errors import ConfigError, RecordError
from synque_select.records.run_folder import to_jsonable
from synque_select.records.store import RunStore
from synque_select.training.comparability import (
    content_sha256,
    hyper_parameters,
    mixture_unit,
    weights_sha256,
)
from synque_select.training.short_fit import ShortFits
from synque_select.tuning.distributed import Ranks
from synque_select.tuning.mixture_scores import MixtureScores
from synque_select.tuning.result import MIXTURE, PARAMETERS, SECONDS
from synque_select.tuning.space import MixtureSpace
from synque_select.tuning.studies import ROLE, STUDY_ID, optuna_module, origin_of, role_of
from synque_select.types import Mixture, RunRecord

__all__ = ["FitObjective", "ProxyObjective", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How a trial becomes a plan, plain values that every rank can follow.

    Args:
        space: Of the mixtures.
        hyper_parameters: Takes a trial and gives the user's; None for none.
        n_startup: Number of random trials.
    """

    space: MixtureSpace
    hyper_parameters: Callable[[Any], Mapping[str, Any]] | None
    n_startup: int

    def plan(self, trial: Any) -> dict[str, Any]:
        """Let a trial choose, and keep with it what it chose."""
        study = trial.study
        frozen = study.get_trials(deepcopy=False)[trial.number]
        role = role_of(study, frozen, self.n_startup)
        trial.set_user_attr(ROLE, role)
        mixture = self.space.suggest(trial)
        trial.set_user_attr(MIXTURE, dict(mixture.weights))
        parameters = {} if self.hyper_parameters is None else self.hyper_parameters(trial)
        try:
            parameters = to_jsonable(dict(parameters), where="hyper_parameters")
        except (RecordError, TypeError, ValueError) as error:
            raise ConfigError(
                f"hyper_parameters(trial) gave {parameters!r}: allowed is a mapping from argument "
                "of model_factory to number or text"
            ) from error
        trial.set_user_attr(PARAMETERS, parameters)
        return {
            "study": study.study_name,
            "run_id": content_sha256([study.user_attrs[STUDY_ID], origin_of(frozen)])[:32],
            "number": trial.number,
            "role": role,
            "mixture": mixture.to_dict(),
            "hyper_parameters": parameters,
        }


@dataclass(frozen=True)
class ProxyObjective:
    """A proxy's score of the mixture; nothing is trained.

    Args:
        sampling: How trials choose.
        scores: Of mixtures.
        key: The proxy's.
        mode: "max" where higher is better, else "min".
    """

    sampling: Sampling
    scores: MixtureScores
    key: str
    mode: Literal["max", "min"]

    def __call__(self, trial: Any) -> float:
        """Return the score of what the trial chooses."""
        plan = self.sampling.plan(trial)
        found = self.scores.of(Mixture.from_dict(plan["mixture"]), [self.key])
        return worst_if_undefined(found[self.key], self.mode)


def worst_if_undefined(value: float, mode: str) -> float:
    """Return the worst value there is for one that is undefined: Optuna takes no NaN."""
    if not math.isnan(value):
        return value
    return -math.inf if mode == "max" else math.inf


@dataclass
class FitObjective:
    """The primary metric at the end of a short fit; each fit is a run record of kind "trial".

    Args:
        sampling: How trials choose.
        fits: Budget, data and metric.
        factory: Takes the user's hyper-parameters and makes a fresh module.
        ranks: That fit together.
        store: Of the run records.
        sha256: Content hash of each candidate.
        scores: Of mixtures, for the random trials; on rank 0.
        is_reported: Whether the pruner is asked during the fit.
    """

    sampling: Sampling
    fits: ShortFits
    factory: Callable[..., LightningModule]
    ranks: Ranks
    store: RunStore
    sha256: Mapping[str, str]
    scores: MixtureScores | None
    is_reported: bool

    def __call__(self, trial: Any) -> float:
        """Sample on rank 0, fit on all; called on rank 0."""
        plan = self.ranks.share(lambda: self.sampling.plan(trial))
        return self.follow(plan, trial)

    def follow(self, plan: Mapping[str, Any], trial: Any = None) -> float:
        """Fit what was planned, on every rank, and keep the record on rank 0."""
        mixture, noted = Mixture.from_dict(plan["mixture"]), _Noted()
        callbacks: list[pl.Callback] = [noted]
        if self.is_reported:
            callbacks.append(PruningCallback(trial, self.fits.primary))
        try:
            fit, key = self.fits.run(
                partial(self.factory, **plan["hyper_parameters"]),
                mixture,
                known=self._known,
                callbacks=callbacks,
            )
        except optuna_module().TrialPruned as pruned:
            if self.ranks.is_zero:
                self._write(plan, mixture, noted.key(self.fits), {}, {"pruned": str(pruned)})
            raise
        if self.ranks.is_zero:
            trial.set_user_attr(SECONDS, fit.seconds)
            details = {"probe": fit.fit_id, "seconds": fit.seconds}
            self._write(plan, mixture, key, fit.metrics, details, fit.created)
        return worst_if_undefined(fit.metrics[self.fits.primary], self.fits.mode)

    def _known(self, fit_id: str) -> RunRecord | None:
        """Find a fit that finished before, of any worker; ranks that fit together fit again."""
        if self.ranks.n_ranks > 1:
            return None
        for kind in ("trial", "probe"):
            for record in self.store.read(kind=kind):
                if record.details.get("probe") == fit_id:
                    return record
        return None

    def _write(
        self,
        plan: Mapping[str, Any],
        mixture: Mixture,
        key: Mapping[str, Any],
        metrics: Mapping[str, float],
        details: Mapping[str, Any],
        created: str | None = None,
    ) -> None:
        fits, is_random = self.fits, plan["role"] == "random"
        scored = is_random and bool(metrics) and self.scores is not None
        proxies = fits.ranking.proxies
        self.store.write(
            RunRecord(
                # of a trial and of its repetition there is one record
                run_id=plan["run_id"],
                kind="trial",
                key=key,
                unit=mixture_unit(mixture, self.sha256),
                mixture=mixture,
                scores=self.scores.of(mixture) if scored and self.scores else {},
                orientation={name: info.higher_is_better for name, info in proxies.items()},
                metrics=metrics,
                primary=fits.primary,
                primary_mode=fits.mode,
                seed=fits.seed,
                created=created or datetime.now(UTC).isoformat(),
                details={
                    **details,
                    "startup": is_random,
                    **{k: plan[k] for k in ("study", "number", "role", "hyper_parameters")},
                },
            )
        )


class _Noted(pl.Callback):
    """Notes at the start of a fit what the key of a fit that is ended early must hold."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: LightningModule) -> None:
        self._model, self._weights = type(pl_module), weights_sha256(pl_module)
        self._parameters = hyper_parameters(trainer, pl_module)
        self._batch_size = trainer.datamodule.batch_size  # type: ignore[attr-defined]

    def key(self, fits: ShortFits) -> dict[str, Any]:
        return fits.key(self._model, self._batch_size, self._parameters, self._weights)
