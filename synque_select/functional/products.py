"""Matrix products of rows, with the faster of PyTorch's two libraries on this CPU."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from synque_select.utils.onednn import mkl_leaves_avx512_unused

__all__ = ["scaled_products"]

# below these sizes, converting the operands takes longer than it saves
_MIN_ROWS, _MIN_COLUMNS = 128, 64


def scaled_products(
    left: torch.Tensor,
    right: torch.Tensor,
    scale: float = 1.0,
    offset: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return scale · x·y + offset for all pairs of rows.

    Args:
        left: (p, d) float32 or float64; or (b, p, d) for several products.
        right: (q, d), or (b, q, d); same dtype and device.
        scale: What the products are multiplied with.
        offset: (q,), or (b, q): what is added to each column; None for nothing.

    Returns:
        (p, q), or (b, p, q), in the dtype of the rows.

    Example:
        >>> scaled_products(torch.ones(1, 2), torch.ones(2, 2), 0.5, torch.tensor([0.0, 1.0]))
        tensor([[1., 2.]])
    """
    if offset is None:
        offset = right.new_zeros(right.shape[:-1])
    if left.dim() == 3:
        return torch.baddbmm(offset.unsqueeze(1), left, right.mT, alpha=scale)
    if _onednn_is_faster(left, right):
        if scale != 1 and len(left) < len(right):  # the smaller of the two is copied
            left = left * scale
        elif scale != 1:
            right = right * scale
        return linear(left.to_mkldnn(), right, offset).to_dense()
    return torch.addmm(offset.unsqueeze(0), left, right.T, alpha=scale)


def _onednn_is_faster(left: torch.Tensor, right: torch.Tensor) -> bool:
    return (
        left.device.type == "cpu"
        and left.dtype == right.dtype == torch.float32
        and min(len(left), len(right)) >= _MIN_ROWS
        and left.shape[1] >= _MIN_COLUMNS
        and mkl_leaves_avx512_unused()
        and bool(torch.backends.mkldnn.enabled)
    )
