"""Batches and losses of `training_step` as the training loop has them, outside of that loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from synque_select.errors import LightningError
from synque_select.training.lightning_compat import takes_batch_number

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["call_step", "check_gives_losses", "loss_of", "training_batch"]

Collate = Callable[[list[Any]], object]


def check_gives_losses(module: AnyModule, otherwise: str = "") -> None:
    """Check that the `training_step` of a module can be called for a loss, without training.

    Args:
        module: The module.
        otherwise: What to do otherwise; the end of the message.

    Raises:
        LightningError: It steps the optimizer itself, or fetches its own batches.
    """
    kind = type(module).__name__
    if not module.automatic_optimization:
        raise LightningError(
            f"{kind} optimizes by itself (automatic_optimization=False), so its training_step "
            f"trains and cannot be called for a loss{otherwise}"
        )
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise LightningError(
            f"training_step of {kind} fetches its own batches (dataloader_iter), so it cannot "
            "be called for the loss of a batch: let it take a batch"
        )


def training_batch(trainer: AnyTrainer, collate: Collate, examples: list[Any]) -> Any:
    """Return a batch of examples on the device of training, after the hooks of the module."""
    module = trainer.lightning_module
    assert module is not None
    batch = trainer.precision_plugin.convert_input(collate(examples))
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def call_step(module: AnyModule, name: str, batch: Any) -> Any:
    """Call a method of a module that takes a batch, and the number of a batch if it wants one."""
    call = getattr(module, name)
    return call(batch, 0) if takes_batch_number(module, name) else call(batch)


def loss_of(output: object, module: AnyModule) -> Tensor:
    """Return the loss in what `training_step` returned.

    Raises:
        LightningError: There is none, or it has more than one value.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    raise LightningError(
        f"training_step of {type(module).__name__} returned {_named(output)}; allowed is a loss, "
        'which is a tensor with one value, or a mapping with the key "loss"'
    )


def _named(output: object) -> str:
    if isinstance(output, Mapping):
        return f"a mapping with the keys {list(map(str, output))}"
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return type(output).__name__
