"""Online Data Mixing: the weights of a mixture as the policy of a multi-armed bandit (Exp3)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError

__all__ = ["exp3_weights", "exploration_rate", "smoothed_rewards"]


def exploration_rate(step: int, n_arms: int) -> float:
    r"""Return the exploration rate of a step, which is the least weight of each candidate.

    .. math:: \mathcal E_t = \min\{1/K, \sqrt{\ln K / (K t)}\}, \quad \mathcal E_0 = 1/K

    Args:
        step: Training step t, from 0.
        n_arms: Number K of candidates, at least 1.

    Returns:
        The rate, above 0 for two or more candidates; 1/K up to step K ln K, so that the weights
        are equal until then.

    Raises:
        ConfigError: An argument is not allowed.

    Source:
        Albalak et al., "Efficient Online Data Mixing For Language Model Pre-Training", 2023 (arXiv
        2312.02406), Algorithm 1; the schedule is that of Seldin et al. 2013.

    Example:
        >>> exploration_rate(0, 4), round(exploration_rate(100, 4), 4)
        (0.25, 0.0589)
    """
    if step < 0 or n_arms < 1:
        raise ConfigError(f"step={step}, n_arms={n_arms}: allowed are step >= 0 and n_arms >= 1")
    if step == 0:
        return 1 / n_arms
    return min(1 / n_arms, math.sqrt(math.log(n_arms) / (n_arms * step)))


def exp3_weights(rewards: ArrayLike, rate: float, previous_rate: float) -> NDArray[np.float64]:
    r"""Return the weights of the candidates from their estimated rewards.

    .. math:: \pi_t(i) = (1 - K \mathcal E_t)
        \frac{\exp(\mathcal E_{t-1} \hat R_i)}{\sum_j \exp(\mathcal E_{t-1} \hat R_j)}
        + \mathcal E_t

    Args:
        rewards: (K,) estimated rewards; the higher, the more a candidate is drawn.
        rate: Exploration rate of this step, 0 to 1/K.
        previous_rate: Exploration rate of the previous update.

    Returns:
        (K,) float64 weights of at least `rate`, which sum to 1.

    Raises:
        ConfigError: A reward is not finite, or `rate` is not in 0..1/K.

    Source:
        Albalak et al. 2023, Algorithm 1; Auer et al., "The nonstochastic multiarmed bandit
        problem", SIAM Journal on Computing 2002.

    Example:
        >>> exp3_weights([0.0, 10.0], rate=0.1, previous_rate=0.2).round(3).tolist()
        [0.195, 0.805]
    """
    values = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(f"rewards={values.tolist()}: allowed are finite numbers")
    if not 0 <= rate <= 1 / len(values) + 1e-12:
        raise ConfigError(f"rate={rate}: allowed is 0 to 1/{len(values)}")
    scaled = previous_rate * values
    shares = np.exp(scaled - scaled.max())  # without the shift, exp overflows from a reward of 710
    shares /= shares.sum()
    weights = max(0.0, 1 - len(values) * rate) * shares + rate
    return np.asarray(weights / weights.sum())


def smoothed_rewards(
    rewards: ArrayLike, losses: ArrayLike, weights: ArrayLike, smoothing: float = 0.9
) -> NDArray[np.float64]:
    r"""Update the estimated rewards: a moving average of importance-weighted losses.

    .. math:: \hat R_i \leftarrow \alpha \hat R_i + (1 - \alpha) \frac{L_i}{\pi(i)}

    The reward of a candidate is the loss of the model on it: the candidate with the highest loss
    has the most left to learn. Importance weighting divides it by the weight that the candidate was
    drawn with.

    Args:
        rewards: (K,) estimated rewards so far; zeros at the start.
        losses: (K,) losses; NaN for a candidate that was not observed.
        weights: (K,) weights with which candidates were drawn.
        smoothing: α, the share of the old estimate, 0 to below 1.

    Returns:
        (K,) float64; the old estimate where the loss is NaN or infinite or the weight is 0.

    Raises:
        ConfigError: The arguments differ in shape, or `smoothing` is not allowed.

    Source:
        Albalak et al. 2023, Algorithm 1.

    Example:
        >>> smoothed_rewards([0.0, 1.0], [2.0, float("nan")], [0.5, 0.5]).round(3).tolist()
        [0.4, 1.0]
    """
    old, loss, weight = (np.asarray(x, dtype=np.float64) for x in (rewards, losses, weights))
    if not old.shape == loss.shape == weight.shape:
        raise ConfigError(
            f"rewards, losses and weights have shapes {old.shape}, {loss.shape} and "
            f"{weight.shape}: allowed is one value of each per candidate"
        )
    if not 0 <= smoothing < 1:
        raise ConfigError(f"smoothing={smoothing}: allowed is 0 to below 1")
    seen = np.isfinite(loss) & (weight > 0)
    new = old.copy()
    new[seen] = smoothing * old[seen] + (1 - smoothing) * loss[seen] / weight[seen]
    return new
