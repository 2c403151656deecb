"""The gap map: real examples that no candidate covers, and the nearest synthetic ones."""

from __future__ import annotations

import math

import torch

from synque_select.functional.coverage import real_radii
from synque_select.selection.scoring import Scoring
from synque_select.types import Gap

__all__ = ["gap_map"]

_BLOCK = 8192


def gap_map(scoring: Scoring) -> list[Gap]:
    """Find for each real example its nearest synthetic one, the worst covered first.

    A real example is covered if the distance to the nearest synthetic example is at most that to
    its k-th nearest real neighbor, k = min(5, ⌊√n⌋), as in the coverage of Naeem et al. (2020). If
    the real sample has groups, only examples of other groups are neighbors.
    Those that are not covered show what to generate next.

    Args:
        scoring: The result of `score`, with embeddings.

    Returns:
        One entry per real example, sorted by how far the distance exceeds the radius, largest
        first.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    given, *candidates = scoring.embeddings("a gap map")
    real = given.cpu().double()
    k = min(5, math.isqrt(len(real)), len(real) - 1)
    if scoring.groups is not None and scoring.groups.any():
        radius = real_radii(real, k, scoring.groups)
    else:
        # column 0 is the distance of a real example to itself
        radius = torch.cdist(real, real).sort(dim=1).values[:, k]
    nearest = torch.full((len(real),), math.inf, dtype=torch.float64)
    owner = torch.zeros(len(real), dtype=torch.long)
    position = torch.zeros(len(real), dtype=torch.long)
    for number, candidate in enumerate(candidates):
        distance, at = _nearest(real, candidate)
        closer = distance < nearest
        owner[closer], position[closer] = number, at[closer]
        nearest = torch.minimum(nearest, distance)
    gaps = [
        Gap(
            i, scoring.candidates[int(owner[i])].name, int(position[i]), float(nearest[i]), float(r)
        )
        for i, r in enumerate(radius)
    ]
    return sorted(gaps, key=lambda gap: gap.distance - gap.radius, reverse=True)


def _nearest(real: torch.Tensor, synthetic: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.full((len(real),), math.inf, dtype=torch.float64)
    where = torch.zeros(len(real), dtype=torch.long)
    for start in range(0, len(synthetic), _BLOCK):
        # in blocks: the distances to a large candidate would not fit in memory at once
        block = synthetic[start : start + _BLOCK].cpu().double()
        value, at = torch.cdist(real, block).min(dim=1)
        closer = value < best
        best = torch.minimum(best, value)
        where[closer] = at[closer] + start
    return best, where
