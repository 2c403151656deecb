"""Distances between rows in blocks: float32 products, float64 sums, never a full N×N matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = [
    "BLOCK_ROWS",
    "SAFE_FLOAT32",
    "largest_entry",
    "median_l1_distance",
    "median_sq_distance",
    "nearest_distances",
    "precise",
    "rows",
    "sq_distances",
    "working_dtype",
]

# 1,024 × 1,024 float32 is 4 MB: a block and its temporaries stay in a processor's cache
BLOCK_ROWS = 1024
# above this, squares and cubes of float32 sums may overflow or lose the row's own scale
SAFE_FLOAT32 = 1e5
# squared distances below this share of the two squared norms have lost digits to cancellation
_CANCELLED = 1e-3


@contextmanager
def precise() -> Iterator[None]:
    """Compute float32 products in float32, without gradients; leaves the settings as found.

    A user may have allowed TF32 or bfloat16 products (Lightning advises it), or scoring may run
    inside autocast: both cost a kernel mean its third digit.

    Example:
        >>> with precise():
        ...     product = torch.eye(2) @ torch.eye(2)
    """
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    backends = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    found = [backend.fp32_precision for backend in backends]
    legacy = None if backends else torch.get_float32_matmul_precision()
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        if legacy is not None:
            torch.set_float32_matmul_precision("highest")
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        for backend, value in zip(backends, found, strict=True):
            backend.fp32_precision = value
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)


def working_dtype(*matrices: torch.Tensor) -> torch.dtype:
    """Return float32, or float64 where an entry is float64 or too large for float32 products.

    Args:
        matrices: (n, d) each, any float dtype; read in blocks.

    Example:
        >>> working_dtype(torch.ones(2, 3, dtype=torch.bfloat16))
        torch.float32
        >>> working_dtype(torch.full((2, 3), 1e9))
        torch.float64
    """
    for matrix in matrices:
        if matrix.dtype == torch.float64 or largest_entry(matrix) > SAFE_FLOAT32:
            return torch.float64
    return torch.float32


def largest_entry(matrix: torch.Tensor) -> float:
    """Return max |x|, NaN where an entry is NaN; reads the rows in blocks."""
    largest = 0.0
    for start in range(0, len(matrix), 16 * BLOCK_ROWS):
        block = matrix[start : start + 16 * BLOCK_ROWS]
        low, high = (float(value) for value in torch.aminmax(block))
        if math.isnan(low) or math.isnan(high):
            return math.nan
        largest = max(largest, -low, high)
    return largest


def rows(
    matrix: torch.Tensor, start: int, stop: int, like: torch.Tensor, shift: torch.Tensor | None
) -> torch.Tensor:
    """Return rows start..stop on the device and in the dtype of `like`, less `shift` (d,)."""
    block = matrix[start:stop].to(device=like.device, dtype=like.dtype)
    return block if shift is None else block - shift


def sq_distances(
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    refine: bool = False,
    right_norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared Euclidean distances of one block, ‖x − y‖² by a matrix product.

    Args:
        left: (p, d) float32 or float64.
        right: (q, d), same dtype and device.
        refine: Recompute from differences those entries that lost digits to cancellation, so
            that equal rows are at exactly 0.
        right_norms: (q,) ‖y‖², where they are at hand.

    Returns:
        (p, q), clamped at 0.

    Example:
        >>> sq_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    left_norms = left.square().sum(1)
    if right_norms is None:
        right_norms = right.square().sum(1)
    squares = torch.addmm(right_norms.unsqueeze(0), left, right.T, alpha=-2)
    squares = squares.add_(left_norms.unsqueeze(1)).clamp_min_(0)
    if refine:
        _refine(squares, left, right, left_norms, right_norms)
    return squares


def _refine(
    squares: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    left_norms: torch.Tensor,
    right_norms: torch.Tensor,
) -> None:
    scale = left_norms.unsqueeze(1) + right_norms.unsqueeze(0)
    for pairs in torch.split((squares < _CANCELLED * scale).nonzero(), 8 * BLOCK_ROWS):
        i, j = pairs.unbind(1)
        exact = (left[i].double() - right[j].double()).square().sum(1)
        squares[i, j] = exact.to(squares.dtype)


def nearest_distances(
    queries: torch.Tensor, points: torch.Tensor, n_nearest: int = 1
) -> torch.Tensor:
    """Euclidean distances from each query to its nearest points, in growing order.

    Both sides are shifted by the mean of the queries first, which costs nothing and keeps the
    digits of data far from the origin.

    Args:
        queries: (n, d) float32 or float64; its device is where it is computed.
        points: (N, d), any device, read in blocks (a memory map is never loaded whole).
        n_nearest: How many, at most N.

    Returns:
        (n, n_nearest) float64.

    Example:
        >>> nearest_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 2)
        tensor([[1., 5.]], dtype=torch.float64)
    """
    shift = queries.double().mean(0).to(queries.dtype)
    found = []
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256] - shift
        found.append(_nearest_of_block(block, points, n_nearest, shift))
    return torch.cat(found).double().sqrt()


def _nearest_of_block(
    block: torch.Tensor, points: torch.Tensor, n_nearest: int, shift: torch.Tensor
) -> torch.Tensor:
    best = block.new_empty(len(block), 0)
    # a merge costs n_nearest + step: a step of that size keeps the whole linear in N
    step = max(8 * BLOCK_ROWS, n_nearest)
    for start in range(0, len(points), step):
        chunk = rows(points, start, start + step, block, shift)
        best = torch.cat((best, sq_distances(block, chunk, refine=True)), 1)
        best = best.topk(min(n_nearest, best.shape[1]), dim=1, largest=False, sorted=False).values
    return best.sort(dim=1).values


def median_sq_distance(points: torch.Tensor) -> float:
    """Median of ‖x_i − x_j‖² over the pairs i < j.

    Args:
        points: (n, d), n ≥ 2; meant for the real sample, as all pairs are held at once: above
            4,096 rows, evenly spaced ones are taken.

    Returns:
        NaN where an entry is; 0.0 where more than half of the pairs are equal.

    Example:
        >>> median_sq_distance(torch.tensor([[0.0], [1.0], [3.0]]))
        4.0
    """
    points = _evenly(points, 4 * BLOCK_ROWS)
    points = points - points.double().mean(0).to(points.dtype)
    return _median_of_pairs(sq_distances(points, points, refine=True))


def median_l1_distance(points: torch.Tensor) -> float:
    """Median of ‖x_i − x_j‖₁ over the pairs i < j; otherwise as `median_sq_distance`.

    Example:
        >>> median_l1_distance(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]]))
        3.0
    """
    points = _evenly(points, 4 * BLOCK_ROWS)
    return _median_of_pairs(torch.cdist(points, points, p=1.0))


def _median_of_pairs(matrix: torch.Tensor) -> float:
    above = torch.ones_like(matrix, dtype=torch.bool).triu_(1)
    pairs = matrix[above].double().sort().values
    middle = (len(pairs) - 1) / 2
    return float((pairs[math.floor(middle)] + pairs[math.ceil(middle)]) / 2)


def _evenly(points: torch.Tensor, at_most: int) -> torch.Tensor:
    if len(points) <= at_most:
        return points
    positions = torch.linspace(0, len(points) - 1, at_most, dtype=torch.float64).round().long()
    return points[positions.to(points.device)]
