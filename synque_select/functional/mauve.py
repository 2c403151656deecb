"""MAUVE: how much of two samples' distributions overlaps, after a joint quantisation.

Written from the papers: Pillutla et al. 2021 (arXiv 2102.01454) and Pillutla et al. 2023 (JMLR,
arXiv 2212.14578).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = [
    "default_n_bins",
    "divergence_frontier",
    "frontier_area",
    "kmeans",
    "mauve",
    "mauve_from_counts",
    "project_to_variance",
    "quantise",
]

_BLOCK_ELEMENTS = 2**24
_START_POINTS = 10  # a cluster: how many points the starts of k-means are tried on
_TOLERANCE = 1e-4  # of the total square: how little k-means still gains it rests


def mauve(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    *,
    n_bins: int | None = None,
    scale: float = 5.0,
    smoothing: float = 0.0,
    explained_variance: float = 0.9,
    n_restarts: int = 5,
    seed: int = 0,
) -> torch.Tensor:
    """Return MAUVE of two sets of embeddings, from one quantisation.

    Rows are brought to unit length, projected on the principal components that hold 90 % of the
    joint variance, and clustered together by k-means; P and Q are the shares of the real and the
    synthetic rows in each cluster. With R = t P + (1 − t) Q, MAUVE is the area under the curve
    of (exp(−c KL(Q|R)), exp(−c KL(P|R))), t in (0, 1), c = 5.

    Args:
        real: (n, d), any float type.
        synthetic: (m, d).
        n_bins: Number of clusters; None for max(2, round(min(n, m) / 10)).
        scale: c; it changes the values and hardly the order.
        smoothing: Added to each bin's count on both sides; 0.5 (Krichevsky-Trofimov) is
            `mauve_star`.
        explained_variance: Share of the joint variance that the projection keeps.
        n_restarts: k-means starts (k-means++); the one with the least inertia counts.
        seed: Seed of the starts.

    Returns:
        A float64 scalar in (0, 1]; higher is better, 1 for equal histograms.

    Source:
        arXiv 2102.01454, equations 1 and 2 and section 3; smoothing: arXiv 2212.14578, add-b
        estimators.

    Example:
        >>> real = torch.eye(4).repeat(10, 1)
        >>> float(mauve(real, real))
        1.0
        >>> bool(mauve(real, -real, n_bins=8) < 0.01)
        True
    """
    points = project_to_variance(torch.cat([real, synthetic]), explained_variance)
    bins = n_bins or default_n_bins(len(real), len(synthetic))
    real_counts, synthetic_counts = quantise(
        points[: len(real)], points[len(real) :], bins, n_restarts=n_restarts, seed=seed
    )
    return mauve_from_counts(real_counts, synthetic_counts, scale=scale, smoothing=smoothing)


def default_n_bins(n_real: int, n_synthetic: int) -> int:
    """Return max(2, round(min(n, m) / 10)).

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
        real_counts: (k,) counts.
        synthetic_counts: (k,) counts.
        scale: c of the divergence frontier.
        smoothing: Added to every count.

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
    """Return the divergence curve of two histograms, its two ends included.

    Args:
        p: (k,) float64, sums to 1.
        q: (k,) float64, sums to 1.
        scale: c.
        n_points: The mixture weights are t = i / n_points, 0 < i < n_points.

    Returns:
        exp(−c KL(Q|R_t)) and exp(−c KL(P|R_t)), each (n_points + 1,): from (1, 0) to (0, 1).

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
    one, zero = x.new_ones(1), x.new_zeros(1)
    return torch.cat([one, x, zero]), torch.cat([zero, y, one])


def _kl(p: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    # xlogy gives 0 where p is 0; r is positive wherever p is, as it is a mixture with p in it
    positive = p > 0
    p, r = p[positive], r[..., positive]
    # a sum that is 0 in exact arithmetic may round below 0
    return (p * (p / r).log()).sum(-1).clamp_min(0)


def frontier_area(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the area under a falling curve by the trapezoid rule; equal with x and y exchanged.

    Args:
        x: (n,) from 1 down to 0.
        y: (n,) from 0 up to 1.

    Example:
        >>> float(frontier_area(torch.tensor([1.0, 0]), torch.tensor([0.0, 1])))
        0.5
    """
    area: torch.Tensor = ((x[:-1] - x[1:]) * (y[:-1] + y[1:])).sum() / 2
    return area


def project_to_variance(points: torch.Tensor, explained_variance: float = 0.9) -> torch.Tensor:
    """Return rows of unit length, centred, in the fewest principal components that hold enough.

    Args:
        points: (n, d), any float type; a row of zeros stays one.
        explained_variance: Share of the variance to keep.

    Returns:
        (n, r) float32, at least one column.

    Example:
        >>> project_to_variance(torch.tensor([[1.0, 0, 0], [0, 2, 0], [3, 0, 0]])).shape
        torch.Size([3, 1])
    """
    unit = torch.nn.functional.normalize(points.float(), dim=1)
    unit = unit - unit.mean(0)
    # the smaller of the covariance and the Gram matrix; both have the same spectrum
    if unit.shape[0] >= unit.shape[1]:
        values, vectors = torch.linalg.eigh((unit.T @ unit).double())
    else:
        values, left = torch.linalg.eigh((unit @ unit.T).double())
        scales = values.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
        vectors = unit.double().T @ (left * scales)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values.cumsum(0) / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    rank = min(int((share < explained_variance).sum()) + 1, len(values))
    return unit @ vectors[:, :rank].float()


def quantise(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    n_bins: int,
    *,
    n_restarts: int = 5,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster two sets of points together and count each one's members of every cluster.

    Args:
        real: (n, d) float32.
        synthetic: (m, d) float32.
        n_bins: Number of clusters.
        n_restarts: k-means starts.
        seed: Seed of the starts.

    Returns:
        Two vectors of counts, (n_bins,) int64, with sums n and m.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0]])
        >>> [sorted(counts.tolist()) for counts in quantise(points, points, 2)]
        [[1, 2], [1, 2]]
    """
    labels = kmeans(torch.cat([real, synthetic]), n_bins, n_restarts=n_restarts, seed=seed)
    return (
        torch.bincount(labels[: len(real)], minlength=n_bins),
        torch.bincount(labels[len(real) :], minlength=n_bins),
    )


def kmeans(
    points: torch.Tensor,
    n_clusters: int,
    *,
    n_restarts: int = 5,
    max_iterations: int = 300,
    seed: int = 0,
) -> torch.Tensor:
    """Return the clusters of k-means that starts from the best of several smaller runs.

    The runs work as one batch on the same 10 k random points, from k-means++ until their inertia
    stops falling; the centres of the run with the least inertia are then moved on all points. A
    cluster that loses all its points keeps its centre. Memory is bounded: distances are taken in
    blocks of rows.

    Args:
        points: (n, d) float32.
        n_clusters: k.
        n_restarts: Number of smaller runs.
        max_iterations: Of each run.
        seed: Seed of the points and the starts; the same draws on every device.

    Returns:
        (n,) int64 cluster of each point.

    Source:
        Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++); Bradley and Fayyad 1998 (starts
        refined on a subsample).

    Example:
        >>> labels = kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2)
        >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
        (True, False)
    """
    generator = torch.Generator().manual_seed(seed)
    part = points
    if len(points) > _START_POINTS * n_clusters:
        chosen = torch.randperm(len(points), generator=generator)[: _START_POINTS * n_clusters]
        part = points[chosen.to(points.device)]
    draws = torch.rand((n_clusters, n_restarts), generator=generator, dtype=torch.float64)
    starts, inertia = _lloyd(part, _start(part, draws.to(points.device)), max_iterations)
    best = starts[int(inertia.argmin())][None]
    centres = _lloyd(points, best, max_iterations)[0][0]
    blocks = _blocks(points, n_clusters)
    return torch.cat([_half_distances(block, centres).argmin(1) for block in blocks])


def _start(points: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """k-means++ for all runs at once, by uniform draws (k, n_runs): (n_runs, k, d)."""
    norms = points.square().sum(1)
    chosen = (draws[0] * len(points)).long()
    nearest = norms.new_full((draws.shape[1], len(points)), torch.inf)
    centres = [points[chosen]]
    for draw in draws[1:]:
        distances = torch.addmm(norms, centres[-1], points.T, alpha=-2) + norms[chosen][:, None]
        nearest = torch.minimum(nearest, distances.clamp_min_(0))
        total = nearest.cumsum(1)
        target = draw[:, None].float() * total[:, -1:]
        # where all points are centres already, the draw falls behind the last one
        chosen = torch.searchsorted(total, target, right=True)[:, 0].clamp_max(len(points) - 1)
        centres.append(points[chosen])
    return torch.stack(centres, dim=1)


def _lloyd(
    points: torch.Tensor, centres: torch.Tensor, max_iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the centres (n_runs, k, d) until no run's inertia (n_runs,) falls any more."""
    square = points.square().sum(dtype=torch.float64)
    last = square.new_full((len(centres),), torch.inf)
    for _ in range(max_iterations):
        moved, half = _lloyd_step(points, centres)
        inertia = square + 2 * half
        if bool((inertia >= last - _TOLERANCE * square).all()):
            break
        centres, last = moved, inertia
    return centres, last


def _lloyd_step(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Assign the points of every run and move its centres; the half inertia before the move."""
    n_runs, k, d = centres.shape
    flat = centres.reshape(n_runs * k, d)
    sums, counts = torch.zeros_like(centres), centres.new_zeros((n_runs, k))
    inertia = torch.zeros(n_runs, dtype=torch.float64, device=points.device)
    for block in _blocks(points, n_runs * k):
        half, labels = _half_distances(block, flat).view(len(block), n_runs, k).min(2)
        for run, label in enumerate(labels.T):
            sums[run].index_add_(0, label, block)
            counts[run] += torch.bincount(label, minlength=k)
        inertia += half.sum(0, dtype=torch.float64)
    means = sums / counts.clamp_min(1)[..., None]
    return torch.where(counts[..., None] > 0, means, centres), inertia


def _blocks(points: torch.Tensor, n_columns: int) -> Iterator[torch.Tensor]:
    """Rows in blocks whose distances to that many centres fit into the bound of memory."""
    n_rows = max(1, _BLOCK_ELEMENTS // n_columns)
    return (points[begin : begin + n_rows] for begin in range(0, len(points), n_rows))


def _half_distances(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(n, k): half the squared distance, less half the point's squared norm."""
    return torch.addmm(centres.square().sum(1) / 2, points, centres.T, alpha=-1)
