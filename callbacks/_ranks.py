"""Work that rank 0 does for all ranks, without a collective's timeout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning import Trainer

from synque_select.errors import LightningError, SynqueError

__all__ = ["on_rank_zero", "report_failure"]

_PATIENCE = timedelta(days=7)
_PATIENCE_OF_A_FAILURE = timedelta(minutes=1)


def on_rank_zero(trainer: Trainer, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work on rank 0 and return its result, a dict of plain values, on every rank.

    First all ranks meet; one that has failed by then says so through `report_failure`. Then the
    others wait on a gloo group of our own: under NCCL, and under a timeout that the user set for
    training, scoring may take longer than a collective is allowed to. Where rank 0 fails or dies,
    all ranks raise within seconds.

    Args:
        trainer: Its strategy's process group is open where it has more than one rank.
        work: Called on rank 0 alone.

    Raises:
        SynqueError: What `work` raised on rank 0, there and on every other rank.
        LightningError: It raised something else, another rank has failed, or the connection to one
            was lost.
    """
    if trainer.world_size == 1:
        return work()
    if not _is_open():
        raise LightningError(
            f"{type(trainer.strategy).__name__} runs {trainer.world_size} ranks without "
            "torch.distributed: allowed are strategies of one device, DDP and FSDP"
        )
    for said in _meet(None, None):
        if said is not None:
            raise _rebuilt(said)
    with _gloo_group(_PATIENCE) as group:
        return _shared(trainer, work, group)


def report_failure(trainer: Trainer, error: BaseException) -> None:
    """Tell the ranks that are in `on_rank_zero`, or come there, that this one never will.

    Without effect on one rank, and where the others do not come within a minute.
    """
    if trainer.world_size > 1 and _is_open():
        with suppress(LightningError):
            _meet(_described(error, trainer.global_rank), _PATIENCE_OF_A_FAILURE)


def _is_open() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _meet(failure: dict[str, Any] | None, patience: timedelta | None) -> list[Any]:
    """Wait for all ranks and return what each has to say, in their order."""
    said: list[Any] = [None] * torch.distributed.get_world_size()
    try:
        with _gloo_group(patience) as group:
            torch.distributed.all_gather_object(said, failure, group=group)
    except RuntimeError as error:
        raise LightningError(f"the ranks did not come together: {error}") from error
    return said


@contextmanager
def _gloo_group(timeout: timedelta | None) -> Iterator[Any]:
    group = torch.distributed.new_group(backend="gloo", timeout=timeout)
    try:
        yield group
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
            outcome = [_described(error, 0)]
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


def _described(error: BaseException, rank: int) -> dict[str, Any]:
    known = isinstance(error, SynqueError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    return {"kind": type(error) if known else LightningError, "message": f"rank {rank}: {message}"}


def _rebuilt(described: dict[str, Any]) -> SynqueError:
    # past the constructor: that of DependencyError takes other arguments than a message
    error: SynqueError = described["kind"].__new__(described["kind"])
    error.args = (described["message"],)
    return error
