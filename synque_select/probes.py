"""Probes: the same short fit on each candidate alone, for a correlation over all of them."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning import LightningModule, Trainer
from tqdm import tqdm

from synque_select.callbacks._random import seeded
from synque_select.callbacks._run_key import (
    comparability_key,
    content_sha256,
    hyper_parameters,
    mixture_unit,
    validation_sha256,
    weights_sha256,
)
from synque_select.callbacks._scoring import free_device_memory
from synque_select.data.datamodule import SynqueDataModule
from synque_select.errors import ConfigError, LightningError
from synque_select.probe_process import check_sendable, run_in_worker
from synque_select.records.store import RunStore
from synque_select.types import Mixture, Ranking, RunRecord

__all__ = ["ProbeSweep", "ShortFit", "ShortFits", "quiet_fits", "run_probes", "train_probes"]

_NEVER = 2**31
_N_HASHED = 8  # training examples, as they are served, that stand for transforms and collation


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
        _check_steps(max_steps)
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
    _check_steps(max_steps)
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


@dataclass(frozen=True)
class ShortFit:
    """What one short fit came to.

    Args:
        fit_id: Hash of all that changes it.
        metrics: Every validation metric at the end of the budget.
        parameters: Hyper-parameters of module, optimisers and trainer.
        seconds: Wall time when it was trained.
        created: When an earlier run finished it; None where this one did.
    """

    fit_id: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    seconds: float
    created: str | None = None


@dataclass
class ShortFits:
    """Fits of one module and budget, measured once, at the fixed end of the budget.

    Args:
        datamodule: Set up for fit; its candidates are trained on.
        ranking: What the proxies said of them.
        primary: The metric that must be logged in validation.
        mode: "max" where a larger value is better, else "min".
        task: Name of the task; None for the module's class.
        max_steps: Optimiser steps of each fit.
        seed: Of whatever is random beside the order of examples.
        options: Arguments of the Trainer beyond the budget.
        validation: Hash of the validation data.
    """

    datamodule: SynqueDataModule
    ranking: Ranking
    primary: str
    mode: Literal["max", "min"]
    task: str | None
    max_steps: int
    seed: int
    options: Mapping[str, Any]
    validation: str

    def run(
        self,
        factory: Callable[[], LightningModule],
        mixture: Mixture,
        *,
        known: Callable[[str], RunRecord | None],
        callbacks: Sequence[pl.Callback] = (),
    ) -> tuple[ShortFit, dict[str, Any]]:
        """Train a fresh module on a mixture, or take what the store has of exactly this fit.

        Args:
            factory: Makes the module, under the seed.
            mixture: What to train on.
            known: Takes a fit's id and gives the record of one that has finished, if any.
            callbacks: Of the Trainer.

        Returns:
            The fit and its comparability key.

        Raises:
            LightningError: The module does not log the primary metric.
        """
        data = _serving(self.datamodule, mixture)
        with seeded(self.seed, _cuda_device(self.options)):
            module = factory()
            weights = weights_sha256(module)
            fit_id = self._fit_id(mixture, data, module, weights)
            record = known(fit_id)
            if record is None:
                fit = self._train(fit_id, data, module, callbacks)
            else:
                parameters, seconds = record.key["hyper_parameters"], record.details["seconds"]
                fit = ShortFit(fit_id, record.metrics, parameters, seconds, record.created)
        if self.primary not in fit.metrics:
            raise LightningError(
                f"{type(module).__name__} does not log {self.primary!r} in validation; logged are: "
                f"{', '.join(sorted(fit.metrics)) or 'none'}"
            )
        return fit, self.key(type(module), data.batch_size, fit.parameters, weights)

    def _fit_id(
        self, mixture: Mixture, data: SynqueDataModule, module: LightningModule, weights: str
    ) -> str:
        """Hash all that changes what a fit comes to."""
        loader = data.mixture_loader()
        served: Any = loader.dataset
        batch = loader.collate_fn([served[i] for i in range(min(_N_HASHED, len(served)))])
        return content_sha256(
            [
                self.task,
                sorted((self.ranking[name].sha256, w) for name, w in mixture.weights.items()),
                _code(type(module)),
                dict(module.hparams),
                weights,
                self.validation,
                [self.max_steps, self.seed, loader.batch_size],
                {key: str(value) for key, value in self.options.items()},
                batch,
                [importlib.metadata.version(p) for p in ("torch", "pytorch-lightning")],
            ]
        )

    def _train(
        self,
        fit_id: str,
        data: SynqueDataModule,
        module: LightningModule,
        callbacks: Sequence[pl.Callback],
    ) -> ShortFit:
        started = time.perf_counter()
        module.configure_callbacks = list  # type: ignore[method-assign]
        with quiet_fits():
            trainer = pl.Trainer(**self._trainer_options(callbacks))
            trainer.fit(module, datamodule=data)
            parameters = hyper_parameters(trainer, module)
            found = trainer.validate(module, datamodule=data, verbose=False)
        metrics = {name: float(value) for part in found for name, value in part.items()}
        del trainer
        free_device_memory()
        return ShortFit(fit_id, metrics, parameters, time.perf_counter() - started)

    def _trainer_options(self, callbacks: Sequence[pl.Callback]) -> dict[str, Any]:
        return {
            "max_steps": self.max_steps,
            "max_epochs": -1,
            # measured once, at the fixed end of the budget: by Trainer.validate
            "check_val_every_n_epoch": _NEVER,
            "num_sanity_val_steps": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **self.options,
            "callbacks": [*(self.options.get("callbacks") or []), *callbacks],
        }

    def key(
        self, model: type, batch_size: int, parameters: Mapping[str, Any], weights: str
    ) -> dict[str, Any]:
        """Return the comparability key of a fit of such a module."""
        batches = self.max_steps * parameters["accumulate_grad_batches"]
        return comparability_key(
            task=model.__name__ if self.task is None else self.task,
            validation=self.validation,
            primary=self.primary,
            mode=self.mode,
            model=model,
            weights=weights,
            examples_drawn=batches * batch_size,
            optimizer_steps=self.max_steps,
            hyper_parameters=parameters,
            ranking=self.ranking,
        )


def train_probes(
    fits: ShortFits, factory: Callable[[], LightningModule], store: RunStore, *, progress: bool
) -> list[RunRecord]:
    """Fit on each candidate alone what is not in the store, and keep each as a record."""
    finished = {r.details.get("probe"): r for r in store.read(kind="probe")}
    names = [row.name for row in fits.ranking.candidates]
    records: list[RunRecord] = []
    for name in tqdm(names, desc="probes", unit="probe", disable=not progress):
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


def _check_steps(max_steps: int) -> None:
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ConfigError(f"max_steps={max_steps!r}: allowed is a whole number from 1")


def _serving(datamodule: SynqueDataModule, mixture: Mixture) -> SynqueDataModule:
    """Return a DataModule of another mixture whose data is set up already, and stays so."""
    data = datamodule.with_mixture(mixture)
    for hook in ("prepare_data", "setup", "teardown", "on_exception"):
        setattr(data, hook, _nothing)
    return data


def _nothing(*_: Any, **__: Any) -> None:
    pass


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


def _cuda_device(options: Mapping[str, Any]) -> torch.device | None:
    devices = options.get("devices")
    if not torch.cuda.is_available() or options.get("accelerator") == "cpu":
        return None
    return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)


def _code(cls: type) -> str:
    """Return the source of a module's class: a changed training step is another probe."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return cls.__qualname__


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Keep Lightning's notes on devices, tips and workers away: a short fit is one of many."""
    loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric")]
    loggers.append(logging.getLogger("pytorch_lightning.utilities.rank_zero"))
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            # Lightning's own call of a function of torch that is to go
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
