"""Several ranks: work that rank 0 does for all, without a collective's timeout, and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from pytorch_lightning import Trainer

from synque_select.errors import LightningError, SynqueError

__all__ = ["connect", "n_data_replicas", "on_rank_zero", "raise_on_all_ranks", "report_failure"]

_PATIENCE = timedelta(days=7)
_PATIENCE_OF_A_FAILURE = timedelta(minutes=1)

_T = TypeVar("_T")
_groups: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # ours, by the strategy's


def n_data_replicas(trainer: Trainer) -> int:
    """In how many shares the draws are dealt: one a rank, or a group of tensor-parallel ranks."""
    return int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1))


def connect(trainer: Trainer) -> None:
    """Connect the ranks, while all are here: they notice from now on when one of them is gone."""
    if trainer.world_size > 1 and _is_open():
        _own_group()


def on_rank_zero(trainer: Trainer, work: Callable[[], _T]) -> _T:
    """Do the work on rank 0 and return its result, which can be pickled, on every rank.

    First all ranks meet; one that has failed by then says so through `report_failure`. Then the
    others wait for rank 0. Both on a gloo group of our own: under NCCL, and under a timeout that
    the user set for training, this may take longer than a collective is allowed to. A slow rank is
    waited for; one whose process has ended closes its connections, and the others raise at once.

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
    _raise_first(_meet(None, _PATIENCE))
    return _shared(trainer, work)


@contextmanager
def raise_on_all_ranks(trainer: Trainer) -> Iterator[None]:
    """What fails in here on one rank fails on all of them, with its error.

    Where processes were launched for the fit (`ddp_spawn`), Lightning calls no `on_exception` in
    them.
    """
    if trainer.world_size == 1 or not _is_open():
        yield
        return
    connect(trainer)
    try:
        yield
    except BaseException as error:
        report_failure(trainer, error)
        raise
    _raise_first(_meet(None, _PATIENCE))


def report_failure(trainer: Trainer, error: BaseException) -> None:
    """Tell the ranks in `on_rank_zero` or `raise_on_all_ranks`, now or later, that this one fails.

    Without effect where the ranks are not connected (they notice when this process ends), where
    they know it, and where they do not come within a minute.
    """
    if not _is_open() or torch.distributed.group.WORLD not in _groups or _is_told(error):
        return
    try:
        _meet(_described(error, trainer.global_rank), _PATIENCE_OF_A_FAILURE)
    except LightningError:
        _leave()
    _mark_told(error)


def _is_open() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _own_group() -> Any:
    strategys = torch.distributed.group.WORLD
    if strategys not in _groups:
        _groups[strategys] = torch.distributed.new_group(backend="gloo")
    return _groups[strategys]


def _leave() -> None:
    """Close the connections, so that who comes later does not wait for this rank."""
    torch.distributed.destroy_process_group(_groups.pop(torch.distributed.group.WORLD))


def _meet(failure: dict[str, Any] | None, patience: timedelta) -> list[Any]:
    """Wait for all ranks and return what each has to say, in their order."""
    said: list[Any] = [None] * torch.distributed.get_world_size()
    with _lost_connections():
        group = _wait(patience)
        torch.distributed.all_gather_object(said, failure, group=group)
    return said


def _wait(patience: timedelta) -> Any:
    """Wait for all ranks, longer than the group's own timeout, and return the group."""
    group = _own_group()
    torch.distributed.monitored_barrier(group, timeout=patience)
    return group


@contextmanager
def _lost_connections() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LightningError(
            "the connection to another rank was lost: its own output says why"
        ) from error


def _raise_first(said: list[Any]) -> None:
    for failure in said:
        if failure is not None:
            raise _rebuilt(failure)


def _shared(trainer: Trainer, work: Callable[[], _T]) -> _T:
    failure: BaseException | None = None
    outcome: list[Any] = [None]
    if trainer.is_global_zero:
        try:
            outcome = [{"result": work()}]
        except BaseException as error:  # Ctrl-C too must not leave the others waiting
            failure = error
            outcome = [_described(error, 0)]
    try:
        with _lost_connections():
            torch.distributed.broadcast_object_list(outcome, src=0, group=_wait(_PATIENCE))
    except LightningError:
        if failure is None:
            raise
    if failure is not None:
        _mark_told(failure)
        raise failure
    if "result" not in outcome[0]:
        raise _rebuilt(outcome[0])
    result: _T = outcome[0]["result"]
    return result


def _described(error: BaseException, rank: int) -> dict[str, Any]:
    known = isinstance(error, SynqueError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    return {"kind": type(error) if known else LightningError, "message": f"rank {rank}: {message}"}


def _rebuilt(described: dict[str, Any]) -> SynqueError:
    # past the constructor: that of DependencyError takes other arguments than a message
    error: SynqueError = described["kind"].__new__(described["kind"])
    error.args = (described["message"],)
    _mark_told(error)
    return error


def _is_told(error: BaseException) -> bool:
    return hasattr(error, "_synque_told")


def _mark_told(error: BaseException) -> None:
    error._synque_told = True  # type: ignore[attr-defined]
