"""bfloat16 where the hardware gains from it, and the proof that the embeddings stay the same."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from synque_select.errors import ConfigError

__all__ = [
    "MIN_COSINE",
    "Precision",
    "cpu_has_bf16",
    "least_cosine",
    "lower_precision",
    "resolve_precision",
]

Precision = Literal["float32", "bfloat16"]

MIN_COSINE = 0.999
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision to compute in: "auto" is bfloat16 where the device has it.

    Raises:
        ConfigError: It is not "auto", "float32" or "bfloat16".

    Example:
        >>> resolve_precision("float32", torch.device("cpu"))
        'float32'
    """
    if asked not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision must be 'auto', 'float32' or 'bfloat16', found {asked!r}")
    if asked != "auto":
        return "bfloat16" if asked == "bfloat16" else "float32"
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = device.type == "cpu" and cpu_has_bf16()
    return "bfloat16" if has else "float32"


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself (AMX, AVX-512 BF16, Arm BF16)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return not _BF16_FLAGS.isdisjoint(text.split())


def lower_precision(module: nn.Module) -> None:
    """Make a module compute in bfloat16, in place; it takes and gives float32 as before.

    Batch normalisation keeps its float32 statistics: rounding them shifts every activation of a
    channel the same way, which no average removes.
    """
    for part in module.modules():
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                tensor.data = _cast(tensor.data, torch.bfloat16)
    _pack_linear(module)
    module.register_forward_pre_hook(_lower_inputs, with_kwargs=True)
    module.register_forward_hook(_raise_outputs)


class _PackedLinear(nn.Module):
    """A linear layer on the CPU whose weight lies as the bf16 units read it.

    torch packs a weight anew at every call, which costs a small model a tenth of its time.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, self.bias, "none", [], ""
        )
        return out


def _pack_linear(module: nn.Module) -> None:
    linear = [
        (path, part)
        for path, part in module.named_modules()
        if type(part) is nn.Linear and path and part.weight.device.type == "cpu"
    ]
    if linear and _has_packing():
        for path, part in linear:
            module.set_submodule(path, _PackedLinear(part))


def _has_packing() -> bool:
    # the operators that torch's own compiler uses; a build or a release may be without them
    names = ("_reorder_linear_weight", "_linear_pointwise")
    has_all = all(hasattr(torch.ops.mkldnn, name) for name in names)
    return has_all and torch.backends.mkldnn.is_available() and cpu_has_bf16()  # type: ignore[no-untyped-call]


def _lower_inputs(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return _cast(args, torch.bfloat16), _cast(kwargs, torch.bfloat16)


def _raise_outputs(module: nn.Module, args: Any, output: Any) -> Any:
    return _cast(output, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast the floating point tensors in a nest of plain dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) is dict:
        return {key: _cast(part, dtype) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_cast(part, dtype) for part in value)
    return value


def least_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the smallest cosine between rows of equal position.

    Example:
        >>> least_cosine(torch.eye(2), 3 * torch.eye(2))
        1.0
    """
    cosines = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
    return float(cosines.min())
