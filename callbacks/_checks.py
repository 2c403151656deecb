"""Checks of the Trainer: objects of one package, and a SynqueDataModule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from synque_select.errors import LightningError
from synque_select.training.datamodule import attached_datamodule
from synque_select.training.lightning_compat import (
    ModuleT,
    TrainerT,
    callbacks_of,
    check_package,
)
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["CheckedCallback", "require_datamodule", "require_single"]


class CheckedCallback(Generic[TrainerT, ModuleT]):
    """Part of a callback that rejects objects of the other package with a clear error.

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
        module: AnyModule = getattr(log, "__self__")  # noqa: B009 - a bound method
        _check_parts(self, module.trainer, module)
        self.__dict__["_module_log"] = log


def _check_parts(callback: object, trainer: AnyTrainer, module: AnyModule) -> None:
    parts: list[tuple[str, object]] = [("the Trainer", trainer), ("the model", module)]
    parts += [("the DataModule", getattr(trainer, "datamodule", None))]
    parts += [("a logger", logger) for logger in trainer.loggers]
    parts += [("a callback", other) for other in callbacks_of(trainer)]
    for what, part in parts:
        check_package(callback, what, part)


def require_datamodule(trainer: AnyTrainer) -> AnySynqueDataModule:
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


def require_single(callback: object, trainer: AnyTrainer, kind: type) -> None:
    """Check that the trainer has only one callback of this class.

    Raises:
        LightningError: There is more than one.
    """
    others = [other for other in callbacks_of(trainer) if isinstance(other, kind)]
    if others != [callback]:
        name = kind.__name__.removeprefix("Base")
        raise LightningError(
            f"{counted(len(others), 'callback')} of the kind {name} in one Trainer: allowed is one"
        )
