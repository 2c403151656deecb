"""Objects of the package `lightning`, which are not interchangeable with pytorch_lightning's."""

from __future__ import annotations

from typing import Any

from synque_select.errors import LightningError

__all__ = ["refuse_other_lightning"]


def refuse_other_lightning(what: str, part: Any) -> None:
    """Refuse an object of the package `lightning`.

    Args:
        what: What it is, for the message.
        part: A Trainer, model, DataModule, logger or callback.

    Raises:
        LightningError: It is one; the message names the import to change.
    """
    if any(kind.__module__.split(".")[0] == "lightning" for kind in type(part).__mro__):
        raise LightningError(
            f"{what} ({type(part).__name__}) comes from the package lightning, whose objects are "
            "not interchangeable with those of pytorch_lightning, which synque-select uses: change "
            "`import lightning as L` to `import pytorch_lightning as L` (and `lightning.pytorch` "
            "to `pytorch_lightning`) everywhere in your script"
        )
