"""What Lightning leaves undeclared on a Trainer, and objects of the package `lightning`.

The objects of `lightning` are not interchangeable with those of `pytorch_lightning`.
"""

from __future__ import annotations

from pytorch_lightning import Callback, Trainer

from synque_select.errors import LightningError

__all__ = ["callbacks_of", "is_dev_run", "refuse_other_lightning"]


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the trainer's callbacks; Lightning sets the attribute without declaring it."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return callbacks


def is_dev_run(trainer: Trainer) -> bool:
    """Return whether `fast_dev_run` is on; Lightning sets the attribute without declaring it."""
    return bool(getattr(trainer, "fast_dev_run", False))


def refuse_other_lightning(what: str, part: object) -> None:
    """Check that an object does not come from the package `lightning`.

    Args:
        what: The role of the object, for the message.
        part: A Trainer, model, DataModule, logger or callback.

    Raises:
        LightningError: It does; the message names the import to change.
    """
    if any(kind.__module__.split(".")[0] == "lightning" for kind in type(part).__mro__):
        raise LightningError(
            f"{what} ({type(part).__name__}) comes from the package lightning, whose objects are "
            "not interchangeable with those of pytorch_lightning, which synque-select uses: change "
            "`import lightning as L` to `import pytorch_lightning as L` (and `lightning.pytorch` "
            "to `pytorch_lightning`) everywhere in your script"
        )
