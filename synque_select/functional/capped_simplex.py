"""Projections onto the capped simplex: by sorting, or from a threshold that is nearly right."""

from __future__ import annotations

import torch

__all__ = ["project_from", "project_to_capped_simplex"]

# passes from a threshold that is nearly right; rows that need more are sorted
_MAX_PASSES = 8


def project_to_capped_simplex(point: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Return the nearest point w with 0 ≤ w ≤ upper and Σ w = 1.

    w = clip(point − τ, 0, upper), with τ such that the weights sum to 1.

    Args:
        point: (..., K), any float dtype.
        upper: (..., K) caps on the weights, with a sum of at least 1.

    Returns:
        (..., K) float64.

    Source: Wang and Lu 2015 (arXiv 1503.01002), projection onto the capped simplex by sorting.

    Example:
        >>> project_to_capped_simplex(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.6, 1.0, 1.0]))
        tensor([0.6000, 0.2000, 0.2000], dtype=torch.float64)
    """
    point = point.double()
    upper = upper.double().expand_as(point)
    k = point.shape[-1]
    # Σ clip(point − τ, 0, upper) is Σ upper ≥ 1 below the lowest break, falls linearly between
    # breaks, and is 0 above the highest
    breaks, order = torch.cat([point - upper, point], dim=-1).sort(dim=-1)
    slopes = torch.where(order < k, -1.0, 1.0).to(breaks).cumsum(dim=-1)
    falls = (slopes[..., :-1] * breaks.diff(dim=-1)).cumsum(dim=-1)
    n_above = (upper.sum(dim=-1, keepdim=True) + falls >= 1).sum(dim=-1, keepdim=True)
    low = breaks.gather(-1, n_above.clamp(max=2 * k - 2))
    high = breaks.gather(-1, (n_above + 1).clamp(max=2 * k - 1))
    # solved anew from the weights that are free there: the running sums are only good enough to
    # find the two breaks
    middle = (low + high) / 2
    capped, free = point - upper >= middle, (point - upper < middle) & (middle < point)
    fixed = torch.where(capped, upper, 0.0).sum(dim=-1, keepdim=True)
    of_free = torch.where(free, point, 0.0).sum(dim=-1, keepdim=True)
    n_free = free.sum(dim=-1, keepdim=True)
    threshold = torch.where(n_free > 0, (of_free + fixed - 1) / n_free.clamp(min=1), middle)
    return (point - threshold).clamp(min=0).minimum(upper)


def project_from(
    point: torch.Tensor, upper: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `project_to_capped_simplex` does, and τ, from a guess of τ.

    Newton's method: τ is solved for the weights that are free at the guess, until these are the
    same again. In a descent, the step before gives the guess, and a few passes over the points take
    the place of the sort. Rows whose free weights do not settle are sorted.

    Args:
        point: (P, K) float64.
        upper: (P, K) caps on the weights, with a sum of at least 1.
        threshold: (P, 1) the guess.

    Returns:
        (P, K) weights and (P, 1) thresholds.
    """
    is_settled = torch.zeros_like(threshold, dtype=torch.bool)
    for _ in range(_MAX_PASSES):
        # as in the sorted projection: equal sets give equal numbers
        capped, above = point - upper >= threshold, point > threshold
        free = above & ~capped
        n_free = free.sum(dim=1, keepdim=True)
        fixed = torch.where(capped, upper, 0.0).sum(dim=1, keepdim=True)
        of_free = torch.where(free, point, 0.0).sum(dim=1, keepdim=True)
        moved = (of_free + fixed - 1) / n_free  # not finite without free weights
        is_settled = moved == threshold
        threshold = moved
        if bool(is_settled.all()):
            break
    weights = (point - threshold).clamp(min=0).minimum(upper)
    rest = ~is_settled.squeeze(1)
    if bool(rest.any()):
        weights[rest] = project_to_capped_simplex(point[rest], upper[rest])
        # of the largest weight below its cap; the next guess need not be exact
        free = weights[rest] < upper[rest]
        largest = torch.where(free, weights[rest], -1.0).argmax(dim=1, keepdim=True)
        threshold[rest] = (point[rest] - weights[rest]).gather(1, largest)
    return weights, threshold
