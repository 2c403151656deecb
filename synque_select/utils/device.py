"""Batches for a device: bounded in memory, copied ahead of time, halved where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import torch

from synque_select.errors import ConfigError
from synque_select.utils.memory import is_out_of_memory
from synque_select.utils.process_state import free_device_memory

__all__ = [
    "Copier",
    "HostCopy",
    "batch_bytes",
    "check_fits",
    "given_device_memory",
    "in_batches",
    "max_device_memory",
    "prefetched",
    "to_device",
]

# what the caches of a CPU hold: each iteration of a fit reads all rows of its batch again
_CPU_BYTES = 16 * 2**20
# of the memory that is free: estimates of what a batch takes leave out the libraries' work space
_FREE_SHARE = 0.5
_LEAST_BYTES = 2**20

_given: ContextVar[int | None] = ContextVar("max_device_memory", default=None)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def max_device_memory(n_bytes: int | None) -> Iterator[None]:
    """Bound the memory of the batches that are computed in the body.

    The bound is of what a batch takes beside the real sample and the results. Where it does not
    suffice for one item, such as a candidate that is needed as a whole, a GPU is out of memory.

    Args:
        n_bytes: Bytes of memory, at least 2^20; None for half of what is free on a GPU, and for
            16 MiB on a CPU, more than which is slower there.

    Raises:
        ConfigError: The number of bytes is not allowed.

    Example:
        >>> with max_device_memory(2**21):
        ...     batch_bytes(torch.zeros(1))
        2097152
    """
    if n_bytes is not None and (isinstance(n_bytes, bool) or n_bytes < _LEAST_BYTES):
        raise ConfigError(
            f"max_device_memory={n_bytes!r}: allowed is a number of bytes from {_LEAST_BYTES:,}"
        )
    token = _given.set(n_bytes)
    try:
        yield
    finally:
        _given.reset(token)


def given_device_memory() -> int | None:
    """Return the bound of `max_device_memory`, to set it in another process."""
    return _given.get()


def batch_bytes(like: torch.Tensor) -> int:
    """Return how many bytes one batch may take on the device of a tensor; see `max_device_memory`.

    Args:
        like: Any tensor on the device.

    Example:
        >>> batch_bytes(torch.zeros(1))
        16777216
    """
    given = _given.get()
    if not like.is_cuda:
        return _CPU_BYTES if given is None else min(given, _CPU_BYTES)
    if given is not None:
        return given
    free, _ = torch.cuda.mem_get_info(like.device)
    # what PyTorch's allocator holds without using it is free as well
    free += torch.cuda.memory_reserved(like.device) - torch.cuda.memory_allocated(like.device)
    return max(_LEAST_BYTES, int(_FREE_SHARE * free))


def check_fits(n_bytes: int, like: torch.Tensor) -> None:
    """Check that something fits into the bound that was given for a GPU, if one was.

    Args:
        n_bytes: What it takes.
        like: Any tensor on the device.

    Raises:
        torch.OutOfMemoryError: It does not fit.
    """
    given = _given.get()
    if like.is_cuda and given is not None and n_bytes > given:
        raise torch.OutOfMemoryError(
            f"max_device_memory={given:,} does not suffice for a candidate"
        )


class _Copy(NamedTuple):
    """A tensor on its way to the device."""

    tensor: torch.Tensor
    dtype: torch.dtype
    stream: torch.cuda.Stream | None = None

    def arrived(self) -> torch.Tensor:
        """Return the tensor for use on the current stream, which waits for the copy."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.stream.device)
            current.wait_stream(self.stream)
            # allocated on the other stream: its memory must not be reused before this one is done
            self.tensor.record_stream(current)
        return self.tensor.to(self.dtype)


class Copier:
    """Copies tensors to the device and into the dtype of another tensor.

    On a GPU, tensors of the host go through pinned memory on a stream of their own, so that the
    device computes during the copy; they are converted there, as half precision is half to copy.

    Args:
        like: Tensor that gives device and dtype.
    """

    def __init__(self, like: torch.Tensor) -> None:
        self._like = like
        self._stream = _stream(like) if like.is_cuda else None

    def start(self, tensor: torch.Tensor) -> _Copy:
        """Start the copy of a tensor.

        Args:
            tensor: Tensor on any device, of any float dtype.
        """
        if self._stream is None or tensor.device == self._like.device:
            return _Copy(tensor.to(self._like.device), self._like.dtype)
        pinned = tensor.contiguous().pin_memory()
        with torch.cuda.stream(self._stream):
            moved = pinned.to(self._like.device, non_blocking=True)
        return _Copy(moved, self._like.dtype, self._stream)


def _stream(like: torch.Tensor) -> torch.cuda.Stream:
    return torch.cuda.Stream(like.device)  # type: ignore[no-untyped-call]  # torch has no hint


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no hint


def prefetched(tensors: Iterator[torch.Tensor], like: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield tensors on the device and in the dtype of `like`, each copied while the last is used.

    Args:
        tensors: Tensors on any device, of any float dtype; each is asked for when its copy starts.
        like: Tensor that gives device and dtype.

    Example:
        >>> [part.dtype for part in prefetched(iter([torch.zeros(1).half()]), torch.zeros(1))]
        [torch.float32]
    """
    copier, ahead = Copier(like), None
    for tensor in tensors:
        if not like.is_cuda:
            yield copier.start(tensor).arrived()
            continue
        following = copier.start(tensor)
        if ahead is not None:
            yield ahead.arrived()
        ahead = following
    if ahead is not None:
        yield ahead.arrived()


def to_device(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to the device of another; to a GPU through pinned memory, without waiting.

    Args:
        tensor: Tensor on any device, of any dtype, which it keeps.
        like: Any tensor on the device.
    """
    if not like.is_cuda or tensor.device == like.device:
        return tensor.to(like.device)
    return tensor.contiguous().pin_memory().to(like.device, non_blocking=True)


class HostCopy:
    """The copy of a tensor to the host, as float32; on a GPU, the host does not wait for it yet.

    Args:
        tensor: Tensor on any device, of any float dtype.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        rows = tensor.detach().float()  # converted where it is: only equal types are not waited for
        self._event = _event() if rows.is_cuda else None
        # the memory of a copy that is not waited for is pinned by torch
        self._host = rows.to("cpu", non_blocking=self._event is not None)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(rows.device))

    def arrived(self) -> torch.Tensor:
        """Return the tensor on the host, once it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def in_batches(
    items: Sequence[_Item],
    at_once: int,
    like: torch.Tensor,
    load: Callable[[Sequence[_Item]], torch.Tensor],
    compute: Callable[[Sequence[_Item], torch.Tensor], _Result],
) -> list[_Result]:
    """Compute items in batches; on a GPU, the next batch is copied while one is computed.

    Where memory runs out, the batch is halved, and those that are done are kept.

    Args:
        items: What to compute.
        at_once: Number of items in a batch, from `batch_bytes`. Below 1, it is 1, or an error where
            a bound was given for a GPU.
        like: Tensor that gives device and dtype of the computation.
        load: Returns the data of some items, on any device; called once per batch.
        compute: Returns the result of some items, from their data on the device. It must not wait
            for the device, or nothing is copied meanwhile.

    Returns:
        The results of the batches, in order.

    Raises:
        torch.OutOfMemoryError: Memory does not suffice for one item.

    Example:
        >>> x = torch.arange(5.0)
        >>> in_batches(range(5), 2, x, lambda i: x[list(i)], lambda i, rows: float(rows.sum()))
        [1.0, 5.0, 4.0]
    """
    copier, results = Copier(like), []
    if at_once < 1:
        check_fits(batch_bytes(like) + 1, like)
    first, at_once = 0, max(1, at_once)
    copy: _Copy | None = None
    ahead: _Copy | None = None
    while first < len(items):
        part = items[first : first + at_once]
        try:
            copy = copier.start(load(part)) if ahead is None else ahead
            following = items[first + at_once : first + 2 * at_once]
            ahead = copier.start(load(following)) if like.is_cuda and len(following) else None
            results.append(compute(part, copy.arrived()))
            first += len(part)
            continue
        except Exception as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
        # after the error is dropped, whose traceback holds the tensors
        copy = ahead = None
        at_once = len(part) // 2
        free_device_memory()
    return results
