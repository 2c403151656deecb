"""What both classes of ProxyCorrelationCallback share: proxies against validation, over runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from synque_select.callbacks._checks import CheckedCallback, require_datamodule, require_single
from synque_select.callbacks._logging import Cell, LoggedTable, log_figure, log_table
from synque_select.callbacks.reselection import reselection_of
from synque_select.callbacks.selection import BaseSelectionCallback
from synque_select.errors import DependencyError, LightningError
from synque_select.proxies.registry import ProxySpec, resolve_suite
from synque_select.records.correlation import KeyCorrelations, correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.run_folder import read_json, write_json
from synque_select.records.store import RunStore
from synque_select.report.correlation_tables import correlation_tables
from synque_select.report.plots import correlation_figure
from synque_select.selection.scorer import Scorer
from synque_select.training.bookkeeping import bookkeeping, store_record
from synque_select.training.comparability import (
    comparability_key,
    hyper_parameters,
    validation_of,
    validation_sha256,
    weights_sha256,
)
from synque_select.training.distributed import n_data_replicas, on_rank_zero
from synque_select.training.lightning_compat import (
    ModuleT,
    TrainerT,
    callbacks_of,
    is_dev_run,
    is_overridden,
)
from synque_select.training.short_fit import check_mode
from synque_select.training.spawn_result import SpawnResult
from synque_select.training.surrogate import marked_metrics
from synque_select.types import Mixture, Ranking, RunRecord, surrogate_name
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from synque_select.callbacks.selection import AnySelectionCallback
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyTrainer

__all__ = ["BaseProxyCorrelationCallback", "ProbeRunner"]

_MIXTURE = "(mixture)"
_STATE = "synque_correlation"
_METRICS = "validation.json"  # metrics of the last validation, in the directory of the run
_COLUMNS = (
    "proxy",
    "n",
    "pearson",
    "pearson_p",
    "spearman",
    "spearman_low",
    "spearman_high",
    "spearman_p",
    "kendall",
    "kendall_p",
    "verdict",
)


class _Concluded(TypedDict):
    """The values that a launched process passes back: the run, and keys of the correlations."""

    run_id: str
    keys: list[str]


class ProbeRunner(Protocol):
    """Interface of objects that train short fits on single candidates, such as `ProbeSweep`."""

    def prepare(self, trainer: Any, module: Any) -> None:
        """Copy the model that probes start from; called in `setup("fit")` on rank 0."""

    def run(
        self,
        trainer: Any,
        datamodule: AnySynqueDataModule,
        *,
        ranking: Ranking,
        monitor: str,
        mode: Literal["max", "min"],
        task: str,
        store: RunStore,
    ) -> list[RunRecord]:
        """Store and return one record per candidate; called on fit end on rank 0.

        With more than one rank the process group is open, so probes must run in another process.
        """
        ...


class BaseProxyCorrelationCallback(CheckedCallback[TrainerT, ModuleT]):
    """Stores proxy scores and validation metrics after training, and logs how they correlate.

    When the fit ends, a run record of kind "mixture" is written to a SQLite store that several runs
    and processes share, and the correlation of every proxy with the metric is logged. Correlations
    only cover records of one kind that have the comparability key of this run. With fewer than 5
    distinct units, a message says how many are missing. With `probes=`, a fresh copy of the model
    is trained on each candidate alone, so that one fit gives a correlation over all candidates.

    The ranking is that of the trainer's `SelectionCallback`. A mixture is scored from the scores of
    its candidates if the proxy supports it, as all proxies of the default suite do. The other
    proxies score a seeded sample of the mixture together with the candidates; it is as large as the
    weights allow without repeating an example. The metrics are those in `trainer.callback_metrics`
    after the last validation; if training continued after it, the record's details say so. A
    resumed run leaves one record, whenever it was killed. A run with a `ReselectionCallback` is
    recorded with the mixture that it began with and all weights, and is compared with runs of the
    same policy only, unless that is `static`. With several ranks, the others wait for
    rank 0, without the timeout of a collective operation.

    Args:
        monitor: The validation metric to correlate with, as the model logs it.
        mode: "max" if a larger value of the metric is better, else "min".
        proxies: Proxies to correlate, scored after the fit; None for those of the selection.
        probes: Trains the probes; None for no probes.
        store: A run store or its path; None for `$SYNQUE_STORE` or `runs/records.sqlite`.
        task: Name of the task, part of the comparability key; None for the model's class.

    Attributes:
        record: The run record, after the fit, on every rank that can read the store.
        correlations: The logged correlations, after the fit: first of this run's kind, then of the
            probes.

    Raises:
        ConfigError: `mode` is not "max" or "min".

    Example:
        >>> from synque_select import ProxyCorrelationCallback
        >>> callback = ProxyCorrelationCallback("val_loss", mode="min")
        >>> callback.correlations
        ()
    """

    def __init__(
        self,
        monitor: str = "val_acc",
        mode: Literal["max", "min"] = "max",
        *,
        proxies: Sequence[ProxySpec] | None = None,
        probes: ProbeRunner | None = None,
        store: RunStore | str | Path | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        self._record: RunRecord | None = None
        self._correlations: tuple[KeyCorrelations, ...] = ()
        self._spawn_result: SpawnResult[_Concluded] = SpawnResult()
        self._monitor, self._mode = monitor, mode
        self._proxies, self._probes, self._task = proxies, probes, task
        self._store = store if isinstance(store, RunStore) else RunStore(store)
        self._weights, self._n_batches, self._has_warned = "", 0, False
        self._metrics: dict[str, float] = {}
        self._validated_at = 0

    @property
    def record(self) -> RunRecord | None:
        """The run record, after the fit."""
        self._recall()
        return self._record

    @property
    def correlations(self) -> tuple[KeyCorrelations, ...]:
        """The logged correlations, after the fit: of this run's kind, then of the probes."""
        self._recall()
        return self._correlations

    def _recall(self) -> None:
        """Read what a launched process has written to the store."""
        concluded = self._spawn_result.take()
        if concluded is not None:
            self._read_back(concluded)

    def _read_back(self, concluded: _Concluded) -> None:
        self._record = self._stored(concluded["run_id"])
        self._correlations = self._correlated(concluded["keys"])

    def _stored(self, run_id: str) -> RunRecord | None:
        records = self._store.read(kind="mixture")
        return next((record for record in records if record.run_id == run_id), None)

    def setup(self, trainer: TrainerT, pl_module: ModuleT, stage: str) -> None:
        """Hash the initial weights and prepare the probes; only for fit."""
        if stage != "fit" or is_dev_run(trainer):
            return
        require_single(self, trainer, BaseProxyCorrelationCallback)
        datamodule = require_datamodule(trainer)
        _selection(trainer)
        if self._proxies is not None:  # check here, not after training
            resolve_suite(self._proxies, datamodule.candidates[0].modality)
        self._weights, self._n_batches, self._has_warned = weights_sha256(pl_module), 0, False
        self._metrics, self._validated_at = {}, 0
        probes = self._probes
        if probes is not None:
            on_rank_zero(trainer, lambda: probes.prepare(trainer, pl_module))

    def on_train_batch_end(self, trainer: TrainerT, *args: object) -> None:
        """Count batches, because the examples drawn are part of the comparability key."""
        self._n_batches += 1

    def on_validation_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Store the metrics of this validation; those of the last one count."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if require_datamodule(trainer).uses_surrogate:
            self._metrics = marked_metrics(trainer)
        else:
            self._metrics = {name: float(v) for name, v in trainer.callback_metrics.items()}
        self._validated_at = trainer.global_step
        if self._recorded_monitor(trainer) not in self._metrics:
            self._warn_of_missing_metric()
        run_dir = _selection(trainer).run_dir
        if run_dir is not None and trainer.is_global_zero:
            state = {"step": self._validated_at, "metrics": self._metrics}
            with bookkeeping(f"the metrics of step {self._validated_at} are not in {run_dir}"):
                write_json(run_dir / _METRICS, state)

    def on_fit_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Write the run record, run the probes, and log the correlations; on rank 0."""
        if is_dev_run(trainer):
            return
        concluded = on_rank_zero(trainer, lambda: self._conclude(trainer, pl_module))
        with bookkeeping("the run record is not known on this rank"):
            if not trainer.is_global_zero:
                self._read_back(concluded)
        with bookkeeping("the run record did not come back from the launched process"):
            if trainer.local_rank == 0:
                self._spawn_result.write(concluded)

    def on_save_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Store the hash of the initial weights, the batches so far and the last metrics."""
        checkpoint[_STATE] = {
            "weights": self._weights,
            "n_batches": self._n_batches,
            "metrics": dict(self._metrics),
            "validated_at": self._validated_at,
        }

    def on_load_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Restore what `on_save_checkpoint` stored."""
        state = checkpoint.get(_STATE)
        if state is not None:
            self._weights, self._n_batches = state["weights"], state["n_batches"]
            self._metrics = dict(state.get("metrics", {}))
            self._validated_at = state.get("validated_at", 0)

    def _conclude(self, trainer: TrainerT, pl_module: ModuleT) -> _Concluded:
        """Write the record, run the probes, log the correlations; training is over and safe."""
        selection, datamodule = _selection(trainer), require_datamodule(trainer)
        self._store = RunStore(self._store.path, run_dir=selection.run_dir)
        self._record, keys = None, []
        with bookkeeping("this fit has no run record and is missing from correlations"):
            with bookkeeping("the metrics of the last validation could not be read back"):
                self._restore_metrics(trainer, selection.run_dir)
            ranking = self._ranking(trainer, selection, datamodule)
            self._record = self._record_of(trainer, pl_module, ranking)
            keys = [self._record.key_hash]
            store_record(self._store, self._record)
        if self._record is not None:
            if self._recorded_monitor(trainer) not in self._metrics:
                self._warn_of_missing_metric()
            elif self._probes is not None:
                again = "the probes did not finish (`synque-select sweep` trains those missing)"
                with bookkeeping(again, runs_user_code=True):
                    keys += self._probe(trainer, datamodule, ranking)
            with bookkeeping("the correlation of proxies with validation is not shown"):
                self._show(trainer, keys)
        return {"run_id": selection.run_id, "keys": keys}

    def _restore_metrics(self, trainer: TrainerT, run_dir: Path | None) -> None:
        """Read the metrics of this step, if the run wrote them before it was killed.

        A run that resumes from a checkpoint of its last step no longer trains or validates.
        """
        if run_dir is None or self._validated_at == trainer.global_step:
            return
        if (run_dir / _METRICS).is_file():
            state = JsonFields(read_json(run_dir / _METRICS))
            if state.integer("step") == trainer.global_step:
                self._metrics = state.numbers("metrics")
                self._validated_at = trainer.global_step

    def _recorded_monitor(self, trainer: TrainerT) -> str:
        """Return the name of the metric in records: marked if validation is a surrogate."""
        uses_surrogate = require_datamodule(trainer).uses_surrogate
        return surrogate_name(self._monitor) if uses_surrogate else self._monitor

    def _warn_of_missing_metric(self) -> None:
        """Warn once, early enough to stop the run, that the metric is missing."""
        if self._has_warned:
            return
        self._has_warned = True
        if self._metrics:
            remedy = f"found: {', '.join(sorted(self._metrics))}. Set monitor= to one of them,"
        else:
            remedy = (
                "nothing was logged, or training ended before the first validation. Train "
                "longer, validate earlier (val_check_interval of the Trainer),"
            )
        rank_zero_warn(
            f"ProxyCorrelationCallback: no metric {self._monitor!r} was logged in validation; "
            f"{remedy} or log it with self.log in validation_step. Without it, this run is left "
            "out of the correlations"
        )

    def _scorer(self, trainer: TrainerT, selection: AnySelectionCallback) -> Scorer:
        scorer = selection.scorer(trainer)
        if self._proxies is None:
            return scorer
        return replace(scorer, proxies=self._proxies, rank_by=None)

    def _ranking(
        self, trainer: TrainerT, selection: AnySelectionCallback, datamodule: AnySynqueDataModule
    ) -> Ranking:
        """Return the ranking by the proxies that will be correlated."""
        if selection.ranking is None:
            raise LightningError("the SelectionCallback of this Trainer has made no ranking")
        if self._proxies is None or datamodule.real is None:
            return selection.ranking
        scorer = self._scorer(trainer, selection)
        return scorer.cached_ranking(datamodule.candidates, datamodule.real)

    def _mixture_scores(
        self, scorer: Scorer, datamodule: AnySynqueDataModule, ranking: Ranking, mixture: Mixture
    ) -> dict[str, float]:
        """Score the mixture; a single candidate already has its scores."""
        if len(mixture.names) == 1:
            return _values(ranking, mixture.names[0])
        if datamodule.real is None:
            return {}
        # for example, an encoder is not installed here
        with bookkeeping("the mixture was not scored, so the run record has no scores"):
            return scorer.mixture_scores(_MIXTURE, datamodule.candidates, datamodule.real, mixture)
        return {}

    def _record_of(self, trainer: TrainerT, pl_module: ModuleT, ranking: Ranking) -> RunRecord:
        selection, datamodule = _selection(trainer), require_datamodule(trainer)
        mixture = datamodule.mixture
        assert mixture is not None
        key = self._key(trainer, pl_module, ranking)
        known: RunRecord | None = None
        with bookkeeping("the run store was not searched for an earlier record of this run"):
            known = self._stored(selection.run_id)
        if known is not None and (known.key, known.mixture) == (key, mixture):
            scores = known.scores  # the run was killed after scoring: reuse the scores
        else:
            scorer = self._scorer(trainer, selection)
            scores = dict(self._mixture_scores(scorer, datamodule, ranking, mixture))
        return RunRecord.of(
            ranking,
            mixture,
            run_id=selection.run_id,
            kind="mixture",
            key=key,
            scores=scores,
            metrics=self._metrics,
            monitor=self._recorded_monitor(trainer),
            mode=self._mode,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
            details=self._details(trainer, selection, ranking),
        )

    def _key(self, trainer: TrainerT, pl_module: ModuleT, ranking: Ranking) -> JsonObject:
        key = comparability_key(
            task=self._task_of(pl_module),
            validation=_validation_of(trainer),
            monitor=self._recorded_monitor(trainer),
            mode=self._mode,
            model=type(pl_module),
            weights=self._weights,
            examples_drawn=self._n_batches * _batch_size(trainer) * n_data_replicas(trainer),
            optimizer_steps=trainer.global_step,
            hyper_parameters=hyper_parameters(trainer, pl_module),
            ranking=ranking,
            sampling=require_datamodule(trainer).sampling,
        )
        reselection = reselection_of(trainer)
        # a run whose weights change is not one on the mixture that it began with
        return key if reselection is None else {**key, **reselection.key}

    def _details(
        self, trainer: TrainerT, selection: AnySelectionCallback, ranking: Ranking
    ) -> JsonObject:
        details: dict[str, Json] = {
            "candidates": {row.name: _values(ranking, row.name) for row in ranking.candidates},
            "run_dir": str(selection.run_dir or ""),
            "validated_at_step": self._validated_at,
            "final_step": trainer.global_step,
        }
        reselection = reselection_of(trainer)
        if reselection is not None and reselection.trajectory is not None:
            details["weights"] = reselection.trajectory.to_dict()
        if self._metrics and self._validated_at != trainer.global_step:
            details["note"] = (
                f"the last validation was at step {self._validated_at} of {trainer.global_step}, "
                "not at the end: set val_check_interval= so that the last step is validated"
            )
            rank_zero_warn(f"ProxyCorrelationCallback: {details['note']}")
        return details

    def _probe(
        self, trainer: TrainerT, datamodule: AnySynqueDataModule, ranking: Ranking
    ) -> list[str]:
        assert self._probes is not None
        records = self._probes.run(
            trainer,
            datamodule,
            ranking=ranking,
            monitor=self._monitor,
            mode=self._mode,
            task=self._task_of(trainer.lightning_module),
            store=self._store,
        )
        return list(dict.fromkeys(record.key_hash for record in records))

    def _task_of(self, pl_module: object) -> str:
        return type(pl_module).__name__ if self._task is None else self._task

    def _correlated(self, keys: Sequence[str]) -> tuple[KeyCorrelations, ...]:
        return tuple(entry for key in keys for entry in correlate(self._store.read(key_hash=key)))

    def _show(self, trainer: TrainerT, keys: Sequence[str]) -> None:
        self._correlations = self._correlated(keys)
        run_dir = _selection(trainer).run_dir
        if run_dir is not None:
            with bookkeeping("the correlations are not in the directory of the run"):
                save_correlations(self._correlations, run_dir)
        for entry in self._correlations:
            (shown,) = correlation_tables([entry])
            table = LoggedTable(_COLUMNS, _rows(entry), shown.markdown())
            log_table(trainer, f"synque_correlation_{entry.kind}", table)
            rank_zero_info(shown.text())
            if entry.proxies and trainer.loggers:
                _show_figure(trainer, entry)


def _show_figure(trainer: AnyTrainer, entry: KeyCorrelations) -> None:
    try:
        figure = correlation_figure(entry)
    except DependencyError as error:  # the table has the same content as the figure
        rank_zero_info(str(error))
        return
    log_figure(trainer, f"synque_correlation_{entry.kind}", figure)


def _rows(entry: KeyCorrelations) -> list[list[Cell]]:
    return [
        [
            key,
            correlation.n,
            correlation.pearson.value,
            correlation.pearson.p,
            correlation.spearman.value,
            correlation.spearman.low,
            correlation.spearman.high,
            correlation.spearman.p,
            correlation.kendall.value,
            correlation.kendall.p,
            correlation.verdict,
        ]
        for key, correlation in entry.proxies.items()
    ]


def _selection(trainer: AnyTrainer) -> AnySelectionCallback:
    for callback in callbacks_of(trainer):
        if isinstance(callback, BaseSelectionCallback):
            return callback
    raise LightningError(
        "ProxyCorrelationCallback needs the ranking of a SelectionCallback in the same Trainer: "
        "Trainer(callbacks=[SelectionCallback(…), ProxyCorrelationCallback(…)])"
    )


def _values(ranking: Ranking, name: str) -> dict[str, float]:
    return {key: score.value for key, score in ranking[name].scores.items()}


def _batch_size(trainer: AnyTrainer) -> int:
    return require_datamodule(trainer).batch_size


def _validation_of(trainer: AnyTrainer) -> str:
    datamodule = require_datamodule(trainer)
    if datamodule.uses_surrogate:
        return validation_of(datamodule)
    return validation_sha256(_validation_loaders(trainer))


def _validation_loaders(trainer: AnyTrainer) -> object:
    """Return the validation loaders, also if a resumed run had no steps left."""
    if trainer.val_dataloaders is None:
        datamodule = require_datamodule(trainer)
        if is_overridden("val_dataloader", datamodule):
            return datamodule.val_dataloader()
    return trainer.val_dataloaders
