"""k-medoids in blocks of distances (FasterPAM), and the mean distance to the medoids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synque_select.functional.pairwise import sq_distances

__all__ = ["Medoids", "k_medoids", "mean_distance_to_medoids"]

_BLOCK = 512
_STARTS = 16


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


def k_medoids(points: torch.Tensor, k: int = 5, *, seed: int = 42) -> Medoids:
    """Cluster around k medoids by Euclidean distance until no swap improves the sum of distances.

    FasterPAM: the change that a swap (medoid out, example in) makes is had for all k medoids
    from one row of distances. Here a block of rows is evaluated at once by matrix products and
    the block's best swap is made at once if it improves. Rows of distances are recomputed, never
    kept: memory is one block, 512 × N.

    Args:
        points: (N, d) float32 or float64, on the device to compute on.
        k: Number of medoids, 1 ≤ k ≤ N.
        seed: Of the start: the best of 16 random choices.

    Source: Schubert and Rousseeuw 2021, algorithm 3 (FasterPAM).

    Example:
        >>> sorted(k_medoids(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2).labels.tolist())
        [0, 0, 1, 1]
    """
    points = points - points.double().mean(0).to(points.dtype)
    medoids = _start(points, k, seed)
    if k < len(points):
        medoids = _swap_until_stable(points, medoids)
    nearest = _to_medoids(points, medoids).min(1)
    exact = (points.double() - points[medoids[nearest.indices]].double()).square().sum(1).sqrt()
    return Medoids(medoids, nearest.indices, exact)


def _to_medoids(points: torch.Tensor, medoids: torch.Tensor) -> torch.Tensor:
    return sq_distances(points, points[medoids], refine=True).sqrt_()


def _start(points: torch.Tensor, k: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.stack(
        [torch.randperm(len(points), generator=generator)[:k] for _ in range(_STARTS)]
    ).to(points.device)
    costs = [_to_medoids(points, start).min(1).values.double().sum() for start in starts]
    return starts[int(torch.stack(costs).argmin())]


def _swap_until_stable(points: torch.Tensor, medoids: torch.Tensor) -> torch.Tensor:
    """Go round the blocks of examples until a whole round has brought no swap."""
    starts = range(0, len(points), _BLOCK)
    state = _State(points, medoids)
    since_swap = 0
    while True:
        for start in starts:
            since_swap = 0 if state.try_block(start) else since_swap + 1
            if since_swap >= len(starts):
                return state.medoids


class _State:
    """Current medoids with each example's nearest and second nearest distance to them."""

    def __init__(self, points: torch.Tensor, medoids: torch.Tensor) -> None:
        self.points = points
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

    def try_block(self, start: int) -> bool:
        """Make the best swap that brings in an example of the block; False if none improves."""
        block = self.points[start : start + _BLOCK]
        change = self._change(sq_distances(block, self.points).sqrt_())
        example, medoid = divmod(int(change.argmin()), len(self.medoids))
        if not float(change[example, medoid]) < 0:
            return False
        before, objective = self.medoids, self.objective
        swapped = before.clone()
        swapped[medoid] = start + example
        self._set(swapped)
        if self.objective < objective:
            return True
        # the gain was rounding of float32 products: going on with it would never end
        self._set(before)
        return False

    def _change(self, distances: torch.Tensor) -> torch.Tensor:
        """Change of the objective, (block, k): in comes the row's example, out the medoid."""
        gain = torch.minimum(distances, self.near).sub_(self.near).sum(1, dtype=torch.float64)
        if len(self.medoids) == 1:
            loss = (distances.maximum(self.near) - self.near).sum(1, dtype=torch.float64)
            return (gain + loss).unsqueeze(1)
        moved = torch.maximum(distances, self.near)
        moved = torch.minimum(moved, self.second).sub_(self.near)
        return gain.unsqueeze(1) + (moved @ self.member).double()


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
