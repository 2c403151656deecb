"""Several ranks: work that rank 0 does for all, without a collective's timeout, and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch.distributed import ProcessGroup

from synque_select.errors import LightningError, SynqueError
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyTrainer

__all__ = [
    "Ranks",
    "connect",
    "n_data_replicas",
    "on_rank_zero",
    "raise_on_all_ranks",
    "report_failure",
]

_T = TypeVar("_T")

_TIMEOUT = timedelta(days=7)
_TIMEOUT_OF_A_FAILURE = timedelta(minutes=1)

# the gloo group of this library, by the group of the trainer's strategy
_groups: WeakKeyDictionary[ProcessGroup, ProcessGroup] = WeakKeyDictionary()


class Ranks(Protocol):
    """What is asked of a trainer, of Lightning or another, about its ranks."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0."""
        ...


@dataclass(frozen=True)
class _Failure:
    """An error in a form that can be sent to another rank."""

    kind: type[SynqueError]
    message: str


@dataclass(frozen=True)
class _Result:
    """The result of the work on rank 0, to tell it from a failure."""

    value: object


def n_data_replicas(trainer: AnyTrainer) -> int:
    """Return among how many replicas the draws are split.

    That is one per rank, or one per group of tensor-parallel ranks.
    """
    return int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1))


def connect(trainer: AnyTrainer) -> None:
    """Connect the ranks while all are running: from now on they notice if one of them is gone."""
    if trainer.world_size > 1 and _is_open():
        _own_group()


def on_rank_zero(trainer: AnyTrainer | Ranks, work: Callable[[], _T]) -> _T:
    """Do the work on rank 0 and return its result, which must be picklable, on every rank.

    First all ranks meet; one that has failed by then reports it through `report_failure`. Then the
    others wait for rank 0. Both happen on a separate gloo group: under NCCL, and under a timeout
    that the user has set for training, this may take longer than a collective is allowed to. The
    ranks wait for a slow one; one whose process has ended closes its connections, and the others
    raise at once.

    Args:
        trainer: The trainer; with more than one rank, the process group of its strategy is open.
        work: Called on rank 0 alone.

    Raises:
        SynqueError: `work` raised it on rank 0; raised there and on every other rank.
        LightningError: `work` raised something else, another rank has failed, or the connection to
            one was lost.
    """
    if trainer.world_size == 1:
        return work()
    if not _is_open():
        raise LightningError(
            f"{type(getattr(trainer, 'strategy', trainer)).__name__} runs "
            f"{counted(trainer.world_size, 'rank')} without torch.distributed: allowed are "
            "strategies of one device, DDP and FSDP"
        )
    _raise_first(_meet(None, _TIMEOUT))
    return _shared(trainer, work)


@contextmanager
def raise_on_all_ranks(trainer: AnyTrainer) -> Iterator[None]:
    """Raise an error of one rank in here on all of them.

    If processes were launched for the fit (`ddp_spawn`), Lightning does not call `on_exception` in
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
    _raise_first(_meet(None, _TIMEOUT))


def report_failure(trainer: AnyTrainer, error: BaseException) -> None:
    """Tell the ranks in `on_rank_zero` or `raise_on_all_ranks`, now or later, that this one fails.

    Has no effect if the ranks are not connected (they notice when this process ends), if they know
    the error already, or if they do not come within a minute.
    """
    if not _is_open() or _world() not in _groups or _is_reported(error):
        return
    try:
        _meet(_as_failure(error, trainer.global_rank), _TIMEOUT_OF_A_FAILURE)
    except LightningError:
        _leave()
    _mark_reported(error)


def _is_open() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _world() -> ProcessGroup:
    world = torch.distributed.group.WORLD
    if world is None:
        raise LightningError("the process group is closed")
    return world


def _own_group() -> ProcessGroup:
    world = _world()
    if world not in _groups:
        group = torch.distributed.new_group(backend="gloo")
        _groups[world] = cast("ProcessGroup", group)  # a number only on ranks outside of it
    return _groups[world]


def _leave() -> None:
    """Close the connections, so that a rank that comes later does not wait for this one."""
    torch.distributed.destroy_process_group(_groups.pop(_world()))


def _meet(failure: _Failure | None, timeout: timedelta) -> list[_Failure | None]:
    """Wait for all ranks and return the failure of each, by rank."""
    failures: list[_Failure | None] = [None] * torch.distributed.get_world_size()
    with _lost_connections():
        group = _wait(timeout)
        torch.distributed.all_gather_object(failures, failure, group=group)
    return failures


def _wait(timeout: timedelta) -> ProcessGroup:
    """Wait for all ranks, longer than the group's own timeout, and return the group."""
    group = _own_group()
    torch.distributed.monitored_barrier(group, timeout=timeout)
    return group


@contextmanager
def _lost_connections() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LightningError(
            "the connection to another rank was lost: the reason is in the output of that rank"
        ) from error


def _raise_first(failures: list[_Failure | None]) -> None:
    for failure in failures:
        if failure is not None:
            raise _as_error(failure)


def _shared(trainer: AnyTrainer | Ranks, work: Callable[[], _T]) -> _T:
    error: BaseException | None = None
    outcome: list[_Result | _Failure | None] = [None]
    if trainer.is_global_zero:
        try:
            outcome = [_Result(work())]
        except BaseException as raised:  # Ctrl-C, too, must not leave the others waiting
            error = raised
            outcome = [_as_failure(raised, 0)]
    try:
        with _lost_connections():
            torch.distributed.broadcast_object_list(outcome, src=0, group=_wait(_TIMEOUT))
    except LightningError:
        if error is None:
            raise
    if error is not None:
        _mark_reported(error)
        raise error
    (received,) = outcome
    if isinstance(received, _Failure):
        raise _as_error(received)
    assert received is not None
    return cast("_T", received.value)  # rank 0 has put the result of `work` there


def _as_failure(error: BaseException, rank: int) -> _Failure:
    if isinstance(error, SynqueError):
        return _Failure(type(error), f"rank {rank}: {error}")
    return _Failure(LightningError, f"rank {rank}: {type(error).__name__}: {error}")


def _as_error(failure: _Failure) -> SynqueError:
    # past the constructor, because that of DependencyError takes other arguments than a message
    error = failure.kind.__new__(failure.kind)
    error.args = (failure.message,)
    _mark_reported(error)
    return error


def _is_reported(error: BaseException) -> bool:
    return hasattr(error, "_synque_reported")


def _mark_reported(error: BaseException) -> None:
    error._synque_reported = True  # type: ignore[attr-defined] # a mark on an error of any class
