"""MAUVE: the overlap of two samples' distributions after a joint quantization.

Implemented from the papers: Pillutla et al. 2021 (arXiv 2102.01454) and Pillutla et al. 2023
(JMLR, arXiv 2212.14578).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from synque_select.functional.products import scaled_products

__all__ = [
    "default_n_bins",
    "divergence_frontier",
    "frontier_area",
    "kmeans",
    "mauve_from_counts",
    "mauve_score",
    "project_to_variance",
    "quantize",
]

# entries of a block of distances: 64 MB in float32
_BLOCK_ELEMENTS = 2**24
# columns whose products with all columns behind them are computed at once
_STRIP_COLUMNS = 128
# points per cluster from which the start of k-means is chosen: more hardly lower the inertia
_START_POINTS = 20
# k-means stops when the inertia falls by less than this share of the sum of squares
_TOLERANCE = 1e-4


def mauve_score(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    *,
    n_bins: int | None = None,
    scale: float = 5.0,
    smoothing: float = 0.0,
    explained_variance: float = 0.9,
    seed: int = 0,
) -> torch.Tensor:
    """Return MAUVE of two sets of embeddings, from one quantization.

    Rows are scaled to unit length, projected onto the principal components that hold 90 % of the
    joint variance, and clustered together by k-means; P and Q are the shares of the real and the
    synthetic rows in each cluster. With R = t P + (1 − t) Q, MAUVE is the area under the curve
    of (exp(−c KL(Q|R)), exp(−c KL(P|R))), t in (0, 1), c = 5.

    Args:
        real: (n, d), any float dtype.
        synthetic: (m, d), any float dtype, same device.
        n_bins: Number of clusters; None for max(2, round(min(n, m) / 10)).
        scale: c of the divergence frontier; it changes the values but hardly the order.
        smoothing: Added to each bin's count in both histograms; 0.5 (Krichevsky-Trofimov) is
            `mauve_star`.
        explained_variance: Share of the joint variance that the projection keeps, 0 to 1.
        seed: Random seed for the start of k-means.

    Returns:
        A float64 scalar in (0, 1]; higher is better, 1 for equal histograms.

    Source:
        arXiv 2102.01454, equations 1 and 2 and section 3; smoothing: arXiv 2212.14578, add-b
        estimators.

    Example:
        >>> real = torch.eye(4).repeat(10, 1)
        >>> float(mauve_score(real, real))
        1.0
        >>> bool(mauve_score(real, -real, n_bins=8) < 0.01)
        True
    """
    points = project_to_variance(torch.cat([real, synthetic]), explained_variance)
    bins = n_bins or default_n_bins(len(real), len(synthetic))
    real_counts, synthetic_counts = quantize(
        points[: len(real)], points[len(real) :], bins, seed=seed
    )
    return mauve_from_counts(real_counts, synthetic_counts, scale=scale, smoothing=smoothing)


def default_n_bins(n_real: int, n_synthetic: int) -> int:
    """Return the number of clusters, max(2, round(min(n, m) / 10)).

    Args:
        n_real: n, the size of the real sample.
        n_synthetic: m, the size of the synthetic set.

    Example:
        >>> default_n_bins(200, 1000), default_n_bins(5, 1000)
        (20, 2)
    """
    return max(2, round(min(n_real, n_synthetic) / 10))


def mauve_from_counts(
    real_counts: torch.Tensor,
    synthetic_counts: torch.Tensor,
    *,
    scale: float = 5.0,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return MAUVE of two histograms over the same bins.

    Args:
        real_counts: (k,) counts of the real sample, any dtype.
        synthetic_counts: (k,) counts of the synthetic set, any dtype.
        scale: c of the divergence frontier.
        smoothing: Added to every count.

    Returns:
        A float64 scalar in (0, 1]; higher is better.

    Source: arXiv 2102.01454, equation 2.

    Example:
        >>> counts = torch.tensor([3.0, 5.0])
        >>> float(mauve_from_counts(counts, 2 * counts))
        1.0
    """
    p = real_counts.double() + smoothing
    q = synthetic_counts.double() + smoothing
    return frontier_area(*divergence_frontier(p / p.sum(), q / q.sum(), scale=scale))


def divergence_frontier(
    p: torch.Tensor, q: torch.Tensor, *, scale: float = 5.0, n_points: int = 25
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the divergence curve of two histograms, including its two ends.

    Args:
        p: (k,) shares that sum to 1.
        q: (k,) shares that sum to 1.
        scale: c in the exponents.
        n_points: The mixture weights are t = i / n_points, 0 < i < n_points.

    Returns:
        exp(−c KL(Q|R_t)) and exp(−c KL(P|R_t)), each (n_points + 1,) float64: from (1, 0) to
        (0, 1).

    Source:
        arXiv 2102.01454, equation 1.

    Example:
        >>> x, y = divergence_frontier(torch.tensor([1.0, 0]), torch.tensor([0.0, 1]))
        >>> float(x[0]), float(y[0]), float(x[-1]), float(y[-1])
        (1.0, 0.0, 0.0, 1.0)
    """
    p, q = p.double(), q.double()
    t = torch.arange(1, n_points, dtype=torch.float64, device=p.device)[:, None] / n_points
    mixtures = t * p + (1 - t) * q
    x = torch.exp(-scale * _kl(q, mixtures))
    y = torch.exp(-scale * _kl(p, mixtures))
    # the ends are limits for t → 0 and 1: at t = 0 itself KL(P|Q) may be infinite
    one, zero = x.new_ones(1), x.new_zeros(1)
    return torch.cat([one, x, zero]), torch.cat([zero, y, one])


def _kl(p: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """KL(p | r) for each row of r, in nats."""
    # bins with p = 0 contribute 0, but log(0 / r) would be NaN; where p > 0, so is r, a mixture
    # that contains p
    positive = p > 0
    p, r = p[positive], r[..., positive]
    # 0 in exact arithmetic may round to just below 0, which would put exp(−c KL) above 1
    return (p * (p / r).log()).sum(-1).clamp_min(0)


def frontier_area(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the area under a falling curve by the trapezoid rule.

    The area is symmetric: exchanging x and y (and their order) gives the same value.

    Args:
        x: (n,) coordinates from 1 down to 0.
        y: (n,) coordinates from 0 up to 1.

    Returns:
        A scalar in 0..1, in the dtype of the coordinates.

    Example:
        >>> float(frontier_area(torch.tensor([1.0, 0]), torch.tensor([0.0, 1])))
        0.5
    """
    area: torch.Tensor = ((x[:-1] - x[1:]) * (y[:-1] + y[1:])).sum() / 2
    return area


def project_to_variance(points: torch.Tensor, explained_variance: float = 0.9) -> torch.Tensor:
    """Scale rows to unit length, center them, and project them onto principal components.

    The fewest components are kept that hold the given share of the variance.

    Args:
        points: (n, d), any float dtype; a row of zeros stays at zero before centering.
        explained_variance: Share of the variance to keep, 0 to 1.

    Returns:
        (n, r) float32, at least one column.

    Example:
        >>> project_to_variance(torch.tensor([[1.0, 0, 0], [0, 2, 0], [3, 0, 0]])).shape
        torch.Size([3, 1])
    """
    unit = torch.nn.functional.normalize(points.float(), dim=1)
    unit = unit - unit.mean(0)
    # covariance and Gram matrix have the same non-zero spectrum: decompose the smaller of the two
    if unit.shape[0] >= unit.shape[1]:
        # float32 is enough to choose axes, and halves the time
        values, vectors = torch.linalg.eigh(_upper_products(unit), UPLO="U")
    else:
        # here the axes are recovered by dividing by the root of the eigenvalues, which magnifies
        # the rounding error of small ones: float64
        values, left = torch.linalg.eigh((unit @ unit.T).double())
        scales = values.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
        vectors = unit.double().T @ (left * scales)
    # eigh sorts in ascending order, and eigenvalues of 0 may round below it
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    # equal rows have a variance of 0, and the quotient must not be 0/0
    share = values.cumsum(0) / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    rank = min(int((share < explained_variance).sum()) + 1, len(values))
    return scaled_products(unit, vectors[:, :rank].float().T)


def _upper_products(points: torch.Tensor) -> torch.Tensor:
    """Return the products of all pairs of columns (d, d), of which only the upper half is valid."""
    products = points.new_zeros(points.shape[1], points.shape[1])
    for first in range(0, len(products), _STRIP_COLUMNS):
        columns = slice(first, first + _STRIP_COLUMNS)
        torch.mm(points[:, columns].T, points[:, first:], out=products[columns, first:])
    return products


def quantize(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    n_bins: int,
    *,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster two sets of points together and count the members of each cluster in both.

    Args:
        real: (n, d) float32.
        synthetic: (m, d) float32.
        n_bins: Number of clusters.
        seed: Random seed for the start of k-means.

    Returns:
        Counts of the real and the synthetic points, each (n_bins,) int64, with sums n and m.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0]])
        >>> [sorted(counts.tolist()) for counts in quantize(points, points, 2)]
        [[1, 2], [1, 2]]
    """
    labels = kmeans(torch.cat([real, synthetic]), n_bins, seed=seed)
    return (
        torch.bincount(labels[: len(real)], minlength=n_bins),
        torch.bincount(labels[len(real) :], minlength=n_bins),
    )


def kmeans(
    points: torch.Tensor, n_clusters: int, *, max_iterations: int = 300, seed: int = 0
) -> torch.Tensor:
    """Return k-means clusters from a greedy k-means++ start on 20 k random points.

    The start adds one center at a time: of 2 + ⌊ln k⌋ points drawn with probability proportional
    to the squared distance to the nearest center, the one that lowers the inertia most. On the
    released sentiment data this ends at a lower inertia than the best of five runs from plain
    k-means++ starts, in less time. A cluster that loses all its points keeps its center. Memory
    is bounded: distances are computed in blocks of rows.

    Args:
        points: (n, d) float32.
        n_clusters: k, the number of clusters.
        max_iterations: Maximum number of moves of the centers.
        seed: Random seed for the start; the draws are the same on every device.

    Returns:
        (n,) int64 cluster of each point, 0 to k − 1.

    Source:
        Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++, the greedy variant of its section 6).

    Example:
        >>> labels = kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2)
        >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
        (True, False)
    """
    # drawn on the CPU: a GPU's generator would give other clusters, and so another MAUVE
    generator = torch.Generator().manual_seed(seed)
    part = points
    if len(points) > _START_POINTS * n_clusters:
        chosen = torch.randperm(len(points), generator=generator)[: _START_POINTS * n_clusters]
        part = points[chosen.to(points.device)]
    # 2 + ⌊ln k⌋ trials per center, as Arthur and Vassilvitskii and scikit-learn
    draws = torch.rand((n_clusters, 2 + int(math.log(n_clusters))), generator=generator)
    centers = _greedy_start(part, draws.to(points.device))
    square, last = points.square().sum(dtype=torch.float64), math.inf
    for _ in range(max_iterations):
        moved, half_inertia = _lloyd_step(points, centers)
        inertia = float(square + 2 * half_inertia)
        if inertia >= last - _TOLERANCE * float(square):
            break
        centers, last = moved, inertia
    return torch.cat([_half_distances(b, centers).argmin(1) for b in _blocks(points, n_clusters)])


def _greedy_start(points: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Greedy k-means++ from uniform draws (k, trials): centers (k, d)."""
    norms = points.square().sum(1)
    chosen = (draws[0, :1] * len(points)).long()
    centers = [points[chosen]]
    nearest = _square_distances(centers[0], norms[chosen], points, norms)[0]
    for draw in draws[1:]:
        # inverse transform: a uniform draw of the cumulated squared distances picks each point
        # with probability proportional to its own
        total = nearest.cumsum(0)
        # if all points are centers already, every distance is 0 and the draw falls past the end
        tried = torch.searchsorted(total, draw * total[-1], right=True).clamp_max(len(points) - 1)
        distances = _square_distances(points[tried], norms[tried], points, norms)
        remaining = torch.minimum(nearest, distances)
        best = remaining.sum(1).argmin()
        nearest = remaining[best]
        centers.append(points[tried[best]][None])
    return torch.cat(centers)


def _square_distances(
    few: torch.Tensor, few_norms: torch.Tensor, points: torch.Tensor, norms: torch.Tensor
) -> torch.Tensor:
    distances = torch.addmm(norms, few, points.T, alpha=-2) + few_norms[:, None]
    # rounding may leave the distance of a point to itself below 0: not a probability
    return distances.clamp_min_(0)


def _lloyd_step(points: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the moved centers, and half the inertia before the move, less a constant."""
    sums, counts = torch.zeros_like(centers), centers.new_zeros(len(centers))
    # float64: the stopping rule compares sums over all points that differ in their last digits
    half_inertia = torch.zeros((), dtype=torch.float64, device=points.device)
    for block in _blocks(points, len(centers)):
        half, labels = _half_distances(block, centers).min(1)
        sums.index_add_(0, labels, block)
        counts += torch.bincount(labels, minlength=len(centers))
        half_inertia += half.sum(dtype=torch.float64)
    means = sums / counts.clamp_min(1)[:, None]
    return torch.where(counts[:, None] > 0, means, centers), half_inertia


def _blocks(points: torch.Tensor, n_columns: int) -> Iterator[torch.Tensor]:
    """Yield rows in blocks whose distances to `n_columns` centers fit into the memory bound."""
    n_rows = max(1, _BLOCK_ELEMENTS // n_columns)
    return (points[begin : begin + n_rows] for begin in range(0, len(points), n_rows))


def _half_distances(points: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """(n, k): half the squared distance, less half the point's squared norm."""
    # a point's own norm is the same for every center: leaving it out saves a pass over the block
    return torch.addmm(centers.square().sum(1) / 2, points, centers.T, alpha=-1)
