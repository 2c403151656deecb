"""k-medoids in blocks of distances (FasterPAM), and the mean distance to the medoids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synque_select.functional.pairwise import sq_distances

__all__ = ["Medoids", "k_medoids", "mean_distance_to_medoids"]

_BLOCK = 256
_AHEAD = 16
_STARTS = 16
# a change of the sum by this share of it is rounding of float32
_ROUNDING = 1e-7
# small sets are clustered from several starts: what that costs there is little
_ROWS_OF_ALL_RUNS = 1024
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
        seed: Of the starts: each is the best of 16 random choices, and sets of up to 512
            rows are clustered from several (up to 8), of which the best result is kept.
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
    nearest = sq_distances(points, points[medoids], refine=True).argmin(1)
    centres = points[medoids[nearest]]
    exact = (points.double() - centres.double()).square().sum(1).sqrt()
    return Medoids(medoids, nearest, exact)


def _random_starts(points: torch.Tensor, k: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n_runs = max(1, min(_MOST_RUNS, _ROWS_OF_ALL_RUNS // len(points)))
    return [_best_start(points, k, generator) for _ in range(n_runs)]


def _best_start(points: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    starts = [torch.randperm(len(points), generator=generator)[:k] for _ in range(_STARTS)]
    together = torch.cat(starts).to(points.device)
    distances = sq_distances(points, points[together]).sqrt_().view(len(points), _STARTS, k)
    best = int(distances.amin(2).sum(0, dtype=torch.float64).argmin())
    return together[best * k : (best + 1) * k]


def _swap_until_stable(state: _State) -> None:
    """Go round the examples until none of them has been swapped in for a whole round."""
    n = len(state.points)
    first, since_swap = 0, 0
    while since_swap < n:
        block = state.points[first : first + _BLOCK]
        distances = sq_distances(block, state.points, right_norms=state.norms).sqrt_()
        offset, n_ahead = 0, _AHEAD
        while offset < len(block):
            found = state.first_swap(distances[offset : offset + n_ahead])
            if found is None:
                passed, n_ahead = min(n_ahead, len(block) - offset), 2 * n_ahead
            else:
                # what was looked at further ahead is void after a swap: look less far
                passed, n_ahead = found[0] + 1, _AHEAD
            offset, since_swap = offset + passed, since_swap + passed
            if found is not None and state.swap(
                first + offset - 1, found[1], distances[offset - 1]
            ):
                since_swap = 0
        first = (first + len(block)) % n


class _State:
    """Current medoids with each example's distances to them, nearest and second nearest."""

    def __init__(self, points: torch.Tensor, medoids: torch.Tensor) -> None:
        self.points = points
        self.norms = points.square().sum(1)
        self.medoids = medoids
        self._set(sq_distances(points, points[medoids]).sqrt_())

    def _set(self, columns: torch.Tensor) -> None:
        """Take the distances (N, k) to the medoids."""
        self.columns = columns
        if columns.shape[1] == 1:
            columns = torch.cat((columns, torch.full_like(columns, torch.inf)), 1)
        two = columns.topk(2, dim=1, largest=False)
        self.near, self.second = two.values.T.contiguous()
        self.objective = float(self.near.double().sum())
        labels = two.indices[:, 0]
        self.member = torch.nn.functional.one_hot(labels, len(self.medoids)).to(self.near.dtype)
        self.sums = self.near @ self.member

    def first_swap(self, distances: torch.Tensor) -> tuple[int, int] | None:
        """Return the first row of distances whose example improves the sum, and for which medoid.

        For an example x and a medoid i: Σ_o min(d_xo − near_o, 0) over all o, and over those of i
        the rest of their way, from near_o to d_xo clamped between near_o and second_o.
        """
        gain = torch.minimum(distances, self.near).sum(1) - self.near.sum()
        moved = torch.clamp(distances, self.near, self.second) @ self.member
        best = (gain.unsqueeze(1) + (moved - self.sums)).min(1)
        improving = (best.values < -_ROUNDING * self.objective).nonzero()
        if not len(improving):
            return None
        row = int(improving[0])
        return row, int(best.indices[row])

    def swap(self, example: int, medoid: int, distances: torch.Tensor) -> bool:
        """Make the example the medoid; False, and nothing changed, if the sum did not fall.

        A gain that is rounding of float32 sums must not count, or the search might never end.
        """
        before, objective = (self.medoids, self.columns), self.objective
        self.medoids = self.medoids.clone()
        self.medoids[medoid] = example
        columns = self.columns.clone()
        columns[:, medoid] = distances
        self._set(columns)
        if self.objective < objective:
            return True
        self.medoids = before[0]
        self._set(before[1])
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
