"""What a Trainer must bring for our callbacks: objects of pytorch_lightning, and our DataModule."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, Trainer

from synque_select.errors import LightningError
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.lightning_compat import refuse_other_lightning

__all__ = ["CheckedCallback", "require_datamodule", "require_single"]


class CheckedCallback(Callback):
    """A callback that meets objects of the package `lightning` with one clear error.

    Lightning sets `log` on every callback before it prepares the data, and fails there on a
    DataModule of the other package with "Expected a parent": so the check hangs on that moment.
    """

    @property
    def log(self) -> Any:
        """The module's `log`, as Lightning gives it to every callback."""
        return self.__dict__["_module_log"]

    @log.setter
    def log(self, log: Any) -> None:
        module = log.__self__
        _refuse_parts(module.trainer, module)
        self.__dict__["_module_log"] = log


def _refuse_parts(trainer: Any, module: Any) -> None:
    parts = [("the Trainer", trainer), ("the model", module)]
    parts += [("the DataModule", trainer.datamodule)]
    parts += [("a logger", logger) for logger in trainer.loggers]
    parts += [("a callback", callback) for callback in trainer.callbacks]
    for what, part in parts:
        refuse_other_lightning(what, part)


def require_datamodule(trainer: Trainer) -> SynqueDataModule:
    """Return the trainer's DataModule, which must be a `SynqueDataModule`.

    Raises:
        LightningError: It is another one, or there is none; the message shows the line to write.
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(datamodule, SynqueDataModule):
        return datamodule
    found = (
        "trainer.fit was given dataloaders, or the model's own"
        if datamodule is None
        else f"trainer.fit was given a {type(datamodule).__name__}"
    )
    raise LightningError(
        f"{found}; the candidates must come from a SynqueDataModule around your DataModule dm: "
        "trainer.fit(model, datamodule=SynqueDataModule(wraps=dm, candidates=…, real=…))"
    )


def require_single(callback: Callback, trainer: Trainer, kind: type[Callback]) -> None:
    """Raise where the trainer has another callback of the same kind.

    Raises:
        LightningError: It has.
    """
    others = [other for other in trainer.callbacks if isinstance(other, kind)]  # type: ignore[attr-defined]
    if others != [callback]:
        raise LightningError(
            f"{len(others)} callbacks of the kind {kind.__name__} in one Trainer: allowed is one"
        )
