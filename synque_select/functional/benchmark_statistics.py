"""What a benchmark of proxies reports: agreement, top-k gain, jackknife, noise ceiling, AUC."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "GroupJackknife",
    "TopK",
    "agreement",
    "exact_choice_p",
    "gain_share",
    "infer_test_size",
    "noise_ceiling",
    "own_before_decoys",
    "stratified_jackknife",
    "top_k_gain",
]

_Array = NDArray[np.float64]

# sums of choices closer than this share of their range count as equal
_GRID = 1e-5
_MAX_TEST_SIZE = 5000
_CHANCE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A mean over groups with its jackknife interval.

    Args:
        value: NaN where undefined.
        low: Lower end of the 95 % interval; NaN where undefined.
        high: Upper end.
        standard_error: Of `value`.
        n_groups: Groups in which it is defined.
    """

    value: float
    low: float
    high: float
    standard_error: float
    n_groups: int


@dataclass(frozen=True)
class GroupJackknife:
    """One group's statistic, and the same without each of its K candidates in turn.

    Args:
        value: Of all K.
        deleted: (K,) without candidate i.
    """

    value: float
    deleted: _Array


@dataclass(frozen=True)
class TopK:
    """Mean performance of k candidates of one group.

    Args:
        chosen: Of the k best by a score, ties at the border averaged.
        blind: Of all candidates: the expectation of k drawn at random.
        oracle: Of the k truly best.
    """

    chosen: float
    blind: float
    oracle: float


def agreement(scores: ArrayLike, performance: ArrayLike) -> tuple[float, float]:
    """Return Pearson and Spearman between scores (higher is better) and task performance.

    NaN where fewer than 3 candidates are there, or either is constant or not finite.

    Args:
        scores: (K,).
        performance: (K,).

    Example:
        >>> pearson, spearman = agreement([1, 2, 3], [10, 20, 90])
        >>> round(pearson, 3), round(spearman, 3)
        (0.918, 1.0)
    """
    from scipy.stats import pearsonr, spearmanr

    a, b = np.asarray(scores, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    if len(a) < 3 or not np.isfinite(a).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan
    # in units of its range a nearly constant score keeps its digits
    a = (a - a.min()) / np.ptp(a)
    return float(pearsonr(a, b).statistic), float(spearmanr(a, b).statistic)


def stratified_jackknife(groups: Sequence[GroupJackknife]) -> Estimate:
    """Return the mean over groups and its interval by leaving out one candidate at a time.

    With G groups, θ = Σ_g θ_g / G and Var θ = Σ_g (K_g − 1)/K_g · Σ_i (θ_g(−i) − mean_i)² / G²:
    the groups are the strata, so the interval is conditional on them. Ends are θ ± t · se with
    Σ_g (K_g − 1) degrees of freedom. Groups whose value is NaN are left out.

    Source:
        Efron and Tibshirani 1993, chapter 11, the jackknife; strata add up.

    Example:
        >>> groups = [GroupJackknife(0.5, np.array([0.4, 0.5, 0.6]))] * 2
        >>> found = stratified_jackknife(groups)
        >>> found.value, round(found.standard_error, 4), found.n_groups
        (0.5, 0.0816, 2)
    """
    from scipy.stats import t

    defined = [group for group in groups if math.isfinite(group.value)]
    if not defined:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    value = float(np.mean([group.value for group in defined]))
    variance, freedom = 0.0, 0
    for group in defined:
        n = len(group.deleted)
        variance += (n - 1) / n * float(((group.deleted - group.deleted.mean()) ** 2).sum())
        freedom += n - 1
    error = math.sqrt(variance) / len(defined)
    margin = float(t.ppf(0.975, freedom)) * error
    return Estimate(value, value - margin, value + margin, error, len(defined))


def top_k_gain(scores: ArrayLike, performance: ArrayLike, k: int) -> TopK:
    """Return what choosing the k best by score gains, beside blind choice and the oracle.

    Args:
        scores: (K,) higher is better.
        performance: (K,).
        k: At most K.

    Example:
        >>> top_k_gain([3, 2, 2, 1], [1.0, 0.5, 0.75, 0.25], k=2)
        TopK(chosen=0.8125, blind=0.625, oracle=0.875)
    """
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    border = np.sort(a)[-k]
    above, tied = a > border, a == border
    left = k - int(above.sum())
    chosen = (b[above].sum() + left * b[tied].mean()) / k if np.isfinite(a).all() else math.nan
    oracle = np.sort(b)[-k:].mean()
    return TopK(float(chosen), float(b.mean()), float(oracle))


def gain_share(groups: Sequence[TopK]) -> float:
    """Return Σ_g (chosen − blind) / Σ_g (oracle − blind): 1 is the oracle's gain, not clipped.

    NaN where the oracle gains nothing: all performances are equal, up to rounding.

    Example:
        >>> gain_share([TopK(chosen=0.75, blind=0.5, oracle=1.0)])
        0.5
    """
    gain = sum(group.chosen - group.blind for group in groups)
    possible = sum(group.oracle - group.blind for group in groups)
    rounding = 1e-12 * sum(abs(group.oracle) for group in groups)
    return gain / possible if possible > rounding else math.nan


def exact_choice_p(performance: Sequence[ArrayLike], k: int, chosen: float) -> float:
    """Return how often k candidates drawn at random in every group do as well as those chosen.

    The null distribution of Σ_g (mean of k random candidates of g) is exact, by convolution over
    the groups; sums that differ by under 1e-5 of their range count as equal. Where
    `chosen` is a mean over seeds, p is conservative: the null has one draw a group.

    Args:
        performance: (K_g,) of each group.
        k: How many are chosen in each.
        chosen: Σ_g of the mean performance of those chosen.

    Example:
        >>> exact_choice_p([[1.0, 2.0, 3.0]], k=1, chosen=3.0) == 1 / 3
        True
    """
    groups = [np.asarray(values, dtype=np.float64) for values in performance]
    grid = _GRID * sum(float(np.ptp(values)) for values in groups) or _GRID
    shares, lowest = np.ones(1), 0.0
    for values in groups:
        draws = np.array([sum(draw) / k for draw in itertools.combinations(values.tolist(), k)])
        cells, counts = np.unique(np.rint((draws - draws.min()) / grid), return_counts=True)
        shares = _convolved(shares, cells.astype(np.int64), counts / len(draws))
        lowest += float(draws.min())
    sums = lowest + grid * np.arange(len(shares))
    return float(shares[sums >= chosen - grid * len(groups)].sum())


def _convolved(shares: _Array, cells: NDArray[np.int64], weights: _Array) -> _Array:
    # by shifts and not by Fourier transform, which would lose the smallest probabilities
    found = np.zeros(len(shares) + int(cells[-1]))
    for cell, weight in zip(cells.tolist(), weights.tolist(), strict=True):
        found[cell : cell + len(shares)] += weight * shares
    return found


def noise_ceiling(performance: ArrayLike, n_test: int, *, n_draws: int = 2000, seed: int) -> float:
    """Return the mean Spearman that a perfect proxy would reach on a test set of that size.

    The performances are taken as true shares of correct answers; each draw measures them anew,
    binomially and independently, on n_test questions, and the draws are correlated with the
    truth. What was measured has noise in it already and is spread wider than the truth, so the
    ceiling is on the high side; candidates that share their questions have less noise between
    them than independent ones, which makes it too low. NaN where all are equal.

    Args:
        performance: (K,) shares in 0..1.
        n_test: Questions of the test set.
        n_draws: Simulated test sets.
        seed: Seed of the simulation.

    Example:
        >>> round(noise_ceiling([0.1, 0.5, 0.9], 10_000, seed=0), 6)
        1.0
    """
    from scipy.spatial.distance import cdist
    from scipy.stats import rankdata

    truth = np.asarray(performance, dtype=np.float64)
    if np.ptp(truth) == 0:
        return math.nan
    generator = np.random.default_rng(seed)
    draws = generator.binomial(n_test, np.clip(truth, 0, 1), size=(n_draws, len(truth)))
    ranks = rankdata(draws, axis=1)
    found = 1 - cdist(rankdata(truth)[None], ranks, "correlation")[0]
    # a draw in which all candidates come out equal says nothing of their order
    return float(np.where(np.ptp(ranks, axis=1) > 0, found, 0).mean())


def infer_test_size(shares: ArrayLike, n_decimals: int) -> int | None:
    """Return the smallest n for which every share is a whole number of n-ths, as printed.

    None where no n up to 5,000 fits, or where so many shares would fit by chance (p ≥ 0.001)
    that the answer means nothing.

    Args:
        shares: (K,) in 0..1.
        n_decimals: Decimals to which the shares were rounded.

    Example:
        >>> infer_test_size([0.4603, 0.3968, 0.5238, 0.4921], n_decimals=4)
        63
    """
    values = np.unique(np.asarray(shares, dtype=np.float64))
    values = values[(values > 0) & (values < 1)]
    # half a unit of the last decimal, and the error of binary fractions
    half = 0.5 * 10.0**-n_decimals + 1e-12
    for n in range(2, _MAX_TEST_SIZE + 1):
        by_chance = min(1.0, 2 * half * n) ** len(values)
        if by_chance * n >= _CHANCE:
            return None
        if (np.abs(values * n - np.rint(values * n)) <= half * n).all():
            return n
    return None


def own_before_decoys(scores: ArrayLike, is_own: ArrayLike) -> float:
    """Return the AUC: how often one of the group's own candidates scores above a decoy.

    Args:
        scores: (K,) higher is better; ties count half.
        is_own: (K,) bool.

    Example:
        >>> own_before_decoys([3, 1, 2, 1], [True, True, False, False])
        0.625
    """
    a, own = np.asarray(scores, dtype=np.float64), np.asarray(is_own, dtype=bool)
    if not np.isfinite(a).all():
        return math.nan
    gaps = a[own][:, None] - a[~own]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
