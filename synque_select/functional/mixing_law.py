"""Linear mixing laws: how much each loss falls with the weights of a mixture, and what follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError

__all__ = [
    "exponentiated_gradient",
    "fit_linear_law",
    "law_gradient",
    "normalized_law",
    "perturbation_mixtures",
]


def perturbation_mixtures(n_candidates: int, focus: float) -> NDArray[np.float64]:
    r"""Return the mixtures that are trained on to fit the law: each favors one candidate.

    .. math:: p^{(j)}_j = f, \quad p^{(j)}_i = (1 - f) / (K - 1) \text{ for } i \ne j

    Args:
        n_candidates: Number K of candidates, at least 2.
        focus: Weight f of the favored candidate, above 1/K and at most 1.

    Returns:
        (K, K) float64, one mixture per row; its rank is K.

    Raises:
        ConfigError: An argument is not allowed.

    Source:
        Chen et al., "Aioli: A unified optimization framework for language model data mixing", 2024
        (arXiv 2411.05735), LearnParams; `one_hot_factor` of its code.

    Example:
        >>> perturbation_mixtures(3, 0.5).tolist()
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    if n_candidates < 2:
        raise ConfigError(f"n_candidates={n_candidates}: allowed is 2 or more")
    if not 1 / n_candidates < focus <= 1:
        raise ConfigError(f"focus={focus}: allowed is above 1/{n_candidates} and at most 1")
    mixtures = np.full((n_candidates, n_candidates), (1 - focus) / (n_candidates - 1))
    np.fill_diagonal(mixtures, focus)
    return mixtures


def fit_linear_law(mixtures: ArrayLike, drops: ArrayLike) -> NDArray[np.float64]:
    r"""Fit the linear mixing law to short trainings on known mixtures.

    .. math:: L_i^{\text{before}} - L_i^{\text{after}} = \sum_j A_{ij} p_j

    With K mixtures this is the solution of a linear system, as published; with more, the least
    squares.

    Args:
        mixtures: (m, K) mixtures that were trained on, with m at least K and rank K.
        drops: (m, L) how much each of L losses fell in each training.

    Returns:
        (L, K) float64 law A; entry (i, j) is how much loss i falls in training on j alone.

    Raises:
        ConfigError: The shapes do not fit, a value is not finite, or the mixtures do not determine
            the law.

    Source:
        Chen et al. 2024, section 3 (the linear dynamic mixing law) and LearnParams.

    Example:
        >>> law = [[2.0, 1.0], [0.0, 1.0]]
        >>> mixtures = perturbation_mixtures(2, 0.75)
        >>> fit_linear_law(mixtures, mixtures @ np.transpose(law)).round(6).tolist()
        [[2.0, 1.0], [0.0, 1.0]]
    """
    p, fallen = np.asarray(mixtures, dtype=np.float64), np.asarray(drops, dtype=np.float64)
    if p.ndim != 2 or fallen.ndim != 2 or len(p) != len(fallen):
        raise ConfigError(
            f"mixtures and drops have shapes {p.shape} and {fallen.shape}: allowed is a row of "
            "each per training"
        )
    if not (np.isfinite(p).all() and np.isfinite(fallen).all()):
        raise ConfigError("mixtures and drops: allowed are finite numbers")
    law, _, rank, _ = np.linalg.lstsq(p, fallen, rcond=1e-9)
    if rank < p.shape[1]:
        raise ConfigError(
            f"mixtures of shape {p.shape} and rank {rank} do not determine the law: allowed is a "
            "rank that is the number of candidates"
        )
    return np.asarray(law.T)


def normalized_law(law: ArrayLike) -> NDArray[np.float64]:
    """Return a law with entries of at least 0 that sum to 1, so that its scale does not matter.

    The least entry is subtracted if it is negative, and all are divided by their sum.

    Args:
        law: (L, K) law.

    Returns:
        (L, K) float64; equal entries if all are equal.

    Source:
        Chen et al. 2024, Algorithm 1; `aioli_normalize_A` of its code.

    Example:
        >>> normalized_law([[1.0, -1.0], [0.0, 0.0]]).tolist()
        [[0.5, 0.0], [0.25, 0.25]]
    """
    shifted = np.asarray(law, dtype=np.float64)
    shifted = shifted - min(0.0, float(shifted.min()))
    total = float(shifted.sum())
    return shifted / total if total > 0 else np.full(shifted.shape, 1 / shifted.size)


def law_gradient(law: ArrayLike) -> NDArray[np.float64]:
    r"""Return how much the sum of the losses falls with each weight: :math:`\sum_i A_{ij}`.

    Example:
        >>> law_gradient([[0.5, 0.0], [0.25, 0.25]]).tolist()
        [0.75, 0.25]
    """
    return np.asarray(np.asarray(law, dtype=np.float64).sum(axis=0))


def exponentiated_gradient(
    weights: ArrayLike, gradient: ArrayLike, rate: float
) -> NDArray[np.float64]:
    r"""Take one step of exponentiated gradient ascent on the simplex.

    .. math:: p_j \leftarrow p_j \exp(\eta g_j) / \sum_k p_k \exp(\eta g_k)

    Args:
        weights: (K,) weights of at least 0 with a positive sum.
        gradient: (K,) finite gradient g of what is to grow, such as how much the losses fall.
        rate: Step size η, at least 0.

    Returns:
        (K,) float64 weights, which sum to 1; a weight of 0 stays 0.

    Raises:
        ConfigError: The arguments differ in shape, or a value is not allowed.

    Source:
        Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear predictors",
        Information and Computation 1997; Chen et al. 2024, Algorithm 1.

    Example:
        >>> exponentiated_gradient([0.5, 0.5], [np.log(3), 0.0], 1.0).round(6).tolist()
        [0.75, 0.25]
    """
    p, g = np.asarray(weights, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    if p.shape != g.shape or p.ndim != 1:
        raise ConfigError(
            f"weights and gradient have shapes {p.shape} and {g.shape}: allowed is one value of "
            "each per candidate"
        )
    if not (np.isfinite(p).all() and (p >= 0).all() and p.sum() > 0 and np.isfinite(g).all()):
        raise ConfigError("weights: allowed are numbers from 0, not all 0; gradient: finite ones")
    if not rate >= 0:
        raise ConfigError(f"rate={rate}: allowed is 0 or more")
    step = rate * g
    new = p * np.exp(step - step[p > 0].max())
    return np.asarray(new / new.sum())
