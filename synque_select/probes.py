"""Probes: the same short fit on each candidate alone, for a correlation over all of them."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from synque_select.records.store import RunStore
from synque_select.types import Mixture, Ranking, RunRecord

__all__ = ["ProbeSweep", "quiet_fits", "run_probes"]

_NEVER = 2**31
_N_HASHED = 8  # training examples, as they are served, that stand for transforms and collation


class ProbeSweep:
    """Trains a fresh copy of the module on each candidate alone; for `ProxyCorrelationCallback`.

    Every probe starts from the same weights and has the same budget: optimiser steps, batch
    size, seed. The copy is taken in `setup("fit")`, before anything is trained, or made by
    `model_factory`. Probes run after the fit, on its device, without loggers and checkpoints;
    a finished one is in the run store and is not trained again.

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
            LightningError: The trainer has more than one rank, or the module cannot be copied.
        """
        if trainer.world_size > 1:
            raise LightningError(
                f"probes= with {trainer.world_size} ranks: a probe is a fit on one device, which "
                "cannot run inside a process group; leave probes= out and run the probes by "
                "`synque-select sweep` in a process of their own"
            )
        if self._factory is not None:
            return
        try:
            self._fresh = copy.deepcopy(module)
        except (TypeError, RuntimeError, ValueError) as error:
            raise LightningError(
                f"{type(module).__name__} cannot be copied for the probes ({error}): give "
                "ProbeSweep(model_factory=…), a function that makes a fresh one"
            ) from error

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
        sweep = _Sweep(
            factory=self._factory or self._copy,
            datamodule=datamodule,
            ranking=ranking,
            primary=primary,
            mode=mode,
            task=task,
            store=store,
            max_steps=self._max_steps,
            seed=self._seed,
            options={**_options_of(trainer), **self._options},
        )
        try:
            return sweep.run(self._progress)
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
    sweep = _Sweep(
        factory=model_factory,
        datamodule=datamodule,
        ranking=ranking,
        primary=primary,
        mode=mode,
        task=task,
        store=RunStore() if store is None else store,
        max_steps=max_steps,
        seed=seed,
        options={"devices": 1, **(trainer_options or {})},
    )
    datamodule.prepare_data()
    datamodule.setup("fit")
    try:
        return sweep.run(progress)
    finally:
        datamodule.teardown("fit")


@dataclass(frozen=True)
class _Trained:
    """What one probe came to."""

    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    seconds: float


@dataclass
class _Sweep:
    """Probes of one module, budget and ranking."""

    factory: Callable[[], LightningModule]
    datamodule: SynqueDataModule
    ranking: Ranking
    primary: str
    mode: Literal["max", "min"]
    task: str | None
    store: RunStore
    max_steps: int
    seed: int
    options: Mapping[str, Any]
    weights: str = field(default="", init=False)
    validation: str = field(default="", init=False)

    def run(self, progress: bool) -> list[RunRecord]:
        self.validation = validation_sha256(self.datamodule.val_dataloader())
        finished = {r.details.get("probe"): r for r in self.store.read(kind="probe")}
        names = [row.name for row in self.ranking.candidates]
        bar = tqdm(names, desc="probes", unit="probe", disable=not progress)
        return [self._probe(name, finished) for name in bar]

    def _probe(self, name: str, finished: Mapping[Any, RunRecord]) -> RunRecord:
        data = _alone(self.datamodule, name)
        with seeded(self.seed, _cuda_device(self.options)):
            module = self.factory()
            self._check_weights(module)
            probe_id = self._probe_id(name, data, module)
            known = finished.get(probe_id)
            if known is None:
                trained = self._train(data, module)
            else:
                parameters = known.key["hyper_parameters"]
                trained = _Trained(known.metrics, parameters, known.details["seconds"])
        if self.primary not in trained.metrics:
            raise LightningError(
                f"{type(module).__name__} does not log {self.primary!r} in validation; logged are: "
                f"{', '.join(sorted(trained.metrics)) or 'none'}"
            )
        key = self._key(type(module), data, trained.parameters)
        record = self._record(name, key, trained, probe_id)
        if known is not None:
            record = replace(record, created=known.created)
        self.store.write(record)
        return record

    def _check_weights(self, module: LightningModule) -> None:
        weights = weights_sha256(module)
        if self.weights not in ("", weights):
            raise LightningError(
                "model_factory made a module with other initial weights than before: probes are "
                "comparable only from the same ones; seed inside the factory, or load them"
            )
        self.weights = weights

    def _probe_id(self, name: str, data: SynqueDataModule, module: LightningModule) -> str:
        """Hash all that changes what a probe comes to."""
        loader = data.train_dataloader()
        served: Any = loader.dataset
        batch = loader.collate_fn([served[i] for i in range(min(_N_HASHED, len(served)))])
        return content_sha256(
            [
                self.task,
                self.ranking[name].sha256,
                _code(type(module)),
                dict(module.hparams),
                self.weights,
                self.validation,
                [self.max_steps, self.seed, loader.batch_size],
                {key: str(value) for key, value in self.options.items()},
                batch,
                [importlib.metadata.version(p) for p in ("torch", "pytorch-lightning")],
            ]
        )

    def _train(self, data: SynqueDataModule, module: LightningModule) -> _Trained:
        started = time.perf_counter()
        module.configure_callbacks = list  # type: ignore[method-assign]
        with quiet_fits():
            trainer = pl.Trainer(**self._trainer_options())
            trainer.fit(module, datamodule=data)
            parameters = hyper_parameters(trainer, module)
            found = trainer.validate(module, datamodule=data, verbose=False)
        metrics = {name: float(value) for part in found for name, value in part.items()}
        del trainer
        free_device_memory()
        return _Trained(metrics, parameters, time.perf_counter() - started)

    def _trainer_options(self) -> dict[str, Any]:
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
        }

    def _key(
        self, model: type, data: SynqueDataModule, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        batches = self.max_steps * parameters["accumulate_grad_batches"]
        return comparability_key(
            task=model.__name__ if self.task is None else self.task,
            validation=self.validation,
            primary=self.primary,
            mode=self.mode,
            model=model,
            weights=self.weights,
            examples_drawn=batches * data.batch_size,
            optimizer_steps=self.max_steps,
            hyper_parameters=parameters,
            ranking=self.ranking,
        )

    def _record(
        self,
        name: str,
        key: Mapping[str, Any],
        trained: _Trained,
        probe_id: str,
    ) -> RunRecord:
        row, mixture = self.ranking[name], Mixture.equal([name], "probe")
        return RunRecord(
            run_id=content_sha256([probe_id, key])[:32],
            kind="probe",
            key=key,
            unit=mixture_unit(mixture, {name: row.sha256}),
            mixture=mixture,
            scores={proxy: score.value for proxy, score in row.scores.items()},
            orientation={k: info.higher_is_better for k, info in self.ranking.proxies.items()},
            metrics=trained.metrics,
            primary=self.primary,
            primary_mode=self.mode,
            seed=self.seed,
            created=datetime.now(UTC).isoformat(),
            details={"probe": probe_id, "seconds": trained.seconds},
        )


def _check_steps(max_steps: int) -> None:
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ConfigError(f"max_steps={max_steps!r}: allowed is a whole number from 1")


def _alone(datamodule: SynqueDataModule, name: str) -> SynqueDataModule:
    """Return a DataModule of one candidate whose data is set up already, and stays so."""
    data = datamodule.with_mixture(Mixture.equal([name], "probe"))
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
