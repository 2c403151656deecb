"""k-medoids in blocks of distances (FasterPAM), and the mean distance to the medoids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synque_select.functional.pairwise import sq_distances

__all__ = ["Medoids", "k_medoids", "mean_distance_to_medoids"]

_BLOCK = 256
_STARTS = 16
# small sets are clustered from several starts: what that costs there is little
_ROWS_OF_ALL_RUNS = 4096
_MOST_RUNS = 8


@dataclass(frozen=True)
class Medoids:
    """A clustering around medoids.

    Args:
        medoids: (k,) positions of the medoids.
        labels: (N,) the nearest medoid of each row, 0 to k − 1.
        distances: (N,) float64 distance to it.
    """

    medoids: torch.Tensor
    labels: torch.Tensor
    distances: torch.Tensor

    @property
    def objective(self) -> float:
        """Sum of the distances."""
        return float(self.distances.sum())


def k_medoids(
    points: torch.Tensor, k: int = 5, *, seed: int = 42, start: torch.Tensor | None = None
) -> Medoids:
    """Cluster around k medoids by Euclidean distance until no swap improves the sum of distances.

    FasterPAM: examples are gone through in their order, and the first that improves the sum as
    one of the medoids replaces the best one to give up; the change is had for all k from one row
    of distances. Rows are computed by matrix products, 256 at a time, and never kept: memory is
    a few blocks of 256 × N.

    Args:
        points: (N, d) float32 or float64, on the device to compute on.
        k: Number of medoids, 1 ≤ k ≤ N.
        seed: Of the starts: each is the best of 16 random choices, and sets of under 4,096 rows
            are clustered from several (up to 8), of which the best result is kept.
        start: (k,) positions to start from instead.

    Source: Schubert and Rousseeuw 2021, algorithm 3 (FasterPAM).

    Example:
        >>> sorted(k_medoids(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2).labels.tolist())
        [0, 0, 1, 1]
    """
    points = points - points.double().mean(0).to(points.dtype)
    starts = _random_starts(points, k, seed) if start is None else [start]
    runs = [_State(points, start) for start in starts]
    if k < len(points):
        for run in runs:
            _swap_until_stable(run)
    medoids = min(runs, key=lambda run: run.objective).medoids
    nearest = _to_medoids(points, medoids).argmin(1)
    centres = points[medoids[nearest]]
    exact = (points.double() - centres.double()).square().sum(1).sqrt()
    return Medoids(medoids, nearest, exact)


def _to_medoids(points: torch.Tensor, medoids: torch.Tensor) -> torch.Tensor:
    return sq_distances(points, points[medoids], refine=True).sqrt_()


def _random_starts(points: torch.Tensor, k: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n_runs = max(1, min(_MOST_RUNS, _ROWS_OF_ALL_RUNS // len(points)))
    return [_best_start(points, k, generator) for _ in range(n_runs)]


def _best_start(points: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    starts = [torch.randperm(len(points), generator=generator)[:k] for _ in range(_STARTS)]
    together = torch.cat(starts).to(points.device)
    distances = _to_medoids(points, together).view(len(points), _STARTS, k)
    best = int(distances.amin(2).sum(0, dtype=torch.float64).argmin())
    return together[best * k : (best + 1) * k]


def _swap_until_stable(state: _State) -> None:
    """Go round the examples until none of them has been swapped in for a whole round."""
    n = len(state.points)
    first, since_swap = 0, 0
    while since_swap < n:
        block = state.points[first : first + _BLOCK]
        distances = sq_distances(block, state.points, right_norms=state.norms).sqrt_()
        offset = 0
        while offset < len(block):
            found = state.first_swap(distances[offset:])
            since_swap += len(block) - offset if found is None else found[0] + 1
            if found is None:
                break
            offset += found[0] + 1
            if state.swap(first + offset - 1, found[1]):
                since_swap = 0
        first = (first + len(block)) % n


class _State:
    """Current medoids with each example's nearest and second nearest distance to them."""

    def __init__(self, points: torch.Tensor, medoids: torch.Tensor) -> None:
        self.points = points
        self.norms = points.square().sum(1)
        self._set(medoids)

    def _set(self, medoids: torch.Tensor) -> None:
        distances = _to_medoids(self.points, medoids)
        if len(medoids) == 1:
            distances = torch.cat((distances, torch.full_like(distances, torch.inf)), 1)
        two = distances.topk(2, dim=1, largest=False)
        self.medoids = medoids
        self.near, self.second = two.values.T.contiguous()
        self.objective = float(self.near.double().sum())
        labels = two.indices[:, 0]
        self.member = torch.nn.functional.one_hot(labels, len(medoids)).to(self.near.dtype)

    def first_swap(self, distances: torch.Tensor) -> tuple[int, int] | None:
        """Return the first row of distances whose example improves the sum, and for which medoid.

        For an example x and a medoid i: Σ_o min(d_xo − near_o, 0) over all o, and over those of i
        the rest of their way, from near_o to d_xo clamped between near_o and second_o.
        """
        gain = torch.minimum(distances, self.near).sum(1) - self.near.sum()
        moved = torch.clamp(distances, self.near, self.second) @ self.member
        change = gain.unsqueeze(1) + (moved - self.near @ self.member)
        best = change.min(1)
        improving = (best.values < 0).nonzero()
        if not len(improving):
            return None
        row = int(improving[0])
        return row, int(best.indices[row])

    def swap(self, example: int, medoid: int) -> bool:
        """Make the example the medoid; False, and nothing changed, if the sum did not fall."""
        before, objective = self.medoids, self.objective
        swapped = before.clone()
        swapped[medoid] = example
        self._set(swapped)
        if self.objective < objective:
            return True
        # the gain was rounding of float32 products: going on with it would never end
        self._set(before)
        return False


def mean_distance_to_medoids(points: torch.Tensor, k: int = 5, *, seed: int = 42) -> float:
    """Mean over the clusters of the mean distance to the medoid; higher is more diverse.

    Args:
        points: (N, d) float32 or float64.
        k: Number of medoids; at most N.
        seed: Of the start of `k_medoids`.

    Source: SynQuE (arXiv 2511.03928), MDM.

    Example:
        >>> mean_distance_to_medoids(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), 2)
        0.5
    """
    clustering = k_medoids(points, min(k, len(points)), seed=seed)
    sums = torch.zeros(len(clustering.medoids), dtype=torch.float64, device=points.device)
    sums.index_add_(0, clustering.labels, clustering.distances)
    counts = torch.bincount(clustering.labels, minlength=len(sums))
    return float((sums[counts > 0] / counts[counts > 0]).mean())
