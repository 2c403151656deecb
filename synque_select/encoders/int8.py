"""Linear layers with 8-bit weights, as many as a model bears."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from synque_select.utils.progress import ProgressBar

__all__ = ["GROUP", "lower_to_int8"]

GROUP = 32  # inputs that share a scale, of a weight and of an activation
_LARGEST = 127


class _Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and a float scale for each group of inputs.

    OpenVINO also rounds the inputs, of each token in the same groups, so that an embedding does not
    depend on the other texts of its batch; `rounds_inputs` does so here, to see the effect.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        groups = linear.weight.data.reshape(linear.out_features, -1, GROUP)
        scale = _scale(groups)
        self.register_buffer("weight", torch.round(groups / scale).to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.rounds_inputs = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.rounds_inputs:
            inputs = _rounded(inputs)
        return nn.functional.linear(
            inputs, (self.weight.float() * self.scale).flatten(1), self.bias
        )


def _scale(groups: torch.Tensor) -> torch.Tensor:
    highest = groups.abs().amax(dim=-1, keepdim=True)
    return highest.clamp_min(torch.finfo(torch.float32).tiny * _LARGEST) / _LARGEST


def _rounded(inputs: torch.Tensor) -> torch.Tensor:
    groups = inputs.reshape(*inputs.shape[:-1], -1, GROUP)
    scale = _scale(groups)
    return (torch.round(groups / scale) * scale).flatten(-2)


def _replace(module: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    for path, part in parts.items():
        module.set_submodule(path, part)


def lower_to_int8(module: nn.Module, embed: Callable[[], torch.Tensor], tolerance: float) -> int:
    """Replace linear layers by such with 8-bit weights, in place.

    All are replaced first. If the effect exceeds the tolerance, layers go back to float32, those
    of the largest effect per weight first, until it does not: in all-MiniLM-L6-v2 the value
    projections have two fifths of the effect and a twelfth of the weights.

    Args:
        module: Model in float32, in eval mode.
        embed: Returns embeddings of some fixed texts, (n, d), by way of the module.
        tolerance: Largest 1 − cosine similarity to float32 that any of these embeddings may have.

    Returns:
        Number of layers with 8-bit weights.
    """
    linear = {
        path: part
        for path, part in module.named_modules()
        if path and type(part) is nn.Linear and part.in_features % GROUP == 0
    }
    lowered = {path: _Int8Linear(part) for path, part in linear.items()}
    exact = embed()

    def effect() -> float:
        cosines = nn.functional.cosine_similarity(exact.double(), embed().double(), dim=1)
        return float(1 - cosines.min())

    _replace(module, lowered)
    left = list(lowered)
    if effect() > tolerance:
        _replace(module, linear)
        alone = {}
        bar = ProgressBar(total=len(linear), desc="choosing 8-bit layers", unit="layer", delay=2)
        for path, part in linear.items():
            _replace(module, {path: lowered[path]})
            alone[path] = effect() / part.weight.numel()
            _replace(module, {path: part})
            bar.update(1)
        bar.close()
        left.sort(key=lambda path: alone[path])
        _replace(module, lowered)
    while left and effect() > tolerance:
        path = left.pop()
        _replace(module, {path: linear[path]})
    for replacement in lowered.values():
        replacement.rounds_inputs = False
    return len(left)
