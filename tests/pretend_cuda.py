"""Tensors of another device that is none: mixing them with the CPU's fails as on CUDA."""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "PretendCuda"]

# a CUDA device cannot be named without a driver; this one has no kernels that could run instead
DEVICE = torch.device("meta")
aten = torch.ops.aten
# what CUDA takes from the CPU: copies, and the positions to read or write at
_COPIES = {aten.copy_, aten._to_copy}
_POSITIONS = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index}
# the host waits for the device in these: to read a number, to learn the shape of the result, or to
# learn whether a factorization failed
_WAITS = {
    aten._local_scalar_dense,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave,
    aten._linalg_check_errors,
    aten._linalg_eigh,
    aten._linalg_svd,
}
_FREE = 2**30  # bytes of the pretended device


class _Held(torch.Tensor):
    """A CPU tensor that says it is elsewhere; `.numpy()` fails on it."""

    held: torch.Tensor
    is_cuda = True

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _Held:
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)


class _Stream:
    """A stream of a device that computes at once."""

    def __init__(self, device: object = None) -> None:
        self.device = device

    def wait_stream(self, stream: _Stream) -> None:
        assert isinstance(stream, _Stream)


class _Event:
    """An event of a device that computes at once."""

    def __init__(self) -> None:
        self.recorded = False

    def record(self, stream: _Stream) -> None:
        assert isinstance(stream, _Stream)
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    assert not isinstance(tensor, _Held), "only tensors of the CPU can be pinned"
    copy = tensor.clone()
    copy.is_pinned_here = True  # type: ignore[attr-defined]
    return copy


def _record_stream(tensor: torch.Tensor, stream: _Stream) -> None:
    assert isinstance(tensor, _Held)
    assert isinstance(stream, _Stream)


class PretendCuda(TorchDispatchMode):
    """While it is on, `DEVICE` computes as the CPU does and refuses what CUDA refuses.

    Refused: an operation on tensors of both devices (a CPU scalar, a copy and positions to index
    with are allowed), a generator of the CPU for draws on the device, NumPy's view.

    It has the streams and the pinned memory of CUDA, and runs out of memory at `limit` bytes.

    Attributes:
        waits: How often each operation made the host wait for the device.
        copies: How often a copy from the host began: "pinned" ones, and others of at least 4 KiB;
            and copies to the host that it does not wait for ("back").
        live: Bytes of the tensors on the device.
        peak: Largest number of bytes so far; set it to `live` to begin again.
        largest: Bytes of the largest tensor that was computed.
        n_failed: How often memory ran out.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.limit = limit
        self.live = self.peak = self.largest = self.n_failed = 0
        self._uses: Counter[int] = Counter()
        self._patches = ExitStack()

    def __enter__(self) -> PretendCuda:
        def free(device: object = None) -> tuple[int, int]:
            total = _FREE if self.limit is None else self.limit
            return total - self.live, total

        for where, name, stand_in in (
            (torch.cuda, "Stream", _Stream),
            (torch.cuda, "Event", _Event),
            (torch.cuda, "current_stream", _Stream),
            (torch.cuda, "stream", lambda stream: nullcontext()),
            (torch.cuda, "mem_get_info", free),
            (torch.cuda, "memory_reserved", lambda device=None: 0),
            (torch.cuda, "memory_allocated", lambda device=None: 0),
            (torch.Tensor, "pin_memory", _pinned),
            (torch.Tensor, "record_stream", _record_stream),
        ):
            self._patches.enter_context(mock.patch.object(where, name, stand_in))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)

    def count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note what an operation on tensors of the device made the host do."""
        kind, name = func.overloadpacket, func.overloadpacket.__name__
        positions = tree_leaves(args[1]) if kind in _POSITIONS else []
        by_mask = any(getattr(x, "dtype", None) in (torch.bool, torch.uint8) for x in positions)
        came_back = isinstance(result, torch.Tensor) and not isinstance(result, _Held)
        if came_back and kind is aten._to_copy and kwargs.get("non_blocking"):
            self.copies["back"] += 1
            return
        if kind in _WAITS or by_mask or came_back:
            self.waits[f"{name} by a mask" if by_mask else name] += 1

    def hold(self, tensor: _Held) -> None:
        """Count the memory of a tensor until it is freed."""
        storage = tensor.held.untyped_storage()
        key, n_bytes = storage.data_ptr(), storage.nbytes()
        if not self._uses[key]:
            if self.limit is not None and self.live + n_bytes > self.limit:
                self.n_failed += 1
                raise torch.OutOfMemoryError(f"CUDA out of memory: {n_bytes} bytes")
            self.live += n_bytes
            self.peak, self.largest = max(self.peak, self.live), max(self.largest, n_bytes)
        self._uses[key] += 1
        weakref.finalize(tensor, self._free, key, n_bytes)

    def _free(self, key: int, n_bytes: int) -> None:
        self._uses[key] -= 1
        if not self._uses[key]:
            self.live -= n_bytes


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: PretendCuda | None) -> Any:
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    was_there = elsewhere = any(isinstance(x, _Held) for x in given)
    if elsewhere:
        _check(func, args, given)
    if kwargs.get("device") is not None:
        elsewhere = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func.overloadpacket is aten.copy_:
        elsewhere = isinstance(args[0], _Held)
    if elsewhere and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU draws for another device")
    result = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
    if mode is not None and elsewhere and not was_there and func.overloadpacket in _COPIES:
        source = given[-1]
        if kwargs.get("non_blocking") and getattr(source, "is_pinned_here", False):
            mode.copies["pinned"] += 1
        elif source.untyped_storage().nbytes() >= 4096:
            mode.copies["pageable"] += 1
    if elsewhere:
        hold = None if mode is None else mode.hold
        result = tree_map(lambda x: _elsewhere(x, hold), result)
    if mode is not None and was_there:
        mode.count(func, args, kwargs, result)
    return result


def _check(func: Any, args: tuple[Any, ...], given: list[torch.Tensor]) -> None:
    kind = func.overloadpacket
    if kind in _COPIES:
        return
    if kind in _POSITIONS:
        given = [args[0], *args[2:3]]
        given = [x for x in given if isinstance(x, torch.Tensor)]
    on_cpu = [tuple(x.shape) for x in given if not isinstance(x, _Held) and x.dim()]
    if on_cpu:
        raise RuntimeError(f"{func}: tensors of two devices; on the CPU: {on_cpu}")


def _behind(x: Any) -> Any:
    return x.held if isinstance(x, _Held) else x


def _elsewhere(x: Any, hold: Any) -> Any:
    if not isinstance(x, torch.Tensor) or isinstance(x, _Held):
        return x
    # `.to` of a tensor that is there already returns it, and no memory is taken
    there = _Held(x)
    if hold is not None:
        hold(there)
    return there
