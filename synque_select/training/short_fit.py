"""Short fits of one module and budget on one mixture after another, each measured at its end."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning import LightningModule

from synque_select.errors import LightningError
from synque_select.training.comparability import (
    comparability_key,
    content_sha256,
    hyper_parameters,
    weights_sha256,
)
from synque_select.training.datamodule import SynqueDataModule
from synque_select.types import Mixture, Ranking, RunRecord
from synque_select.utils.process_state import free_device_memory, seeded

__all__ = ["ShortFit", "ShortFits", "quiet_fits"]

_NEVER = 2**31
_N_HASHED = 8  # training examples, as they are served, that stand for transforms and collation


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
        with seeded(self.seed):
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


def _serving(datamodule: SynqueDataModule, mixture: Mixture) -> SynqueDataModule:
    """Return a DataModule of another mixture whose data is set up already, and stays so."""
    data = datamodule.with_mixture(mixture)
    for hook in ("prepare_data", "setup", "teardown", "on_exception"):
        setattr(data, hook, _nothing)
    return data


def _nothing(*_: Any, **__: Any) -> None:
    pass


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
