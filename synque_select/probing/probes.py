"""Probes: the same short fit on each candidate alone, for a correlation over all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer

from synque_select.errors import LightningError
from synque_select.probing.worker_process import check_sendable, run_in_worker
from synque_select.records.store import RunStore
from synque_select.training.comparability import content_sha256, mixture_unit, validation_sha256
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.short_fit import ShortFit, ShortFits
from synque_select.types import Mixture, Ranking, RunRecord
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int

__all__ = ["ProbeSweep", "run_probes", "train_probes"]


class ProbeSweep:
    """Trains a fresh copy of the module on each candidate alone; for `ProxyCorrelationCallback`.

    Every probe starts from the same weights and has the same budget: optimiser steps, batch
    size, seed. The copy is taken in `setup("fit")`, before anything is trained, or made by
    `model_factory`. Probes run after the fit, on its device, without loggers and checkpoints;
    a finished one is in the run store and is not trained again. With more than one rank they run on
    rank 0's device, in a process of their own without the rank variables, while the others wait;
    model and data must be such that `ddp_spawn` could send them.

    Args:
        max_steps: Optimiser steps of each probe.
        model_factory: Makes a fresh module, with the same weights each time under one seed; None
            for a copy of the module that is fitted.
        seed: Of whatever is random in a probe beside the order of examples, which the
            DataModule's own seed settles.
        trainer_options: Arguments of the probes' Trainer, beyond those of the fit.
        progress: Whether to show a progress bar over the probes.

    Raises:
        ConfigError: `max_steps` is not a positive whole number.

    Example:
        >>> from synque_select.callbacks import ProxyCorrelationCallback
        >>> callback = ProxyCorrelationCallback("val_acc", probes=ProbeSweep(max_steps=80))
    """

    def __init__(
        self,
        max_steps: int,
        *,
        model_factory: Callable[[], LightningModule] | None = None,
        seed: int = 0,
        trainer_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        check_int("max_steps", max_steps, 1)
        self._max_steps, self._seed, self._progress = max_steps, seed, progress
        self._factory = model_factory
        self._options = dict(trainer_options or {})
        self._fresh: LightningModule | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Copy the module before it is trained; called by the callback in `setup("fit")`.

        Raises:
            LightningError: The module cannot be copied, or, with more than one rank, model and data
                cannot be sent to another process.
        """
        if self._factory is None:
            try:
                self._fresh = copy.deepcopy(module)
            except (TypeError, RuntimeError, ValueError) as error:
                raise LightningError(
                    f"{type(module).__name__} cannot be copied for the probes ({error}): give "
                    "ProbeSweep(model_factory=…), a function that makes a fresh one"
                ) from error
        if trainer.world_size > 1:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            check_sendable((self, data.detached()))

    def run(
        self,
        trainer: Trainer,
        datamodule: SynqueDataModule,
        *,
        ranking: Ranking,
        primary: str,
        mode: Literal["max", "min"],
        task: str,
        store: RunStore,
    ) -> list[RunRecord]:
        """Train what is not in the store; called by the callback on fit end."""
        fits = ShortFits(
            datamodule=datamodule,
            ranking=ranking,
            primary=primary,
            mode=mode,
            task=task,
            max_steps=self._max_steps,
            seed=self._seed,
            options={**_options_of(trainer), **self._options},
            validation=validation_sha256(datamodule.val_dataloader()),
        )
        factory = self._factory or self._copy
        if trainer.world_size > 1:
            sent = replace(fits, datamodule=datamodule.detached())
            work = {"fits": sent, "factory": factory, "store": store, "progress": self._progress}
            run_ids = run_in_worker(work)
            records = {record.run_id: record for record in store.read(kind="probe")}
            return [records[run_id] for run_id in run_ids]
        try:
            return train_probes(fits, factory, store, progress=self._progress)
        finally:
            datamodule.trainer = trainer

    def _copy(self) -> LightningModule:
        return copy.deepcopy(self._fresh)  # type: ignore[return-value]


def run_probes(
    model_factory: Callable[[], LightningModule],
    datamodule: SynqueDataModule,
    ranking: Ranking,
    *,
    max_steps: int,
    primary: str = "val_acc",
    mode: Literal["max", "min"] = "max",
    task: str | None = None,
    seed: int = 0,
    store: RunStore | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> list[RunRecord]:
    """Train a fresh module on each candidate alone, outside of any fit.

    Args:
        model_factory: Makes a fresh module, with the same weights each time under one seed.
        datamodule: Its candidates are trained on; its validation loaders are validated on.
        ranking: What the proxies said of the candidates.
        max_steps: Optimiser steps of each probe.
        primary: The metric that correlations are about.
        mode: "max" where a larger value is better, else "min".
        task: Name of the task, part of the comparability key; None for the module's class.
        seed: Of the weights and of whatever else is random beside the order of examples, which
            the DataModule's own seed settles.
        store: Where finished probes are looked up and kept; None for the default store.
        trainer_options: Arguments of the probes' Trainer: accelerator, precision, ….
        progress: Whether to show a progress bar.

    Returns:
        One record a candidate, of kind "probe", in the order of the ranking's rows; all are in
        the store.

    Raises:
        ConfigError: `max_steps` is not a positive whole number.
        LightningError: The module does not log the metric, or the factory makes other weights.
    """
    check_int("max_steps", max_steps, 1)
    datamodule.prepare_data()
    datamodule.setup("fit")
    try:
        fits = ShortFits(
            datamodule=datamodule,
            ranking=ranking,
            primary=primary,
            mode=mode,
            task=task,
            max_steps=max_steps,
            seed=seed,
            options={"devices": 1, **(trainer_options or {})},
            validation=validation_sha256(datamodule.val_dataloader()),
        )
        found = RunStore() if store is None else store
        return train_probes(fits, model_factory, found, progress=progress)
    finally:
        datamodule.teardown("fit")


def train_probes(
    fits: ShortFits, factory: Callable[[], LightningModule], store: RunStore, *, progress: bool
) -> list[RunRecord]:
    """Fit on each candidate alone what is not in the store, and keep each as a record."""
    finished = {r.details.get("probe"): r for r in store.read(kind="probe")}
    names = [row.name for row in fits.ranking.candidates]
    records: list[RunRecord] = []
    for name in ProgressBar(names, desc="probes", unit="probe", disable=not progress):
        mixture = Mixture.equal([name], "probe")
        fit, key = fits.run(factory, mixture, known=finished.get)
        _check_weights(key, records)
        records.append(_record(fits, mixture, fit, key))
        store.write(records[-1])
    return records


def _check_weights(key: Mapping[str, Any], records: Sequence[RunRecord]) -> None:
    field = "initial_weights_sha256"
    if records and key[field] != records[0].key[field]:
        raise LightningError(
            "model_factory made a module with other initial weights than before: probes are "
            "comparable only from the same ones; seed inside the factory, or load them"
        )


def _record(fits: ShortFits, mixture: Mixture, fit: ShortFit, key: Mapping[str, Any]) -> RunRecord:
    ranking = fits.ranking
    row = ranking[mixture.names[0]]
    return RunRecord(
        run_id=content_sha256([fit.fit_id, key])[:32],
        kind="probe",
        key=key,
        unit=mixture_unit(mixture, {row.name: row.sha256}),
        mixture=mixture,
        scores={proxy: score.value for proxy, score in row.scores.items()},
        orientation={k: info.higher_is_better for k, info in ranking.proxies.items()},
        metrics=fit.metrics,
        primary=fits.primary,
        primary_mode=fits.mode,
        seed=fits.seed,
        created=fit.created or datetime.now(UTC).isoformat(),
        details={"probe": fit.fit_id, "seconds": fit.seconds},
    )


def _options_of(trainer: Trainer) -> dict[str, Any]:
    """Return what a probe's Trainer must share with the fit that it stands for."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": 1 if device.index is None else [device.index],
        "precision": trainer.precision,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm,
        "default_root_dir": trainer.default_root_dir,
    }
