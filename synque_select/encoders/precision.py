"""Choosing a lower precision where the hardware supports it, and converting models to bfloat16."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from synque_select.errors import ConfigError

__all__ = [
    "MIN_CORRELATION",
    "MIN_COSINE",
    "Precision",
    "change_of",
    "cpu_has_bf16",
    "cpu_has_int8",
    "least_cosine",
    "lower_precision",
    "resolve_precision",
]

Precision = Literal["float32", "bfloat16", "int8"]

MIN_COSINE = 0.999
MIN_CORRELATION = 0.99
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_INT8_FLAGS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "i8mm"})


def resolve_precision(requested: str, device: torch.device) -> Precision:
    """Return the precision to use; "auto" is bfloat16 if the device supports it natively.

    Raises:
        ConfigError: It is not "auto", "float32" or "bfloat16".

    Example:
        >>> resolve_precision("float32", torch.device("cpu"))
        'float32'
    """
    if requested not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision={requested!r}: allowed is 'auto', 'float32' or 'bfloat16'")
    if requested != "auto":
        return "bfloat16" if requested == "bfloat16" else "float32"
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = device.type == "cpu" and cpu_has_bf16()
    return "bfloat16" if has else "float32"


def cpu_has_bf16() -> bool:
    """Whether the CPU has bfloat16 matrix instructions (AMX, AVX-512 BF16, Arm BF16)."""
    return not _BF16_FLAGS.isdisjoint(_cpu_flags())


def cpu_has_int8() -> bool:
    """Whether the CPU multiplies matrices of 8-bit integers (AMX, VNNI, Arm I8MM)."""
    return not _INT8_FLAGS.isdisjoint(_cpu_flags())


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return frozenset()


def lower_precision(module: nn.Module) -> None:
    """Convert a module to bfloat16 in place; its inputs and outputs remain float32.

    Batch normalization keeps float32 statistics: rounding them shifts all activations of a channel
    in the same direction, so the error does not average out.
    """
    for part in module.modules():
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                tensor.data = _cast_tensor(tensor.data, torch.bfloat16)
    _pack_linear(module)
    module.register_forward_pre_hook(_lower_inputs, with_kwargs=True)
    module.register_forward_hook(_raise_outputs)


class _PackedLinear(nn.Module):
    """A linear layer on the CPU whose weight is stored in the layout of the bf16 instructions.

    Without it torch converts the weight at every call, a tenth of the time of a small model.
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
    # private operators of torch's compiler, which some builds and releases lack
    names = ("_reorder_linear_weight", "_linear_pointwise")
    has_all = all(hasattr(torch.ops.mkldnn, name) for name in names)
    return has_all and torch.backends.mkldnn.is_available() and cpu_has_bf16()  # type: ignore[no-untyped-call]


def _lower_inputs(
    module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    lowered = tuple(_cast(value, torch.bfloat16) for value in args)
    return lowered, {key: _cast(value, torch.bfloat16) for key, value in kwargs.items()}


def _raise_outputs(module: nn.Module, args: tuple[object, ...], output: object) -> object:
    return _cast(output, torch.float32)


def _cast(value: object, dtype: torch.dtype) -> object:
    """Cast the floating point tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return _cast_tensor(value, dtype)
    # subclasses, such as the outputs of transformers, cannot be rebuilt from their items
    if type(value) is dict:
        return {key: _cast(part, dtype) for key, part in value.items()}
    if type(value) is list:
        return [_cast(part, dtype) for part in value]
    if type(value) is tuple:
        return tuple(_cast(part, dtype) for part in value)
    return value


def _cast_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def least_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the smallest cosine similarity between corresponding rows.

    Example:
        >>> least_cosine(torch.eye(2), 3 * torch.eye(2))
        1.0
    """
    cosines = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
    return float(cosines.min())


def change_of(exact: torch.Tensor, lowered: torch.Tensor) -> str | None:
    """Return how embeddings in a lower precision differ, or None if they may take the place.

    Two conditions: every embedding keeps its direction (cosine similarity of at least 0.999), and
    the similarities of all pairs correlate at 0.99 or more. Kernels and nearest neighbours see
    pairs only, so the second keeps the order of candidates, also for a model whose embeddings
    all have nearly the same direction, where the first says nothing.

    Args:
        exact: (n, d) embeddings in float32.
        lowered: (n, d) embeddings of the same views in the lower precision.

    Example:
        >>> change_of(torch.eye(3), 2 * torch.eye(3)) is None
        True
        >>> change_of(torch.eye(2), torch.ones(2, 2))
        'have a cosine similarity of only 0.7071 to those in float32'
    """
    cosine = least_cosine(exact, lowered)
    if not cosine >= MIN_COSINE:
        return f"have a cosine similarity of only {cosine:.4f} to those in float32"
    pairs = torch.stack([_pair_similarities(exact), _pair_similarities(lowered)])
    correlation = float(torch.corrcoef(pairs)[0, 1])
    # undefined where all pairs are equally similar
    if correlation < MIN_CORRELATION:
        return (
            f"change which texts or images are similar: over all pairs, similarities correlate "
            f"with those in float32 at only {correlation:.4f}"
        )
    return None


def _pair_similarities(embeddings: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    i, j = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[i, j]
