"""ProxyCorrelationCallback: how far the proxies agreed with validation, kept across runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.model_helpers import is_overridden

from synque_select.callbacks._checks import CheckedCallback, require_datamodule, require_single
from synque_select.callbacks._logging import LoggedTable, log_figure, log_table
from synque_select.callbacks.selection import SelectionCallback
from synque_select.errors import ConfigError, DependencyError, LightningError, SynqueError
from synque_select.proxies.registry import ProxySpec, resolve_suite
from synque_select.records.correlation import KeyCorrelations, correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.run_folder import read_json, write_json
from synque_select.records.store import RunStore
from synque_select.report.correlation_tables import correlation_tables
from synque_select.report.plots import correlation_figure
from synque_select.selection.scorer import Scorer
from synque_select.training.comparability import (
    comparability_key,
    hyper_parameters,
    validation_sha256,
    weights_sha256,
)
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.distributed import n_data_replicas, on_rank_zero
from synque_select.training.spawn_result import SpawnResult
from synque_select.types import Mixture, Ranking, RunRecord
from synque_select.utils.json_fields import JsonFields

__all__ = ["ProbeRunner", "ProxyCorrelationCallback"]

_MIXTURE = "(mixture)"
_STATE = "synque_correlation"
_FIGURES = "validation.json"  # of the last validation, in the run's folder
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


class ProbeRunner(Protocol):
    """Trains short fits on single candidates; `synque_select.probing.probes.ProbeSweep` is one."""

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Called in `setup("fit")` on rank 0, before anything is trained: take the start."""

    def run(
        self,
        trainer: Trainer,
        datamodule: SynqueDataModule,
        *,
        ranking: Ranking,
        monitor: str,
        mode: Literal["max", "min"],
        task: str,
        store: RunStore,
    ) -> list[RunRecord]:
        """Called on fit end on rank 0: return one record a candidate, in the store when finished.

        With more than one rank the process group is open: probes must run in another process.
        """
        ...


class ProxyCorrelationCallback(CheckedCallback):
    """After training, keep what the proxies said and what validation said; log how they correlate.

    On fit end one run record of kind "mixture" goes into a SQLite store that several runs and
    processes share, and the correlations of every proxy with validation are logged: within the
    comparability key of this run, within one kind, never pooled. Under 5 distinct units a
    sentence says how many are missing. With `probes=` a fresh copy of the model is trained on
    each candidate alone, so that one fit gives a correlation over all candidates.

    The ranking is that of the trainer's `SelectionCallback`. The scores of the mixture follow from
    the candidates where a proxy can (all of the default suite); the other proxies score a sample of
    it, seeded and as large as its weights allow without repeating an example, beside the
    candidates. The metrics are those in `trainer.callback_metrics` after the
    last validation; where training went on after that, the record's details say so. A run that is
    resumed, at whatever point it was killed, leaves one record. With several ranks all of them wait
    for rank 0, without a collective's timeout.

    Args:
        monitor: The metric that correlations are about, as the model logs it.
        mode: "max" where a larger value is better, else "min".
        proxies: Correlate these, scored after fit; None for those of the selection.
        probes: Trains the probes; None for none.
        store: A run store or its path; None for `$SYNQUE_STORE` or `runs/records.sqlite`.
        task: Name of the task, part of the comparability key; None for the model's class.

    Attributes:
        record: The run record, after fit, on every rank that sees the store.
        correlations: The correlations logged, after fit: of this run's kind, then of the probes.

    Raises:
        ConfigError: `mode` is not "max" or "min".

    Example:
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
        if mode not in ("max", "min"):
            raise ConfigError(f"mode={mode!r}: allowed are 'max' and 'min'")
        self._record: RunRecord | None = None
        self._correlations: tuple[KeyCorrelations, ...] = ()
        self._note = SpawnResult()
        self._monitor, self._mode = monitor, mode
        self._proxies, self._probes, self._task = proxies, probes, task
        self._store = store if isinstance(store, RunStore) else RunStore(store)
        self._weights, self._n_batches, self._warned = "", 0, False
        self._metrics: dict[str, float] = {}
        self._validated_at = 0

    @property
    def record(self) -> RunRecord | None:
        """The run record, after fit."""
        self._recall()
        return self._record

    @property
    def correlations(self) -> tuple[KeyCorrelations, ...]:
        """The correlations logged, after fit: of this run's kind, then of the probes."""
        self._recall()
        return self._correlations

    def _recall(self) -> None:
        """Read what a process that was launched for a fit has put into the store."""
        left = self._note.take()
        if left is not None:
            self._read_back(left)

    def _read_back(self, left: dict[str, Any]) -> None:
        self._record = self._stored(left["run_id"])
        self._correlations = self._correlated(left["keys"])

    def _stored(self, run_id: str) -> RunRecord | None:
        records = self._store.read(kind="mixture")
        return next((record for record in records if record.run_id == run_id), None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note what training starts from; only for fit."""
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        require_single(self, trainer, ProxyCorrelationCallback)
        datamodule = require_datamodule(trainer)
        _selection(trainer)
        if self._proxies is not None:  # refused here and not after the training
            resolve_suite(self._proxies, datamodule.candidates[0].modality)
        self._weights, self._n_batches, self._warned = weights_sha256(pl_module), 0, False
        self._metrics, self._validated_at = {}, 0
        if self._probes is not None:
            on_rank_zero(trainer, lambda: self._prepare_probes(trainer, pl_module))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Count batches: the examples drawn are part of the comparability key."""
        self._n_batches += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures of this validation; the last one counts."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._metrics = {name: float(v) for name, v in trainer.callback_metrics.items()}
        self._validated_at = trainer.global_step
        if self._monitor not in self._metrics:
            self._warn_of_missing_metric()
        folder = _selection(trainer).run_dir
        if folder is not None and trainer.is_global_zero:
            figures = {"step": self._validated_at, "metrics": self._metrics}
            write_json(folder / _FIGURES, figures)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the run record, run the probes, and log the correlations; on rank 0."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        concluded = on_rank_zero(trainer, lambda: self._conclude(trainer, pl_module))
        if not trainer.is_global_zero:
            self._read_back(concluded)
        if trainer.local_rank == 0:
            self._note.write(concluded)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what a resumed run cannot know: first weights, batches so far, last figures."""
        checkpoint[_STATE] = {
            "weights": self._weights,
            "n_batches": self._n_batches,
            "metrics": dict(self._metrics),
            "validated_at": self._validated_at,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from there."""
        state = checkpoint.get(_STATE)
        if state is not None:
            self._weights, self._n_batches = state["weights"], state["n_batches"]
            self._metrics = dict(state.get("metrics", {}))
            self._validated_at = state.get("validated_at", 0)

    def _prepare_probes(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        assert self._probes is not None
        self._probes.prepare(trainer, pl_module)
        return {}

    def _conclude(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the run's id and the comparability keys that correlations are about."""
        selection, datamodule = _selection(trainer), require_datamodule(trainer)
        ranking = self._ranking(trainer, selection, datamodule)
        self._take_over_figures(trainer, selection.run_dir)
        self._record = self._record_of(trainer, pl_module, ranking)
        self._store.write(self._record)
        keys = [self._record.key_hash]
        if self._monitor not in self._metrics:
            self._warn_of_missing_metric()
        elif self._probes is not None:
            keys += self._probe(trainer, datamodule, ranking)
        self._show(trainer, keys)
        return {"run_id": selection.run_id, "keys": keys}

    def _take_over_figures(self, trainer: Trainer, folder: Path | None) -> None:
        """Take the figures of this step that the run had before it was killed, if it had any.

        Resumed from a checkpoint of its last step, a run trains and validates no more.
        """
        if folder is None or self._validated_at == trainer.global_step:
            return
        if (folder / _FIGURES).is_file():
            kept = JsonFields(read_json(folder / _FIGURES))
            step = kept.integer("step")
            if step == trainer.global_step:
                self._metrics, self._validated_at = kept.numbers("metrics"), step

    def _warn_of_missing_metric(self) -> None:
        """Say once, early enough to stop the run, that it will enter no correlation."""
        if self._warned:
            return
        self._warned = True
        if self._metrics:
            found = f"logged are: {', '.join(sorted(self._metrics))}. Give monitor= one of them, or"
        else:
            found = (
                "nothing was, or training ended before the first validation. Train longer, "
                "validate earlier (val_check_interval of the Trainer), or"
            )
        rank_zero_warn(
            f"ProxyCorrelationCallback: no metric {self._monitor!r} was logged in validation; "
            f"{found} log it with self.log in validation_step: without it this run enters no "
            "correlation"
        )

    def _scorer(self, trainer: Trainer, selection: SelectionCallback) -> Scorer:
        scorer = selection.scorer(trainer)
        if self._proxies is None:
            return scorer
        return replace(scorer, proxies=self._proxies, rank_by=None)

    def _ranking(
        self, trainer: Trainer, selection: SelectionCallback, datamodule: SynqueDataModule
    ) -> Ranking:
        """Return the ranking of the proxies that are to be correlated."""
        if selection.ranking is None:
            raise LightningError("the SelectionCallback of this Trainer has made no ranking")
        if self._proxies is None or datamodule.real is None:
            return selection.ranking
        scorer = self._scorer(trainer, selection)
        return scorer.cached_ranking(datamodule.candidates, datamodule.real)

    def _mixture_scores(
        self, scorer: Scorer, datamodule: SynqueDataModule, ranking: Ranking, mixture: Mixture
    ) -> dict[str, float]:
        """Score the mixture; a single candidate has its score already."""
        if len(mixture.names) == 1:
            return _values(ranking, mixture.names[0])
        if datamodule.real is None:
            return {}
        try:
            return scorer.mixture_scores(_MIXTURE, datamodule.candidates, datamodule.real, mixture)
        except SynqueError as error:  # say, an encoder that only the ranking's maker had
            rank_zero_warn(f"the mixture was not scored, the run record has no scores: {error}")
            return {}

    def _record_of(
        self, trainer: Trainer, pl_module: LightningModule, ranking: Ranking
    ) -> RunRecord:
        selection, datamodule = _selection(trainer), require_datamodule(trainer)
        mixture = datamodule.mixture
        assert mixture is not None
        key = self._key(trainer, pl_module, ranking)
        known = self._stored(selection.run_id)
        if known is not None and (known.key, known.mixture) == (key, mixture):
            scores = known.scores  # killed after that, the run does not score again
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
            monitor=self._monitor,
            mode=self._mode,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
            details=self._details(trainer, selection, ranking),
        )

    def _key(
        self, trainer: Trainer, pl_module: LightningModule, ranking: Ranking
    ) -> dict[str, Any]:
        return comparability_key(
            task=self._task_of(pl_module),
            validation=validation_sha256(_validation_loaders(trainer)),
            monitor=self._monitor,
            mode=self._mode,
            model=type(pl_module),
            weights=self._weights,
            examples_drawn=self._n_batches * _batch_size(trainer) * n_data_replicas(trainer),
            optimizer_steps=trainer.global_step,
            hyper_parameters=hyper_parameters(trainer, pl_module),
            ranking=ranking,
        )

    def _details(
        self, trainer: Trainer, selection: SelectionCallback, ranking: Ranking
    ) -> dict[str, Any]:
        details: dict[str, Any] = {
            "candidates": {row.name: _values(ranking, row.name) for row in ranking.candidates},
            "run_dir": str(selection.run_dir or ""),
            "validated_at_step": self._validated_at,
            "final_step": trainer.global_step,
        }
        if self._metrics and self._validated_at != trainer.global_step:
            details["note"] = (
                f"the last validation was at step {self._validated_at} of {trainer.global_step}, "
                "not at the end: set val_check_interval= so that one falls on the last step"
            )
            rank_zero_warn(f"ProxyCorrelationCallback: {details['note']}")
        return details

    def _probe(self, trainer: Trainer, datamodule: SynqueDataModule, ranking: Ranking) -> list[str]:
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

    def _task_of(self, pl_module: LightningModule) -> str:
        return type(pl_module).__name__ if self._task is None else self._task

    def _correlated(self, keys: Sequence[str]) -> tuple[KeyCorrelations, ...]:
        return tuple(entry for key in keys for entry in correlate(self._store.read(key_hash=key)))

    def _show(self, trainer: Trainer, keys: Sequence[str]) -> None:
        found = self._correlations = self._correlated(keys)
        folder = _selection(trainer).run_dir
        if folder is not None:
            save_correlations(found, folder)
        for entry in found:
            (shown,) = correlation_tables([entry])
            table = LoggedTable(_COLUMNS, _rows(entry), shown.markdown())
            log_table(trainer, f"synque_correlation_{entry.kind}", table)
            rank_zero_info(shown.text())
            if entry.proxies and trainer.loggers:
                _show_figure(trainer, entry)


def _show_figure(trainer: Trainer, entry: KeyCorrelations) -> None:
    try:
        figure = correlation_figure(entry)
    except DependencyError as error:  # the table says it all
        rank_zero_info(str(error))
        return
    log_figure(trainer, f"synque_correlation_{entry.kind}", figure)


def _rows(entry: KeyCorrelations) -> list[list[Any]]:
    return [
        [
            key,
            found.n,
            found.pearson.value,
            found.pearson.p,
            found.spearman.value,
            found.spearman.low,
            found.spearman.high,
            found.spearman.p,
            found.kendall.value,
            found.kendall.p,
            found.verdict,
        ]
        for key, found in entry.proxies.items()
    ]


def _selection(trainer: Trainer) -> SelectionCallback:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SelectionCallback):
            return callback
    raise LightningError(
        "ProxyCorrelationCallback takes the ranking from a SelectionCallback of the same Trainer: "
        "Trainer(callbacks=[SelectionCallback(…), ProxyCorrelationCallback(…)])"
    )


def _values(ranking: Ranking, name: str) -> dict[str, float]:
    return {key: score.value for key, score in ranking[name].scores.items()}


def _batch_size(trainer: Trainer) -> int:
    return require_datamodule(trainer).batch_size


def _validation_loaders(trainer: Trainer) -> Any:
    """Return what validation is measured on, also where a resumed run had no step left to take."""
    if trainer.val_dataloaders is None:
        datamodule = require_datamodule(trainer)
        if is_overridden("val_dataloader", datamodule):
            return datamodule.val_dataloader()
    return trainer.val_dataloaders
