"""Tensors of another device that is none: mixing them with the CPU's fails as on CUDA."""

from __future__ import annotations

from typing import Any

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
        return _run(func, args, kwargs or {})


class PretendCuda(TorchDispatchMode):
    """While it is on, `DEVICE` computes as the CPU does and refuses what CUDA refuses.

    Refused: an operation on tensors of both devices (a CPU scalar, a copy and positions to index
    with are allowed), a generator of the CPU for draws on the device, NumPy's view.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    elsewhere = any(isinstance(x, _Held) for x in given)
    if elsewhere:
        _check(func, args, given)
    if kwargs.get("device") is not None:
        elsewhere = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if elsewhere and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU draws for another device")
    result = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
    return tree_map(_elsewhere, result) if elsewhere else result


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


def _elsewhere(x: Any) -> Any:
    return _Held(x) if isinstance(x, torch.Tensor) and not isinstance(x, _Held) else x
