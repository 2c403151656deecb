"""Whether synthetic examples lie nearer to real ones than a random real example does."""

from __future__ import annotations

import torch

from synque_select.functional.coverage import coverage_distances, expected_minimum, order_weights
from synque_select.functional.pairwise import sq_distances

__all__ = ["distance_excess"]


def distance_excess(
    real: torch.Tensor, synthetic: torch.Tensor, groups: torch.Tensor | None = None
) -> torch.Tensor:
    """Distance to the nearest synthetic example, less the middle of what real examples offer.

    e_i = d_m(x_i, synthetic) − ½ (d_m(x_i, real) + d_1(x_i, real)), with d_m the expected distance
    to the nearest of m random examples (`coverage_distances`) and m the size of the smaller side.
    So −½ (d_1 − d_m) means as near as m other real examples come, and +½ (d_1 − d_m) no nearer than
    a single random one.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d) any float dtype; read in blocks.
        groups: (n,) int64, group of each real example; the others of its group are not compared
            with it. None if each is a group of its own.

    Returns:
        (n,) float64 in units of the distance, lower is nearer; NaN if there is only one group.

    Source: this library.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [3.0]])
        >>> distance_excess(real, real + 0.5).mean() < 0 < distance_excess(real, real + 50).mean()
        tensor(True)
    """
    n = len(real)
    numbers = torch.arange(n) if groups is None else groups
    numbers = numbers.to(real.device)
    is_other = numbers[:, None] != numbers[None, :]
    n_others = is_other.sum(dim=1)
    m = min(int(n_others.min()), len(synthetic))
    if m == 0:
        return torch.full((n,), torch.nan, dtype=torch.float64, device=real.device)
    distances = sq_distances(real, real).double().clamp(min=0).sqrt()
    ordered = distances.masked_fill(~is_other, torch.inf).sort(dim=1).values
    nearest = torch.empty(n, dtype=torch.float64, device=real.device)
    for size in sorted(set(n_others.tolist())):
        # without groups, all real examples have n − 1 others
        rows = n_others == size
        weights = order_weights(size, m)
        nearest[rows] = expected_minimum(ordered[rows][:, : len(weights)], weights)
    random = (distances * is_other).sum(dim=1) / n_others
    return coverage_distances(real, synthetic, m) - (nearest + random) / 2
