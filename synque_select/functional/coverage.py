"""Whether synthetic examples lie near each real one: distances, k-NN density and coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.pairwise import (
    BLOCK_ROWS,
    block_rows,
    nearest_distances,
    row_blocks,
    sq_distances,
)

__all__ = [
    "counts_within",
    "coverage_distances",
    "expected_minimum",
    "knn_coverage",
    "knn_density",
    "mixture_coverage_distances",
    "order_weights",
    "real_radii",
    "stacked_counts_within",
    "stacked_coverage_distances",
]

# total chance of the order statistics that are left out: far below float32's resolution of the
# distances, and it cuts N weights to about N/m · 28
_TAIL = 1e-12
# real examples whose sorted distances to all parts are in memory at once
_MIXTURE_ROWS = 32
# real examples whose distances to all others are in memory at once
_RADIUS_ROWS = 256


def order_weights(n: int, m: int) -> torch.Tensor:
    """Chance that the j-th smallest of n values is the smallest of m drawn without replacement.

    w_j = C(n − j, m − 1) / C(n, m) for j = 1, 2, …. The tail with a chance below 10⁻¹² is cut and
    the rest is normalized.

    Args:
        n: Number of values.
        m: Number of values drawn, 1 ≤ m ≤ n.

    Returns:
        (J,) float64, J ≤ n − m + 1; sums to 1.

    Example:
        >>> order_weights(3, 2)
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    # the chance that none of the j smallest values is drawn is at most (1 − m/n)^j: solved for j
    # at which it falls below the tail
    length = n - m + 1
    if m < n:
        length = min(length, math.ceil(math.log(_TAIL) / math.log1p(-m / n)) + 1)
    j = np.arange(1, length, dtype=np.float64)
    # from the ratio w_{j+1} / w_j = (n − j − m + 1) / (n − j), as a sum of logarithms: binomial
    # coefficients of n = 10⁶ overflow float64
    logs = np.concatenate(([0.0], np.cumsum(np.log1p(-(m - 1) / (n - j)))))
    weights = np.exp(logs + math.log(m / n))
    return torch.from_numpy(weights / weights.sum())


def expected_minimum(sorted_values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Expected smallest of m values drawn without replacement: Σ_j w_j v_(j).

    Args:
        sorted_values: (…, J) float64, in ascending order along the last dimension.
        weights: (J,) float64 from `order_weights`.

    Returns:
        (…,) float64.

    Example:
        >>> expected_minimum(torch.tensor([1.0, 2.0, 4.0]).double(), order_weights(3, 1))
        tensor(2.3333, dtype=torch.float64)
    """
    return sorted_values @ weights.to(sorted_values.device)


def coverage_distances(real: torch.Tensor, synthetic: torch.Tensor, m: int) -> torch.Tensor:
    """Expected distance from each real example to the nearest of m random synthetic ones.

    Σ_j d_(j) C(N − j, m − 1) / C(N, m), the exact expectation over draws without replacement. A
    common m makes candidates of different size comparable: a larger set has nearer neighbors by
    its size alone.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d) any float dtype, any device; read in blocks.
        m: Common sample size, 1 ≤ m ≤ N.

    Returns:
        (n,) float64 Euclidean distances, lower is closer; their mean is the coverage distance.

    Source: directed Chamfer distance; expectation under subsampling as in rarefaction
        (Hurlbert 1971).

    Example:
        >>> coverage_distances(torch.zeros(1, 1), torch.tensor([[1.0], [3.0]]), 1)
        tensor([2.], dtype=torch.float64)
    """
    weights = order_weights(len(synthetic), m)
    return expected_minimum(nearest_distances(real, synthetic, len(weights)), weights)


def stacked_coverage_distances(
    real: torch.Tensor, stacked: torch.Tensor, sizes: torch.Tensor | None, weights: torch.Tensor
) -> torch.Tensor:
    """Return the `coverage_distances` to several sets at once, for GPUs.

    Args:
        real: (n, d) float32 or float64.
        stacked: (G, N, d) rows of G sets, same dtype and device; the smaller ones end with other
            rows.
        sizes: (G,) int64 number of rows of each set; None if all have N.
        weights: (G, J) float64 `order_weights` of each set, the shorter ones followed by 0.

    Returns:
        (G, n) float64.

    Example:
        >>> sets = torch.tensor([[[1.0], [3.0]], [[2.0], [0.0]]])
        >>> weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double()
        >>> stacked_coverage_distances(torch.zeros(1, 1), sets, torch.tensor([2, 1]), weights)
        tensor([[2.],
                [2.]], dtype=torch.float64)
    """
    distances = _stacked_sq_distances(real, stacked, sizes)
    nearest = distances.topk(weights.shape[1], dim=2, largest=False).values.double().sqrt()
    # rows that are not there are at an infinite distance, which no weight of 0 would cancel
    nearest = torch.where(weights.unsqueeze(1) > 0, nearest, 0.0)
    return (nearest @ weights.unsqueeze(2)).squeeze(2)


def stacked_counts_within(
    real: torch.Tensor, stacked: torch.Tensor, sizes: torch.Tensor | None, radii: torch.Tensor
) -> torch.Tensor:
    """Return the `counts_within` of several sets at once, for GPUs.

    Args:
        real: (n, d) float32 or float64.
        stacked: (G, N, d) rows of G sets, same dtype and device; the smaller ones end with other
            rows.
        sizes: (G,) int64 number of rows of each set; None if all have N.
        radii: (n,) float64 Euclidean radii.

    Returns:
        (G, n) int64.

    Example:
        >>> sets, radii = torch.tensor([[[1.0], [3.0]], [[2.0], [0.0]]]), torch.tensor([2.0])
        >>> stacked_counts_within(torch.zeros(1, 1), sets, torch.tensor([2, 1]), radii)
        tensor([[1],
                [1]])
    """
    limits = radii.square().to(real).unsqueeze(1)
    return (_stacked_sq_distances(real, stacked, sizes) <= limits).sum(2)


def _stacked_sq_distances(
    real: torch.Tensor, stacked: torch.Tensor, sizes: torch.Tensor | None
) -> torch.Tensor:
    """(G, n, N) squared distances; infinite to rows that are not there."""
    shift = real.double().mean(0).to(real.dtype)
    sample = (real - shift).expand(len(stacked), -1, -1)
    distances = sq_distances(sample, stacked - shift, refine=True)
    if sizes is None:
        return distances
    places = torch.arange(stacked.shape[1], device=stacked.device)
    missing = places >= sizes.unsqueeze(1)
    return distances.masked_fill_(missing.unsqueeze(1), torch.inf)


def mixture_coverage_distances(
    real: torch.Tensor, parts: Sequence[torch.Tensor], draws: Sequence[float]
) -> torch.Tensor:
    """Expected distance from each real example to the nearest one in a random draw of a mixture.

    Part a contributes m_a examples, drawn without replacement and independently of the other
    parts. The draw misses the j_a nearest examples of every part with chance
    Π_a Π_{i<j_a} (1 − m_a / (N_a − i)); along the sorted distances of all parts this is one
    running product, which gives the exact expectation of the smallest distance. Only distances
    are concatenated, never embeddings.

    Args:
        real: (n, d) float32 or float64.
        parts: One (N_a, d) tensor per part, any float dtype, any device.
        draws: m_a of each part, above 0 and up to N_a; a fraction interpolates between the two
            whole numbers around it.

    Returns:
        (n,) float64 Euclidean distances, lower is closer.

    Example:
        >>> parts = [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0]])]
        >>> mixture_coverage_distances(torch.zeros(1, 1), parts, [1, 1])  # 1 or 2, evenly
        tensor([1.5000], dtype=torch.float64)
    """
    logs = [_log_misses(len(points), m) for points, m in zip(parts, draws, strict=True)]
    steps = torch.cat(logs).to(real.device)
    expected = []
    for block in torch.split(real, _MIXTURE_ROWS):
        near = [nearest_distances(block, x, len(log)) for x, log in zip(parts, logs, strict=True)]
        distances, order = torch.cat(near, 1).sort(1)
        # chance that everything up to here is missed; its decrease at an example is the chance
        # that this example is the nearest of the draw
        missed = steps[order].cumsum(1).exp()
        chances = torch.cat((torch.ones_like(missed[:, :1]), missed[:, :-1]), 1) - missed
        # the tail that was cut is spread over the rest, so that the weights sum to 1
        expected.append((distances * chances).sum(1) / chances.sum(1))
    return torch.cat(expected)


def _log_misses(n: int, m: float) -> torch.Tensor:
    """Log-chance that the i-th nearest example is not drawn, given that no nearer one is."""
    last = math.ceil(n - m) + 1
    if m < n:
        last = min(last, math.ceil(math.log(_TAIL) / math.log1p(-m / n)) + 1)
    left = n - torch.arange(min(last, n), dtype=torch.float64)
    # a fractional m may exceed the examples left; the draw then hits for certain: log 0 = −∞
    return torch.log1p(-(m / left).clamp(max=1))


def real_radii(real: torch.Tensor, k: int, groups: NDArray[np.int64] | None = None) -> torch.Tensor:
    """Distance of each real example to its k-th nearest other real example.

    Args:
        real: (n, d) float32 or float64, n > k.
        k: Number of neighbors, 1 ≤ k < n.
        groups: (n,) int64 group of each example; only those of other groups are then neighbors.
            If a group leaves fewer than k, the farthest of them counts.

    Returns:
        (n,) float64 Euclidean distances.

    Example:
        >>> real_radii(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        tensor([1., 1., 2.], dtype=torch.float64)
    """
    # column 0 is the example itself, at distance 0 (or a copy of it, which makes no difference)
    if groups is None:
        return nearest_distances(real, real, k + 1)[:, k]
    # without its own group: with copies of an example as its neighbors, its ball would have no
    # radius
    n_others = len(real) - np.bincount(groups)[groups]
    numbers = torch.from_numpy(groups).to(real.device)
    ranks = torch.from_numpy(np.minimum(k, n_others) - 1).to(real.device)
    real = real - real.double().mean(0).to(real.dtype)
    radii = []
    for start in range(0, len(real), _RADIUS_ROWS):
        part = slice(start, start + _RADIUS_ROWS)
        distances = sq_distances(real[part], real, refine=True)
        distances = distances.masked_fill(numbers[part].unsqueeze(1) == numbers, torch.inf)
        nearest = distances.topk(k, dim=1, largest=False).values
        radii.append(nearest.gather(1, ranks[part].unsqueeze(1)).squeeze(1))
    return torch.cat(radii).double().sqrt()


def counts_within(real: torch.Tensor, synthetic: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Number of synthetic examples within the radius of each real one.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d) any float dtype, any device; read in blocks.
        radii: (n,) float64 Euclidean radii.

    Returns:
        (n,) int64 counts; an example exactly on the radius counts.

    Example:
        >>> counts_within(torch.zeros(1, 1), torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]))
        tensor([1])
    """
    # distances do not change when both sides are shifted, but their float32 digits do: data far
    # from the origin would lose them to cancellation in ‖x‖² + ‖y‖² − 2x·y
    shift = real.double().mean(0).to(real.dtype)
    centered = real - shift
    limits = radii.square().to(real).unsqueeze(1)
    counts = torch.zeros(len(real), dtype=torch.int64, device=real.device)
    n_bytes = real.element_size() * (3 * real.shape[1] + 4 * len(real))
    for block in row_blocks(synthetic, block_rows(real, BLOCK_ROWS, n_bytes), real, shift):
        # refined, so that a synthetic copy of a real example is at exactly 0, within any radius
        counts += (sq_distances(centered, block, refine=True) <= limits).sum(1)
    return counts


def knn_density(counts: torch.Tensor, k: int, n_synthetic: int) -> torch.Tensor:
    """Each real example's contribution to the density: synthetic examples in its ball, relative.

    count_i · n / (k N). The mean over the real examples is Naeem's density
    1/(kN) Σ_j Σ_i 1[s_j in ball i], whose expectation over subsamples of the synthetic set does
    not depend on their size.

    Args:
        counts: (n,) int64 from `counts_within`.
        k: Number of neighbors that define the radii (`real_radii`).
        n_synthetic: N, the size of the synthetic set.

    Returns:
        (n,) float64; the mean is the density, about 1 for equal distributions, 0 at worst; higher
        is closer.

    Source: Naeem et al. 2020 (arXiv 2002.09797), equation 3.

    Example:
        >>> knn_density(torch.tensor([4, 0]), 2, 8)
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return counts.double() * (len(counts) / (k * n_synthetic))


def knn_coverage(counts: torch.Tensor, n_synthetic: int, m: int) -> torch.Tensor:
    """Chance that the ball of each real example contains at least one of m synthetic examples.

    1 − C(N − c, m) / C(N, m), the exact expectation over draws without replacement.

    Args:
        counts: (n,) int64 from `counts_within`.
        n_synthetic: N, the size of the synthetic set.
        m: Number of synthetic examples drawn, 1 ≤ m ≤ N.

    Returns:
        (n,) float64; the mean is the coverage, 0 to 1, higher is better.

    Source: Naeem et al. 2020 (arXiv 2002.09797), equation 4.

    Example:
        >>> knn_coverage(torch.tensor([0, 1, 3]), 4, 2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    most = n_synthetic - m
    if most == 0:
        return (counts > 0).double()
    # C(N−c, m) / C(N, m) = Π_{i<c} (1 − m / (N − i)): one running product serves every count
    left = n_synthetic - torch.arange(most, dtype=torch.float64, device=counts.device)
    logs = torch.cat((left.new_zeros(1), torch.log1p(-m / left).cumsum(0)))
    # 1 − e^x by expm1: for small chances the subtraction would leave no digits. With more than
    # N − m examples in the ball, no draw of m can miss it
    return torch.where(counts > most, 1.0, 0.0 - torch.expm1(logs[counts.clamp_max(most)]))
