"""Work that rank 0 does for all ranks, without a collective's timeout."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning import Trainer

from synque_select.errors import LightningError, SynqueError

__all__ = ["on_rank_zero"]

_PATIENCE = timedelta(days=7)


def on_rank_zero(trainer: Trainer, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work on rank 0 and return its result, a dict of plain values, on every rank.

    The other ranks wait on a gloo group of our own: under NCCL, and under a timeout that the user
    set for training, scoring may take longer than a collective is allowed to. Where rank 0 fails
    or dies, all ranks raise within seconds.

    Args:
        trainer: Its strategy's process group is open where it has more than one rank.
        work: Called on rank 0 alone.

    Raises:
        SynqueError: What `work` raised on rank 0, there and on every other rank.
        LightningError: It raised something else, or the connection to rank 0 was lost.
    """
    if trainer.world_size == 1:
        return work()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise LightningError(
            f"{type(trainer.strategy).__name__} runs {trainer.world_size} ranks without "
            "torch.distributed: allowed are strategies of one device, DDP and FSDP"
        )
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        return _shared(trainer, work, group)
    finally:
        torch.distributed.destroy_process_group(group)


def _shared(trainer: Trainer, work: Callable[[], dict[str, Any]], group: Any) -> dict[str, Any]:
    failure: BaseException | None = None
    outcome: list[Any] = [None]
    if trainer.is_global_zero:
        try:
            outcome = [{"result": work()}]
        except BaseException as error:  # Ctrl-C too must not leave the others waiting
            failure = error
            outcome = [_described(error)]
    try:
        torch.distributed.broadcast_object_list(outcome, src=0, group=group)
    except RuntimeError as error:
        if failure is None:
            raise LightningError(f"the connection to another rank was lost: {error}") from error
    if failure is not None:
        raise failure
    if "result" not in outcome[0]:
        raise _rebuilt(outcome[0])
    return dict(outcome[0]["result"])


def _described(error: BaseException) -> dict[str, Any]:
    known = isinstance(error, SynqueError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    return {"kind": type(error) if known else LightningError, "message": f"rank 0: {message}"}


def _rebuilt(described: dict[str, Any]) -> SynqueError:
    # past the constructor: that of DependencyError takes other arguments than a message
    error: SynqueError = described["kind"].__new__(described["kind"])
    error.args = (described["message"],)
    return error
