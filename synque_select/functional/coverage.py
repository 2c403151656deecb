"""Is each real example near a synthetic one: nearest distances, k-NN density and coverage."""

from __future__ import annotations

import math

import numpy as np
import torch

from synque_select.functional.pairwise import nearest_distances

__all__ = ["coverage_distances", "expected_minimum", "order_weights"]

# weight of the order statistics that are not computed; their share of the result is reported below
_TAIL = 1e-12


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
