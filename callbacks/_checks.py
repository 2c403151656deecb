"""Checks of the Trainer: objects of pytorch_lightning, and a SynqueDataModule."""

from __future__ import annotations

from collections.abc import Callable

from pytorch_lightning import Callback, LightningModule, Trainer

from synque_select.errors import LightningError
from synque_select.training.datamodule import SynqueDataModule, attached_datamodule
from synque_select.training.lightning_compat import callbacks_of, refuse_other_lightning
from synque_select.utils.wording import counted

__all__ = ["CheckedCallback", "require_datamodule", "require_single"]


class CheckedCallback(Callback):
    """A callback that rejects objects of the package `lightning` with a clear error.

    Lightning sets `log` on every callback before it prepares the data, and then fails on a
    DataModule of the other package with "Expected a parent". The check runs just before that.
    """

    @property
    def log(self) -> Callable[..., None]:
        """The module's `log`, which Lightning sets on every callback."""
        log: Callable[..., None] = self.__dict__["_module_log"]
        return log

    @log.setter
    def log(self, log: Callable[..., None]) -> None:
        module: LightningModule = getattr(log, "__self__")  # noqa: B009 - a bound method
        _refuse_parts(module.trainer, module)
        self.__dict__["_module_log"] = log


def _refuse_parts(trainer: Trainer, module: LightningModule) -> None:
    parts: list[tuple[str, object]] = [("the Trainer", trainer), ("the model", module)]
    parts += [("the DataModule", getattr(trainer, "datamodule", None))]
    parts += [("a logger", logger) for logger in trainer.loggers]
    parts += [("a callback", callback) for callback in callbacks_of(trainer)]
    for what, part in parts:
        refuse_other_lightning(what, part)


def require_datamodule(trainer: Trainer) -> SynqueDataModule:
    """Return the trainer's DataModule, which must be a `SynqueDataModule`.

    Raises:
        LightningError: It is of another class or missing; the message shows the line to write.
    """
    datamodule = attached_datamodule(trainer)
    if datamodule is not None:
        return datamodule
    other = getattr(trainer, "datamodule", None)
    given = (
        "trainer.fit uses dataloaders that were passed to it, or those of the model"
        if other is None
        else f"trainer.fit got a datamodule of type {type(other).__name__}"
    )
    raise LightningError(
        f"{given}; the candidates must come from a SynqueDataModule around your DataModule dm: "
        "trainer.fit(model, datamodule=SynqueDataModule(wraps=dm, candidates=…, real=…))"
    )


def require_single(callback: Callback, trainer: Trainer, kind: type[Callback]) -> None:
    """Check that the trainer has only one callback of this class.

    Raises:
        LightningError: There is more than one.
    """
    others = [other for other in callbacks_of(trainer) if isinstance(other, kind)]
    if others != [callback]:
        raise LightningError(
            f"{counted(len(others), 'callback')} of the kind {kind.__name__} in one Trainer: "
            "allowed is one"
        )
