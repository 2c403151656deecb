"""Which candidates are the best k, from parts of them: bounds of a finite mean, and when to stop.

A candidate's score is the mean of N values in 0..1, and every value costs a question to a model.
Values are drawn without replacement; a confidence sequence bounds the mean at every moment at
once, so looking at it after every round costs nothing; a candidate is drawn no further when the
bounds tell on which side of the border between the best k and the others it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Race", "decided_at_border", "finite_mean_bounds", "race", "round_sizes"]

_MAX_BET = 0.5
_BISECTIONS = 50


def finite_mean_bounds(
    values: NDArray[np.float64], n_population: int, delta: float
) -> tuple[float, float]:
    """Bounds of the mean of a finite population, from values drawn without replacement.

    The hedged capital process: for a mean m, what the values not yet drawn have on average is
    m_t = (N·m − Σ_{i<t} x_i) / (N − t + 1), and a bet λ_t on x_t − m_t, fixed before x_t is seen,
    has a capital Π (1 ± λ_t (x_t − m_t)) that is a martingale if m is true. A mean whose capital
    was ever 2/δ on either side is ruled out. The bounds hold for all n at once with probability
    1 − δ, so they may be looked at after every value. With n = N both are the mean.

    Args:
        values: (n,) in 0..1, in the order in which they were drawn.
        n_population: N, from n.
        delta: Error of both bounds together, above 0 and below 1.

    Returns:
        Lower and upper bound.

    Source:
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
        JRSS B 86 (2024), section 5 (sampling without replacement), with predictable
        plug-in bets.

    Example:
        >>> low, high = finite_mean_bounds(np.full(100, 0.7), 1000, 0.05)
        >>> 0.6 < low < 0.7 < high < 0.8
        True
        >>> finite_mean_bounds(np.array([0.25, 0.75]), 2, 0.05)
        (0.5, 0.5)
    """
    mean = float(values.mean()) if len(values) else 0.5
    if len(values) == n_population:
        return mean, mean
    low = _lower_bound(values, n_population, delta)
    high = 1 - _lower_bound(1 - values, n_population, delta)
    # both sides rule out everything only where the error has happened
    return min(low, high), max(low, high)


def _lower_bound(values: NDArray[np.float64], n_population: int, delta: float) -> float:
    """The largest mean found that is ruled out as too low; the capital falls with the mean."""
    total = float(values.sum())
    low, high = total / n_population, (total + n_population - len(values)) / n_population
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    left = n_population - np.arange(len(values))
    bets = _bets(values, delta)
    wanted = math.log(2 / delta)

    def is_ruled_out(mean: float) -> bool:
        expected = (n_population * mean - before) / left
        if bool((expected < 0).any()):
            return True
        # no bet may lose more than half of the capital
        safe = np.minimum(bets, _MAX_BET / np.maximum(expected, 1e-12))
        capital = np.cumsum(np.log1p(safe * (values - expected)))
        return bool(len(capital)) and float(capital.max()) >= wanted

    if not is_ruled_out(low):
        return low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_ruled_out(middle) else (low, middle)
    return low


def _bets(values: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """√(2 log(2/δ) / (σ²_{t−1} t log(1 + t))), from what was seen before t."""
    t = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (t + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (t + 1)
    earlier = np.concatenate([[0.25], variances[:-1]])
    found: NDArray[np.float64] = np.sqrt(2 * math.log(2 / delta) / (earlier * t * np.log1p(t)))
    return found


def decided_at_border(
    low: NDArray[np.float64], high: NDArray[np.float64], k: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which candidates are surely among the best k, and which surely are not.

    Args:
        low: (K,) lower bounds of the scores, higher is better.
        high: (K,) upper bounds.
        k: How many are selected.

    Returns:
        (K,) bool inside, (K,) bool outside; both False where the bounds leave it open.

    Example:
        >>> decided_at_border(np.array([0.6, 0.3, 0.1]), np.array([0.9, 0.7, 0.2]), 2)
        (array([ True,  True, False]), array([False, False,  True]))
    """
    below = (high[None, :] < low[:, None]).sum(axis=1)
    above = (low[None, :] > high[:, None]).sum(axis=1)
    return below >= len(low) - k, above >= k


def round_sizes(n: int, n_rounds: int) -> tuple[int, ...]:
    """How many of n are drawn by the end of each round: each round doubles it, the last has all.

    Example:
        >>> round_sizes(100, 4)
        (13, 25, 50, 100)
    """
    return tuple(-(-n // 2 ** (n_rounds - 1 - i)) for i in range(n_rounds))


@dataclass(frozen=True)
class Race:
    """What a race found.

    Args:
        values: (n_i,) of each candidate, in the order drawn.
        low: (K,) lower bounds.
        high: (K,) upper bounds.
        inside: (K,) bool: surely among the best k.
        outside: (K,) bool: surely not.
        n_rounds: Rounds that were run.
    """

    values: tuple[NDArray[np.float64], ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    n_rounds: int


def race(
    draw: Callable[[int, int, int], NDArray[np.float64]],
    sizes: Sequence[int],
    populations: Sequence[int],
    k: int,
    delta: float,
    n_rounds: int,
) -> Race:
    """Draw candidates in rounds, each until it is decided whether it is among the best k.

    With probability 1 − δ all that is decided is right: each of the K candidates has bounds that
    hold at all rounds at once with error δ/K.

    Args:
        draw: Takes a candidate's position and a range [start, stop) of its drawing order, and
            gives these values, in 0..1 (fewer where some are missing).
        sizes: How many of each candidate may be drawn.
        populations: How many each candidate has.
        k: How many are selected.
        delta: Error of the whole race.
        n_rounds: In how many rounds, at most (`round_sizes`).

    Example:
        >>> pools = [np.full(64, 0.9), np.full(64, 0.2), np.full(64, 0.1)]
        >>> found = race(lambda i, a, b: pools[i][a:b], [64] * 3, [64] * 3, 1, 0.05, 4)
        >>> found.inside.tolist(), [len(values) for values in found.values]
        ([True, False, False], [16, 16, 16])
    """
    n_candidates = len(sizes)
    values = [np.empty(0) for _ in sizes]
    low, high = np.zeros(n_candidates), np.ones(n_candidates)
    inside = outside = np.zeros(n_candidates, dtype=bool)
    steps = [(0, *round_sizes(n, n_rounds)) for n in sizes]
    rounds = 0
    while rounds < n_rounds and not (inside | outside).all():
        for i in np.flatnonzero(~(inside | outside)):
            start, stop = steps[int(i)][rounds : rounds + 2]
            values[i] = np.concatenate([values[i], draw(int(i), start, stop)])
            low[i], high[i] = finite_mean_bounds(
                values[i], populations[int(i)], delta / n_candidates
            )
        rounds += 1
        inside, outside = decided_at_border(low, high, k)
    return Race(tuple(values), low, high, inside, outside, rounds)
