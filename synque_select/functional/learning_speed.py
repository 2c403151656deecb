"""Weights by how fast each loss falls, or by how close each candidate is to the real sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError

__all__ = ["closeness_weights", "curve_slopes", "learning_speed_weights"]


def curve_slopes(steps: ArrayLike, losses: ArrayLike) -> NDArray[np.float64]:
    r"""Return the least-squares slope of each learning curve.

    .. math:: b_i = \sum_t (t - \bar t)(L_{ti} - \bar L_i) / \sum_t (t - \bar t)^2

    Args:
        steps: (n,) training steps, at least two different ones.
        losses: (n, K) loss of each candidate at each of them.

    Returns:
        (K,) float64 change of the loss per step: negative where the model learns. NaN where a loss
        is not finite.

    Raises:
        ConfigError: The shapes do not fit, or all steps are equal.

    Example:
        >>> curve_slopes([0, 10, 20], [[3.0, 1.0], [2.0, 1.0], [1.0, 1.0]]).tolist()
        [-0.1, 0.0]
    """
    t, values = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if t.ndim != 1 or values.ndim != 2 or len(t) != len(values):
        raise ConfigError(
            f"steps and losses have shapes {t.shape} and {values.shape}: allowed is a row of "
            "losses per step"
        )
    centered = t - t.mean() if len(t) else t
    square = float((centered**2).sum())
    if square == 0:
        raise ConfigError(f"steps={t.tolist()}: allowed are two or more different steps")
    known = np.isfinite(values).all(axis=0)
    slopes = centered @ np.where(known, values - np.where(known, values, 0.0).mean(axis=0), 0.0)
    return np.asarray(np.where(known, slopes / square, np.nan))


def learning_speed_weights(
    prior: ArrayLike, slopes: ArrayLike, keep: float = 0.2
) -> NDArray[np.float64]:
    r"""Return weights in proportion to how fast the loss on each candidate falls.

    .. math:: w_i = (1 - \kappa) \frac{p_i \max(-b_i, 0)}{\sum_j p_j \max(-b_j, 0)} + \kappa p_i

    Args:
        prior: (K,) weights p to start from, which sum to 1.
        slopes: (K,) slope b of each learning curve; NaN, for one that is not known, counts as the
            mean of the others.
        keep: Share κ of the prior in the result, 0 to 1, so that no candidate of the prior is
            lost.

    Returns:
        (K,) float64 weights, which sum to 1; the prior if no loss falls.

    Raises:
        ConfigError: The arguments differ in shape, or a value is not allowed.

    Source:
        After the learning speed of Jiang et al., "Adaptive Data Optimization: Dynamic Sample
        Selection with Scaling Laws", 2024 (arXiv 2410.11820), with the slope of the measured curve
        in place of that of a fitted scaling law, and κ in place of its least probability.

    Example:
        >>> learning_speed_weights([0.5, 0.5], [-0.3, -0.1], keep=0.2).round(6).tolist()
        [0.7, 0.3]
    """
    p, b = _checked(prior, slopes, "slopes")
    if not 0 <= keep <= 1:
        raise ConfigError(f"keep={keep}: allowed is 0 to 1")
    if np.isnan(b).all():
        return p
    speed = p * np.maximum(-np.where(np.isnan(b), np.nanmean(b), b), 0)
    total = float(speed.sum())
    weights = (1 - keep) * speed / total + keep * p if total > 0 else p
    return np.asarray(weights / weights.sum())


def closeness_weights(
    prior: ArrayLike, distances: ArrayLike, sharpness: float = 1.0
) -> NDArray[np.float64]:
    r"""Return weights that fall with the distance of each candidate from the real sample.

    .. math:: w_i \propto p_i \exp(-\beta d_i / \bar d), \quad \bar d = \text{mean of } d

    Only the ratios of the distances matter, not their scale.

    Args:
        prior: (K,) weights p to start from, which sum to 1.
        distances: (K,) distances of at least 0; NaN, for one that is not known, counts as the mean
            of the others.
        sharpness: β, at least 0; with 0 the result is the prior.

    Returns:
        (K,) float64 weights, which sum to 1; the prior if all distances are equal.

    Raises:
        ConfigError: The arguments differ in shape, or a value is not allowed.

    Example:
        >>> closeness_weights([0.5, 0.5], [0.0, 2.0], sharpness=1.0).round(3).tolist()
        [0.881, 0.119]
    """
    p, d = _checked(prior, distances, "distances")
    if not sharpness >= 0:
        raise ConfigError(f"sharpness={sharpness}: allowed is 0 or more")
    if (d[~np.isnan(d)] < 0).any():
        raise ConfigError(f"distances={d.tolist()}: allowed are numbers from 0, and NaN")
    if np.isnan(d).all() or not np.nanmean(d) > 0:
        return p
    relative = np.where(np.isnan(d), 1.0, d / np.nanmean(d))
    weights = p * np.exp(-sharpness * (relative - relative.min()))
    return np.asarray(weights / weights.sum())


def _checked(
    prior: ArrayLike, values: ArrayLike, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, v = np.asarray(prior, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if p.shape != v.shape or p.ndim != 1:
        raise ConfigError(
            f"prior and {name} have shapes {p.shape} and {v.shape}: allowed is one value of each "
            "per candidate"
        )
    if not ((p >= 0).all() and abs(float(p.sum()) - 1) < 1e-6):
        raise ConfigError(f"prior={p.tolist()}: allowed are weights from 0 that sum to 1")
    if np.isinf(v).any():
        raise ConfigError(f"{name}={v.tolist()}: allowed are finite numbers, and NaN")
    return p, v
