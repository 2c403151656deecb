"""Races: find the best k candidates from parts of them, and stop as early as possible.

A candidate's score is the mean of N values in 0..1, and every value costs a question to a model.
Values are drawn without replacement. A confidence sequence bounds the mean at all times at once,
so checking it after every round does not increase the error. Drawing from a candidate stops as
soon as the bounds decide whether it is among the best k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Race", "decided_at_border", "finite_mean_bounds", "race", "round_sizes"]

# largest share of the capital that a single bet may lose: the logarithm of the capital then
# falls by log 2 at most, and bad luck early on can be made up for
_MAX_BET = 0.5
# halvings of the bracket of a bound: 2^−50 of it is below float64's resolution of a mean in 0..1
_BISECTIONS = 50


def finite_mean_bounds(
    values: NDArray[np.float64], n_population: int, delta: float
) -> tuple[float, float]:
    """Return bounds of the mean of a finite population, from values drawn without replacement.

    This is the hedged capital process. If the mean is m, the values not yet drawn have the mean
    m_t = (N·m − Σ_{i<t} x_i) / (N − t + 1). A bet λ_t on x_t − m_t, fixed before x_t is seen,
    gives a capital Π (1 ± λ_t (x_t − m_t)), which is a martingale for the true m. A mean whose
    capital ever reaches 2/δ on either side is ruled out (Ville's inequality). The bounds hold for
    all n at once with probability 1 − δ, so they may be checked after every value.

    Args:
        values: (n,) values in 0..1, in the order in which they were drawn.
        n_population: N, the size of the population, at least n.
        delta: Error probability of both bounds together, above 0 and below 1.

    Returns:
        Lower and upper bound of the mean; both are the mean itself if n = N.

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
    # the two sides can only cross if one of them is wrong, an event of probability δ
    return min(low, high), max(low, high)


def _lower_bound(values: NDArray[np.float64], n_population: int, delta: float) -> float:
    """Largest mean that is ruled out as too low, by bisection."""
    total = float(values.sum())
    # what is not drawn yet lies in 0..1, so the mean lies in this range for certain
    low, high = total / n_population, (total + n_population - len(values)) / n_population
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    n_left = n_population - np.arange(len(values))
    bets = _bets(values, delta)
    threshold = math.log(2 / delta)

    def is_ruled_out(mean: float) -> bool:
        expected = (n_population * mean - before) / n_left
        # the values drawn so far already exceed N·m: impossible, not just unlikely
        if bool((expected < 0).any()):
            return True
        # a loss is at most λ_t · m_t, of x_t = 0
        safe = np.minimum(bets, _MAX_BET / np.maximum(expected, 1e-12))
        capital = np.cumsum(np.log1p(safe * (values - expected)))
        # the maximum and not the last value: Ville's inequality bounds it, and it never shrinks
        return bool(len(capital)) and float(capital.max()) >= threshold

    # the capital falls as the mean grows, so the means that are ruled out form an interval
    if not is_ruled_out(low):
        return low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_ruled_out(middle) else (low, middle)
    return low


def _bets(values: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """Bets √(2 log(2/δ) / (σ²_{t−1} t log(1 + t))), from the values before t."""
    t = np.arange(1, len(values) + 1)
    # a pseudo-observation of mean ½ and variance ¼ keeps the first estimates defined
    means = (0.5 + np.cumsum(values)) / (t + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (t + 1)
    # shifted by one: a bet that depended on its own value would not be a martingale
    earlier = np.concatenate([[0.25], variances[:-1]])
    bets: NDArray[np.float64] = np.sqrt(2 * math.log(2 / delta) / (earlier * t * np.log1p(t)))
    return bets


def decided_at_border(
    low: NDArray[np.float64], high: NDArray[np.float64], top_k: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which candidates are certainly among the best k, and which certainly are not.

    Args:
        low: (K,) lower bounds of the scores, higher is better.
        high: (K,) upper bounds of the scores.
        top_k: Number of candidates to select.

    Returns:
        (K,) bool inside and (K,) bool outside; both False for candidates whose bounds do not
        decide it.

    Example:
        >>> decided_at_border(np.array([0.6, 0.3, 0.1]), np.array([0.9, 0.7, 0.2]), 2)
        (array([ True,  True, False]), array([False, False,  True]))
    """
    n_below = (high[None, :] < low[:, None]).sum(axis=1)
    n_above = (low[None, :] > high[:, None]).sum(axis=1)
    # inside: at least K − k candidates are certainly worse; outside: at least k certainly better
    return n_below >= len(low) - top_k, n_above >= top_k


def round_sizes(n: int, n_rounds: int) -> tuple[int, ...]:
    """Return how many of n values are drawn by the end of each round.

    Every round doubles the number; the last round draws all. A candidate that is decided late has
    then cost at most twice the values that it needed.

    Args:
        n: Number of values that can be drawn.
        n_rounds: Number of rounds, at least 1.

    Example:
        >>> round_sizes(100, 4)
        (13, 25, 50, 100)
    """
    return tuple(-(-n // 2 ** (n_rounds - 1 - i)) for i in range(n_rounds))


@dataclass(frozen=True)
class Race:
    """The result of a race.

    Args:
        values: (n_i,) float64 values of each candidate, in the order drawn.
        low: (K,) float64 lower bounds of the scores.
        high: (K,) float64 upper bounds of the scores.
        inside: (K,) bool, True for candidates certainly among the best k.
        outside: (K,) bool, True for candidates certainly not among them.
        n_rounds: Number of rounds that were run.
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
    top_k: int,
    delta: float,
    n_rounds: int,
    announce: Callable[[Sequence[tuple[int, int, int]]], None] = lambda _: None,
) -> Race:
    """Draw values of candidates in rounds until it is decided which are the best k.

    With probability 1 − δ every decision is right.

    Args:
        draw: Function of a candidate's position and a range [start, stop) of its drawing order; it
            returns these values, in 0..1 (fewer if some are missing).
        sizes: Number of values of each candidate that may be drawn.
        populations: Number of values that each candidate has.
        top_k: Number of candidates to select.
        delta: Error probability of the whole race.
        n_rounds: Maximum number of rounds (`round_sizes`).
        announce: Function of the arguments of all calls of `draw` in a round, called before them.

    Returns:
        All values that were drawn, and the decisions.

    Example:
        >>> pools = [np.full(64, 0.9), np.full(64, 0.2), np.full(64, 0.1)]
        >>> result = race(lambda i, a, b: pools[i][a:b], [64] * 3, [64] * 3, 1, 0.05, 4)
        >>> result.inside.tolist(), [len(values) for values in result.values]
        ([True, False, False], [16, 16, 16])
    """
    n_candidates = len(sizes)
    values = [np.empty(0) for _ in sizes]
    low, high = np.zeros(n_candidates), np.ones(n_candidates)
    inside = outside = np.zeros(n_candidates, dtype=bool)
    steps = [(0, *round_sizes(n, n_rounds)) for n in sizes]
    # Bonferroni over candidates, δ/K each; rounds need no correction, as a confidence sequence
    # holds for all of them at once
    rounds = 0
    while rounds < n_rounds and not (inside | outside).all():
        left = map(int, np.flatnonzero(~(inside | outside)))
        draws = [(i, steps[i][rounds], steps[i][rounds + 1]) for i in left]
        announce(draws)
        for i, start, stop in draws:
            values[i] = np.concatenate([values[i], draw(i, start, stop)])
            low[i], high[i] = finite_mean_bounds(values[i], populations[i], delta / n_candidates)
        rounds += 1
        inside, outside = decided_at_border(low, high, top_k)
    return Race(tuple(values), low, high, inside, outside, rounds)
