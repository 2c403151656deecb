"""Is each real example near a synthetic one: nearest distances, k-NN density and coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from synque_select.functional.pairwise import (
    BLOCK_ROWS,
    nearest_distances,
    rows,
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
]

# chance of the order statistics that are left out
_TAIL = 1e-12
# real examples whose sorted distances are held at once
_MIXTURE_ROWS = 32


def order_weights(n: int, m: int) -> torch.Tensor:
    """Chance that the j-th smallest of n values is the smallest of m drawn without replacement.

    w_j = C(n − j, m − 1) / C(n, m) for j = 1 …, by the ratio w_{j+1} / w_j =
    (n − j − m + 1) / (n − j), summed as logarithms: stable at n of 10⁶ and more. The tail whose
    chance is under 10⁻¹² is cut.

    Args:
        n: How many values there are.
        m: How many are drawn, 1 ≤ m ≤ n.

    Returns:
        (J,) float64, J ≤ n − m + 1; sums to 1.

    Example:
        >>> order_weights(3, 2)
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    # after j values that were not drawn, the chance that none of them was: (1 − m/n)^j at most
    length = n - m + 1
    if m < n:
        length = min(length, math.ceil(math.log(_TAIL) / math.log1p(-m / n)) + 1)
    j = np.arange(1, length, dtype=np.float64)
    logs = np.concatenate(([0.0], np.cumsum(np.log1p(-(m - 1) / (n - j)))))
    weights = np.exp(logs + math.log(m / n))
    return torch.from_numpy(weights / weights.sum())


def expected_minimum(sorted_values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Expected smallest of m values drawn without replacement, from the sorted values.

    Args:
        sorted_values: (…, J) float64, growing along the last dimension.
        weights: (J,) of `order_weights`.

    Returns:
        (…,) float64.
    """
    return sorted_values @ weights.to(sorted_values.device)


def coverage_distances(real: torch.Tensor, synthetic: torch.Tensor, m: int) -> torch.Tensor:
    """Expected distance from each real example to the nearest of m synthetic ones.

    The m are drawn without replacement; the expectation is exact: Σ_j d_(j) C(N−j, m−1)/C(N, m).

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d), any device.
        m: Common size, 1 ≤ m ≤ N.

    Returns:
        (n,) float64, Euclidean; the mean is the coverage distance (directed Chamfer).

    Source: directed Chamfer distance; expectation under subsampling as in rarefaction
        (Hurlbert 1971).

    Example:
        >>> coverage_distances(torch.zeros(1, 1), torch.tensor([[1.0], [3.0]]), 1)
        tensor([2.], dtype=torch.float64)
    """
    weights = order_weights(len(synthetic), m)
    return expected_minimum(nearest_distances(real, synthetic, len(weights)), weights)


def mixture_coverage_distances(
    real: torch.Tensor, parts: Sequence[torch.Tensor], draws: Sequence[float]
) -> torch.Tensor:
    """Expected distance from each real example to the nearest of a sample of a mixture.

    Part a gives m_a examples, drawn without replacement and apart from the others'. A sample has
    none of the j_a nearest examples of each part with chance Π_a Π_{i<j_a} (1 − m_a / (N_a − i)):
    along the sorted distances of all parts that is one running product, and the expectation of the
    smallest is exact. Nothing is concatenated but distances.

    Args:
        real: (n, d) float32 or float64.
        parts: (N_a, d) each, any device.
        draws: m_a of each part, above 0 and up to N_a; a fraction stands between its neighbours.

    Returns:
        (n,) float64, Euclidean.

    Example:
        >>> parts = [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0]])]
        >>> mixture_coverage_distances(torch.zeros(1, 1), parts, [1, 1])  # 1 or 2, evenly
        tensor([1.5000], dtype=torch.float64)
    """
    logs = [_log_misses(len(points), m) for points, m in zip(parts, draws, strict=True)]
    steps = torch.cat(logs).to(real.device)
    found = []
    for block in torch.split(real, _MIXTURE_ROWS):
        near = [nearest_distances(block, x, len(log)) for x, log in zip(parts, logs, strict=True)]
        distances, order = torch.cat(near, 1).sort(1)
        missed = steps[order].cumsum(1).exp()
        chances = torch.cat((torch.ones_like(missed[:, :1]), missed[:, :-1]), 1) - missed
        found.append((distances * chances).sum(1) / chances.sum(1))
    return torch.cat(found)


def _log_misses(n: int, m: float) -> torch.Tensor:
    """Log-chance that the i-th nearest is not drawn either, given that no nearer one was."""
    last = math.ceil(n - m) + 1
    if m < n:
        last = min(last, math.ceil(math.log(_TAIL) / math.log1p(-m / n)) + 1)
    left = n - torch.arange(min(last, n), dtype=torch.float64)
    return torch.log1p(-(m / left).clamp(max=1))


def real_radii(real: torch.Tensor, k: int) -> torch.Tensor:
    """Distance of each real example to its k-th nearest other real example.

    Args:
        real: (n, d) float32 or float64, n > k.
        k: 1 ≤ k < n.

    Returns:
        (n,) float64.

    Example:
        >>> real_radii(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        tensor([1., 1., 2.], dtype=torch.float64)
    """
    # the nearest of all is the example itself, or a copy of it, at 0
    return nearest_distances(real, real, k + 1)[:, k]


def counts_within(real: torch.Tensor, synthetic: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """How many synthetic examples lie within the radius of each real one.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d), any device, read in blocks.
        radii: (n,) float64.

    Returns:
        (n,) int64.

    Example:
        >>> counts_within(torch.zeros(1, 1), torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]))
        tensor([1])
    """
    shift = real.double().mean(0).to(real.dtype)
    centred = real - shift
    limits = radii.square().to(real).unsqueeze(1)
    counts = torch.zeros(len(real), dtype=torch.int64, device=real.device)
    for start in range(0, len(synthetic), BLOCK_ROWS):
        block = rows(synthetic, start, start + BLOCK_ROWS, real, shift)
        counts += (sq_distances(centred, block, refine=True) <= limits).sum(1)
    return counts


def knn_density(counts: torch.Tensor, k: int, n_synthetic: int) -> torch.Tensor:
    """Each real example's part of the density: synthetic ones in its ball over those expected.

    count / (k N / n) / n summed over the real ones is Naeem's density 1/(kN) Σ_j Σ_i 1[s_j in ball
    i], whose expectation over subsamples does not depend on their size.

    Args:
        counts: (n,) of `counts_within`.
        k: Of the radii.
        n_synthetic: N.

    Returns:
        (n,) float64; the mean is the density, about 1 for equal distributions, 0 at worst.

    Source: Naeem et al. 2020, equation 3.

    Example:
        >>> knn_density(torch.tensor([4, 0]), 2, 8)
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return counts.double() * (len(counts) / (k * n_synthetic))


def knn_coverage(counts: torch.Tensor, n_synthetic: int, m: int) -> torch.Tensor:
    """Chance that the ball of each real example holds one of m synthetic ones.

    1 − C(N − c, m) / C(N, m), exact over subsamples without replacement.

    Args:
        counts: (n,) of `counts_within`.
        n_synthetic: N.
        m: How many are drawn, 1 ≤ m ≤ N.

    Returns:
        (n,) float64; the mean is the coverage, 0 to 1.

    Source: Naeem et al. 2020, equation 4.

    Example:
        >>> knn_coverage(torch.tensor([0, 1, 3]), 4, 2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    most = n_synthetic - m
    if most == 0:
        return (counts > 0).double()
    # C(N−c, m) / C(N, m) = Π_{i<c} (1 − m / (N − i)): the same product for every count
    left = n_synthetic - torch.arange(most, dtype=torch.float64, device=counts.device)
    logs = torch.cat((left.new_zeros(1), torch.log1p(-m / left).cumsum(0)))
    return torch.where(counts > most, 1.0, 0.0 - torch.expm1(logs[counts.clamp_max(most)]))
