"""k-medoids clustering in blocks of distances (FasterPAM), and the mean distance to medoids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synque_select.functional.pairwise import sq_distances

__all__ = ["Medoids", "k_medoids", "mean_distance_to_medoids"]

# rows of distances computed by one matrix product
_BLOCK = 256
# rows examined at once after a swap: a later swap in the same batch makes the rest void
_AHEAD = 16
# blocks that are kept for the next round and the next start, if they are all blocks of the set
_KEPT_BLOCKS = 8
# random choices of which the best becomes a start
_STARTS = 16
# a relative change of the sum below this is float32 rounding
_ROUNDING = 1e-7
# small sets are clustered from several starts, which costs little there: runs × rows at most
_ROWS_OF_ALL_RUNS = 1024
_MAX_RUNS = 8


@dataclass(frozen=True)
class Medoids:
    """A clustering around medoids.

    Args:
        medoids: (k,) int64 row numbers of the medoids.
        labels: (N,) int64 nearest medoid of each row, 0 to k − 1.
        distances: (N,) float64 Euclidean distance to that medoid.
    """

    medoids: torch.Tensor
    labels: torch.Tensor
    distances: torch.Tensor

    @property
    def objective(self) -> float:
        """Sum of the distances, which the clustering minimizes."""
        return float(self.distances.sum())


def k_medoids(
    points: torch.Tensor, k: int = 5, *, seed: int = 42, start: torch.Tensor | None = None
) -> Medoids:
    """Cluster around k medoids by Euclidean distance until no swap lowers the sum of distances.

    FasterPAM: rows are visited in their order; the first that lowers the sum as a medoid replaces
    the medoid whose removal costs least. One row of distances gives the change for all k medoids.
    Distances are computed by matrix products, 256 rows at a time, and kept only for sets of up to
    2,048 rows: memory is up to 8 blocks of 256 × N.

    Args:
        points: (N, d) float32 or float64, on the device to compute on.
        k: Number of medoids, 1 ≤ k ≤ N.
        seed: Random seed for the starts. Each start is the best of 16 random choices; sets of up
            to 512 rows are clustered from several starts (up to 8), and the best result is kept.
        start: (k,) int64 row numbers to start from instead.

    Source: Schubert and Rousseeuw 2021, Information Systems 101, algorithm 3 (FasterPAM).

    Example:
        >>> sorted(k_medoids(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2).labels.tolist())
        [0, 0, 1, 1]
    """
    # distances do not change, but float32 products of rows far from the origin would cancel
    points = points - points.double().mean(0).to(points.dtype)
    starts = _random_starts(points, k, seed) if start is None else [start]
    rows = _Distances(points)
    runs = [_State(points, start) for start in starts]
    if k < len(points):
        for run in runs:
            _swap_until_stable(run, rows)
    medoids = min(runs, key=lambda run: run.objective).medoids
    # the search runs on approximate float32 distances; those that are reported are computed from
    # differences in float64
    nearest = sq_distances(points, points[medoids], refine=True).argmin(1)
    centers = points[medoids[nearest]]
    exact = (points.double() - centers.double()).square().sum(1).sqrt()
    return Medoids(medoids, nearest, exact)


def _random_starts(points: torch.Tensor, k: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # swaps end in a local optimum; in small sets it depends on the start, and the mean distance
    # of a candidate should not
    n_runs = max(1, min(_MAX_RUNS, _ROWS_OF_ALL_RUNS // len(points)))
    return [_best_start(points, k, generator) for _ in range(n_runs)]


def _best_start(points: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    starts = [torch.randperm(len(points), generator=generator)[:k] for _ in range(_STARTS)]
    # all 16 choices by one matrix product; the best of them saves many swaps, which cost more
    all_starts = torch.cat(starts).to(points.device)
    distances = sq_distances(points, points[all_starts]).sqrt_().view(len(points), _STARTS, k)
    best = int(distances.amin(2).sum(0, dtype=torch.float64).argmin())
    return all_starts[best * k : (best + 1) * k]


class _Distances:
    """Distances of blocks of rows to all rows."""

    def __init__(self, points: torch.Tensor) -> None:
        self.points, self.norms = points, points.square().sum(1)
        self._kept: dict[int, torch.Tensor] = {}

    def block(self, first: int) -> torch.Tensor:
        """Return the distances (256 at most, N) of the rows from `first` on."""
        if first in self._kept:
            return self._kept[first]
        rows = self.points[first : first + _BLOCK]
        distances = sq_distances(rows, self.points, right_norms=self.norms).sqrt_()
        if len(self.points) <= _KEPT_BLOCKS * _BLOCK:
            self._kept[first] = distances
        return distances


def _swap_until_stable(state: _State, rows: _Distances) -> None:
    """Visit the rows in turn until a whole round passes without a swap."""
    n = len(rows.points)
    first, since_swap = 0, 0
    while since_swap < n:
        distances = rows.block(first)
        n_block = len(distances)
        offset, n_ahead = 0, _AHEAD
        while offset < n_block:
            swap = state.first_swap(distances[offset : offset + n_ahead])
            if swap is None:
                # towards the end swaps are rare: examine twice as many rows at once
                passed, n_ahead = min(n_ahead, n_block - offset), 2 * n_ahead
            else:
                # the rows behind it were evaluated with the old medoids: start small again
                passed, n_ahead = swap[0] + 1, _AHEAD
            offset, since_swap = offset + passed, since_swap + passed
            if swap is not None and state.swap(first + offset - 1, swap[1], distances[offset - 1]):
                since_swap = 0
        first = (first + n_block) % n


class _State:
    """Current medoids, each row's distances to them, and its nearest and second nearest."""

    def __init__(self, points: torch.Tensor, medoids: torch.Tensor) -> None:
        self.medoids = medoids
        self._set(sq_distances(points, points[medoids]).sqrt_())

    def _set(self, columns: torch.Tensor) -> None:
        """Store the distances (N, k) to the medoids and what follows from them."""
        self.columns = columns
        # a single medoid has no second nearest beside it: whatever replaces it takes all rows
        if columns.shape[1] == 1:
            columns = torch.cat((columns, torch.full_like(columns, torch.inf)), 1)
        two = columns.topk(2, dim=1, largest=False)
        self.near, self.second = two.values.T.contiguous()
        self.objective = float(self.near.double().sum())
        labels = two.indices[:, 0]
        # one-hot, so that sums per medoid are matrix products, for many rows at once
        self.member = torch.nn.functional.one_hot(labels, len(self.medoids)).to(self.near.dtype)
        self.sums = self.near @ self.member

    def first_swap(self, distances: torch.Tensor) -> tuple[int, int] | None:
        """Return the first row whose example lowers the sum as a medoid, and the one it replaces.

        The change of the sum if example x replaces medoid i is Σ_o min(d_xo − near_o, 0) over all
        o, plus Σ_o (clamp(d_xo, near_o, second_o) − near_o) over the members o of i.
        """
        # the part that does not depend on i: what x takes from other clusters
        gain = torch.minimum(distances, self.near).sum(1) - self.near.sum()
        # the part of i's own members: each goes to x or to its second nearest medoid
        moved = torch.clamp(distances, self.near, self.second) @ self.member
        best = (gain.unsqueeze(1) + (moved - self.sums)).min(1)
        improving = (best.values < -_ROUNDING * self.objective).nonzero()
        if not len(improving):
            return None
        row = int(improving[0])
        return row, int(best.indices[row])

    def swap(self, example: int, medoid: int, distances: torch.Tensor) -> bool:
        """Replace the medoid by the example; return False and restore if the sum did not fall."""
        # a gain predicted from float32 sums may be rounding; accepted, it could be undone and
        # repeated for ever. The float64 sum decides
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
    """Return the mean over clusters of the mean distance to the medoid; higher is more diverse.

    Args:
        points: (N, d) float32 or float64.
        k: Number of medoids; N if there are fewer rows.
        seed: Random seed for the starts of `k_medoids`.

    Returns:
        Mean Euclidean distance, at least 0.

    Source: SynQuE (arXiv 2511.03928), MDM.

    Example:
        >>> mean_distance_to_medoids(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), 2)
        0.5
    """
    clustering = k_medoids(points, min(k, len(points)), seed=seed)
    sums = torch.zeros(len(clustering.medoids), dtype=torch.float64, device=points.device)
    sums.index_add_(0, clustering.labels, clustering.distances)
    counts = torch.bincount(clustering.labels, minlength=len(sums))
    # two medoids at the same point leave one of them without members
    return float((sums[counts > 0] / counts[counts > 0]).mean())
