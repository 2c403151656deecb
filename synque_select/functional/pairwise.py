"""Distances between rows, in blocks: float32 products, float64 sums, never a full N×N matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from synque_select.functional.products import scaled_products
from synque_select.utils.device import batch_bytes, prefetched

__all__ = [
    "BLOCK_ROWS",
    "SAFE_FLOAT32",
    "block_rows",
    "count_nearer",
    "largest_entries",
    "largest_entry",
    "median_l1_distance",
    "median_l1_distances",
    "median_sq_distance",
    "median_sq_distances",
    "nearest_distances",
    "precise",
    "row_blocks",
    "rows",
    "sq_distances",
    "working_dtype",
]

# 1,024 × 1,024 float32 is 4 MB: a block and its temporaries stay in the CPU's cache
BLOCK_ROWS = 1024
# above this, the cube of a float32 product (the polynomial kernel) may overflow
SAFE_FLOAT32 = 1e5
# values of which the smallest is found before the smallest of all rows are selected
_GROUP = 16
# a squared distance below this share of the two squared norms has lost 3 of float32's 7 digits to
# cancellation
_CANCELLED = 1e-3


@contextmanager
def precise() -> Iterator[None]:
    """Compute float32 products in full float32 precision and without gradients.

    The process's settings are restored at the end. A training script may have allowed TF32 or
    bfloat16 products, as Lightning advises, or may score inside autocast: both change a kernel
    mean in its third digit, and so the ranking.

    Example:
        >>> with precise():
        ...     product = torch.eye(2) @ torch.eye(2)
    """
    # newer PyTorch has one setting per backend, which must not be mixed with the global one; older
    # versions have the global one alone
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    backends = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    previous = [backend.fp32_precision for backend in backends]
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
        for backend, value in zip(backends, previous, strict=True):
            backend.fp32_precision = value
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)


def working_dtype(*matrices: torch.Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32 unless the data need float64.

    float64 is returned if a matrix is float64 or has an entry too large for float32 products.

    Args:
        *matrices: Matrices of shape (n, d), any float dtype; read in blocks.

    Returns:
        `torch.float32` or `torch.float64`.

    Example:
        >>> working_dtype(torch.ones(2, 3, dtype=torch.bfloat16))
        torch.float32
        >>> working_dtype(torch.full((2, 3), 1e9))
        torch.float64
    """
    if any(matrix.dtype == torch.float64 for matrix in matrices):
        return torch.float64
    # a NaN is not above: it does not decide
    large = any(entry > SAFE_FLOAT32 for entry in largest_entries(matrices))
    return torch.float64 if large else torch.float32


def largest_entry(matrix: torch.Tensor) -> float:
    """Return max |x|; the rows are read in blocks.

    Args:
        matrix: (n, d), any float dtype, any device; may be memory-mapped.

    Returns:
        The largest absolute entry; NaN if any entry is NaN, 0.0 for an empty matrix.

    Example:
        >>> largest_entry(torch.tensor([[1.0, -3.0]]))
        3.0
    """
    return largest_entries([matrix])[0]


def largest_entries(matrices: Sequence[torch.Tensor]) -> list[float]:
    """Return max |x| of each matrix, as `largest_entry` does, and wait once for a device.

    Args:
        matrices: Matrices (n, d), any float dtype, any device; they may be memory-mapped.

    Example:
        >>> largest_entries([torch.tensor([[1.0, -3.0]]), torch.zeros(0, 2)])
        [3.0, 0.0]
    """
    entries = [_largest(matrix) for matrix in matrices]
    devices = {entry.device for entry in entries}
    places: dict[torch.device, list[int]] = {
        device: [i for i, entry in enumerate(entries) if entry.device == device]
        for device in devices
    }
    result = [0.0] * len(entries)
    for at in places.values():
        for i, value in zip(at, torch.stack([entries[i] for i in at]).cpu().tolist(), strict=True):
            result[i] = value
    return result


def _largest(matrix: torch.Tensor) -> torch.Tensor:
    """Return max |x| as a float64 scalar on the matrix's device."""
    step = 16 * BLOCK_ROWS
    # aminmax, amax and abs keep a NaN
    ends = [
        torch.stack(torch.aminmax(matrix[start : start + step])).abs().amax().double()
        for start in range(0, len(matrix), step)
    ]
    if not ends:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(ends).amax()


def rows(
    matrix: torch.Tensor, start: int, stop: int, like: torch.Tensor, shift: torch.Tensor | None
) -> torch.Tensor:
    """Return rows start..stop on the device and in the dtype of `like`, less `shift`.

    Args:
        matrix: (N, d), any float dtype, any device; may be memory-mapped.
        start: First row.
        stop: Row after the last one; more than N is cut.
        like: Tensor that gives dtype and device.
        shift: (d,) vector to subtract; None for none.

    Returns:
        (stop − start, d).

    Example:
        >>> rows(torch.tensor([[1.0], [3.0]]), 1, 2, torch.zeros(1), torch.tensor([1.0]))
        tensor([[2.]])
    """
    # converted per block: a memory-mapped float16 matrix is never in memory as a whole
    block = matrix[start:stop].to(device=like.device, dtype=like.dtype)
    return block if shift is None else block - shift


def block_rows(like: torch.Tensor, on_cpu: int, bytes_per_row: int) -> int:
    """Return how many rows to read at once: as many as fit into `batch_bytes` on a GPU.

    Args:
        like: Any tensor on the device of the computation.
        on_cpu: Number of rows on other devices.
        bytes_per_row: What a row and all that is computed from it takes.
    """
    return max(1, batch_bytes(like) // bytes_per_row) if like.is_cuda else on_cpu


def row_blocks(
    matrix: torch.Tensor, step: int, like: torch.Tensor, shift: torch.Tensor | None
) -> Iterator[torch.Tensor]:
    """Yield all rows in blocks, each as `rows` returns it; the next is copied to a GPU meanwhile.

    Args:
        matrix: (N, d), any float dtype, any device; may be memory-mapped.
        step: Number of rows in a block.
        like: Tensor that gives dtype and device.
        shift: (d,) vector to subtract; None for none.
    """
    # converted per block: a memory-mapped float16 matrix is never in memory as a whole
    starts = range(0, len(matrix), step)
    for block in prefetched((matrix[start : start + step] for start in starts), like):
        yield block if shift is None else block - shift


def sq_distances(
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    refine: bool = False,
    right_norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return squared Euclidean distances of one block, ‖x‖² + ‖y‖² − 2 x·y.

    Args:
        left: (..., p, d) float32 or float64.
        right: (..., q, d), same dtype and device, and as many dimensions, of which there are two or
            three.
        refine: Whether to compute entries that lose digits to cancellation from differences, so
            that equal rows are at exactly 0; on a GPU, these are all entries.
        right_norms: (..., q) squared norms ‖y‖², if known; None to compute them.

    Returns:
        (..., p, q) in the dtype of the rows, at least 0.

    Example:
        >>> sq_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    if refine and left.is_cuda:
        # which entries cancel is known on the device only, and the host would wait for each block
        return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square_()
    left_norms = left.square().sum(-1)
    if right_norms is None:
        right_norms = right.square().sum(-1)
    squares = scaled_products(left, right, -2, right_norms)
    # rounding may leave small distances below 0, and their root would be NaN
    squares = squares.add_(left_norms.unsqueeze(-1)).clamp_min_(0)
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
    # the product's error is about 1e-7 of the norms, whatever the distance is: only pairs that are
    # near in relation to their norms need to be recomputed, few of them in most data, so this
    # costs little; differencing all pairs would take d times the memory
    if squares.amin() >= _CANCELLED * (left_norms.amax() + right_norms.amax()):
        return  # one pass instead of four where no pair is near
    scale = left_norms.unsqueeze(-1) + right_norms.unsqueeze(-2)
    for pairs in torch.split((squares < _CANCELLED * scale).nonzero(), 8 * BLOCK_ROWS):
        *lead, i, j = pairs.unbind(1)
        exact = (left[*lead, i].double() - right[*lead, j].double()).square().sum(1)
        squares[*lead, i, j] = exact.to(squares.dtype)


def nearest_distances(
    queries: torch.Tensor, points: torch.Tensor, n_nearest: int = 1
) -> torch.Tensor:
    """Return Euclidean distances from each query to its nearest points, in ascending order.

    Args:
        queries: (n, d) float32 or float64; the computation runs on its device.
        points: (N, d), any float dtype, any device; read in blocks, so a memory-mapped matrix is
            never loaded as a whole.
        n_nearest: Number of nearest points per query, at most N.

    Returns:
        (n, n_nearest) float64.

    Example:
        >>> nearest_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 2)
        tensor([[1., 5.]], dtype=torch.float64)
    """
    shift = _useful_shift(queries)
    if queries.is_cuda:
        # all queries with one block of points after the other: each is copied once
        return _nearest_of_block(queries, points, n_nearest, shift).double().sqrt()
    blocks = torch.split(queries, BLOCK_ROWS)
    nearest = [_nearest_of_block(block, points, n_nearest, shift) for block in blocks]
    return torch.cat(nearest).double().sqrt()


def _useful_shift(queries: torch.Tensor) -> torch.Tensor | None:
    """Return what to subtract from both sides; None where that would gain less than a bit."""
    # distances do not change under a shift of both sides, but data far from the origin keep their
    # float32 digits; the mean of one block is near enough
    some = queries[:BLOCK_ROWS].double()
    shift = some.mean(0)
    # on a GPU, the host would wait for it
    if not shift.is_cuda and 2 * shift.square().sum() <= some.square().sum(1).mean():
        return None
    return shift.to(queries.dtype)


def _nearest_of_block(
    block: torch.Tensor, points: torch.Tensor, n_nearest: int, shift: torch.Tensor | None
) -> torch.Tensor:
    block = block if shift is None else block - shift
    norms = block.square().sum(1)
    best = block.new_empty(len(block), 0)
    # each merge costs n_nearest + step, so steps of at least n_nearest keep the total linear in N;
    # from 64 n_nearest on, torch.topk keeps a heap instead of partitioning all of a row
    on_cpu = max(2 * BLOCK_ROWS, min(8 * BLOCK_ROWS, 64 * n_nearest))
    n_bytes = block.element_size() * (3 * block.shape[1] + 5 * len(block))
    step = max(block_rows(block, on_cpu, n_bytes), n_nearest)
    for chunk in row_blocks(points, step, block, shift):
        nearest = _smallest_sq_distances(block, chunk, n_nearest, norms)
        best = _smallest(torch.cat((best, nearest), 1), n_nearest) if best.numel() else nearest
    return best.sort(dim=1).values


def _smallest_sq_distances(
    left: torch.Tensor, right: torch.Tensor, n: int, left_norms: torch.Tensor
) -> torch.Tensor:
    """Return the n smallest squared distances of each row, as of `sq_distances(refine=True)`."""
    if left.is_cuda:
        return _smallest(sq_distances(left, right, refine=True), n)
    # ‖x‖² is the same for all of a row, so it is added to the smallest only
    # without a copy of the rows for their squares
    right_norms = torch.linalg.vector_norm(right, dim=1).square()
    smallest = _smallest(scaled_products(left, right, -2, right_norms), n)
    smallest.add_(left_norms.unsqueeze(1)).clamp_min_(0)
    # only rows with a near pair lose digits
    bounds = _CANCELLED * (left_norms + right_norms.amax())
    near = (smallest.amin(1) < bounds).nonzero().flatten()
    if len(near):
        exact = sq_distances(left[near], right, refine=True, right_norms=right_norms)
        smallest[near] = _smallest(exact, n)
    return smallest


def _smallest(values: torch.Tensor, n: int) -> torch.Tensor:
    """Return the n smallest values of each row, in any order; all if there are fewer."""
    if n == 1:  # a selection of one is slower than a minimum
        return values.amin(1, keepdim=True)
    n_groups = values.shape[1] // _GROUP
    if values.shape[1] % _GROUP or n_groups < 4 * n or values.is_cuda:
        return values.topk(min(n, values.shape[1]), dim=1, largest=False, sorted=False).values
    # the n smallest values are in the n groups with the smallest minima; NumPy partitions short
    # rows several times as fast as PyTorch
    groups = values.detach().view(len(values), _GROUP, n_groups)
    chosen = np.argpartition(groups.amin(1).numpy(), n - 1, axis=1)[:, :n]
    places = torch.from_numpy(chosen).unsqueeze(1).expand(-1, _GROUP, -1)
    few = groups.gather(2, places).flatten(1).numpy()
    return torch.from_numpy(np.partition(few, n - 1, axis=1)[:, :n])


def count_nearer(
    queries: torch.Tensor, points: torch.Tensor, limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the points that are nearer to each query than each limit, and those at most as far.

    Memory does not grow with the number of points.

    Args:
        queries: (n, d) float32 or float64; the computation runs on its device.
        points: (N, d), any float dtype, any device; read in blocks.
        limits: (n, J) float64 Euclidean distances, ascending for each query.

    Returns:
        Two tensors (n, J) int64.

    Example:
        >>> points = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> count_nearer(torch.zeros(1, 2), points, torch.tensor([[1.0, 6.0]]).double())
        (tensor([[0, 2]]), tensor([[1, 2]]))
    """
    shift = queries[:BLOCK_ROWS].double().mean(0).to(queries.dtype)
    moved = queries - shift
    size = len(limits), limits.shape[1] + 1
    below, at_most = (limits.new_zeros(size, dtype=torch.int64) for _ in range(2))
    n_bytes = moved.element_size() * (3 * moved.shape[1] + 10 * len(moved))
    step = block_rows(moved, BLOCK_ROWS, n_bytes)
    for chunk in row_blocks(points, step, moved, shift):
        distances = sq_distances(moved, chunk, refine=True).double().sqrt()
        for counts, right in ((below, True), (at_most, False)):
            # a distance is below the limits from its place on
            places = torch.searchsorted(limits, distances, right=right)
            counts.scatter_add_(1, places, torch.ones_like(places))
    return below.cumsum(1)[:, :-1], at_most.cumsum(1)[:, :-1]


def median_sq_distance(points: torch.Tensor) -> float:
    """Return the median of ‖x_i − x_j‖² over the pairs i < j.

    Args:
        points: (n, d) float32 or float64, n ≥ 2. Above 4,096 rows, that many evenly spaced ones
            are used, because all pairs are in memory at once.

    Returns:
        The median; NaN if an entry is NaN, 0.0 if more than half of the pairs are equal.

    Source: the median heuristic for kernel bandwidths, Gretton et al. 2012, JMLR 13.

    Example:
        >>> median_sq_distance(torch.tensor([[0.0], [1.0], [3.0]]))
        4.0
    """
    return median_sq_distances([points])[0]


def median_sq_distances(sets: Iterable[torch.Tensor]) -> list[float]:
    """Return the `median_sq_distance` of each set, and wait once for a device.

    Args:
        sets: Tensors (n, d) of one device; one of them is used at a time.

    Example:
        >>> median_sq_distances([torch.tensor([[0.0], [1.0], [3.0]])])
        [4.0]
    """
    return torch.stack([_median_sq_distance(points) for points in sets]).cpu().tolist()


def _median_sq_distance(points: torch.Tensor) -> torch.Tensor:
    # evenly spaced and not random: the bandwidth, and with it every score, needs no seed
    points = _evenly_spaced(points, 4 * BLOCK_ROWS)
    points = points - points.double().mean(0).to(points.dtype)
    return _median_of_pairs(sq_distances(points, points, refine=True))


def median_l1_distance(points: torch.Tensor) -> float:
    """Return the median of ‖x_i − x_j‖₁ over the pairs i < j.

    Args:
        points: (n, d) float32 or float64, n ≥ 2; above 4,096 rows, that many evenly spaced ones
            are used.

    Returns:
        The median; 0.0 if more than half of the pairs are equal.

    Example:
        >>> median_l1_distance(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]]))
        3.0
    """
    return median_l1_distances([points])[0]


def median_l1_distances(sets: Iterable[torch.Tensor]) -> list[float]:
    """Return the `median_l1_distance` of each set, and wait once for a device.

    Args:
        sets: Tensors (n, d) of one device; one of them is used at a time.

    Example:
        >>> median_l1_distances([torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]])])
        [3.0]
    """
    thinned = (_evenly_spaced(points, 4 * BLOCK_ROWS) for points in sets)
    return torch.stack([_median_of_pairs(torch.cdist(x, x, p=1.0)) for x in thinned]).cpu().tolist()


def _median_of_pairs(matrix: torch.Tensor) -> torch.Tensor:
    # by positions: the host would wait for a device to count the entries of a mask
    i, j = torch.triu_indices(len(matrix), len(matrix), 1, device=matrix.device)
    # torch.median returns the lower of two middle values, and torch.quantile refuses more than
    # 2^24 entries
    pairs = matrix[i, j].double().sort().values
    middle = (len(pairs) - 1) / 2
    return (pairs[math.floor(middle)] + pairs[math.ceil(middle)]) / 2


def _evenly_spaced(points: torch.Tensor, max_rows: int) -> torch.Tensor:
    if len(points) <= max_rows:
        return points
    positions = torch.linspace(0, len(points) - 1, max_rows, dtype=torch.float64).round().long()
    return points[positions.to(points.device)]
