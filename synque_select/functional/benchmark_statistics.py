"""Statistics of a proxy benchmark: agreement, top-k gain, jackknife, noise ceiling, AUC."""

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
    "gain_share",
    "infer_test_size",
    "noise_ceiling",
    "own_vs_decoys_auc",
    "random_choice_p_value",
    "stratified_jackknife",
    "top_k_gain",
]

_Array = NDArray[np.float64]

# sums that differ by less than this share of their range count as equal: performances are
# printed with 3 to 5 digits, so a finer grid would only separate rounding errors
_GRID = 1e-5
# larger test sets cannot be inferred: shares of 4 decimals fit every n near 10,000
_MAX_TEST_SIZE = 5000
# an inferred test size must be this unlikely to fit by chance
_CHANCE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A mean over groups with its jackknife interval.

    Args:
        value: Mean over the groups; NaN if it is undefined in all of them.
        low: Lower end of the 95 % interval; NaN if undefined.
        high: Upper end of the 95 % interval; NaN if undefined.
        standard_error: Jackknife standard error of `value`.
        n_groups: Number of groups in which the statistic is defined.
        p: Two-sided p-value of t = value / standard_error, below 0.05 exactly if the interval
            excludes 0; NaN if undefined.
    """

    value: float
    low: float
    high: float
    standard_error: float
    n_groups: int
    p: float = math.nan


@dataclass(frozen=True)
class GroupJackknife:
    """One group's statistic and its leave-one-candidate-out values.

    Args:
        value: The statistic of all K candidates.
        deleted: (K,) float64; entry i is the statistic without candidate i.
    """

    value: float
    deleted: _Array


@dataclass(frozen=True)
class TopK:
    """Mean performance of k candidates of one group, under three ways to choose them.

    Args:
        chosen: Mean performance of the k best by a score; ties at the border are averaged.
        blind: Mean performance of all candidates, the expectation of a random choice.
        oracle: Mean performance of the k candidates that perform best.
    """

    chosen: float
    blind: float
    oracle: float


def agreement(scores: ArrayLike, performance: ArrayLike) -> tuple[float, float]:
    """Return Pearson's and Spearman's correlation of scores with task performance.

    Args:
        scores: (K,) scores, higher is better.
        performance: (K,) task performance, higher is better.

    Returns:
        Pearson's and Spearman's coefficient, each in −1..1; both NaN for fewer than 3 candidates,
        if either argument is constant, or if a score is not finite.

    Example:
        >>> pearson, spearman = agreement([1, 2, 3], [10, 20, 90])
        >>> round(pearson, 3), round(spearman, 3)
        (0.918, 1.0)
    """
    from scipy.stats import pearsonr, spearmanr

    a, b = np.asarray(scores, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    if len(a) < 3 or not np.isfinite(a).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan
    # Pearson subtracts the mean and squares: a score such as 1e8 + 1e-3 would lose every digit
    # there, and scaling to 0..1 first leaves both coefficients unchanged
    a = (a - a.min()) / np.ptp(a)
    return float(pearsonr(a, b).statistic), float(spearmanr(a, b).statistic)


def stratified_jackknife(groups: Sequence[GroupJackknife]) -> Estimate:
    """Return the mean over groups with a delete-one-candidate jackknife interval.

    With G groups, θ = Σ_g θ_g / G and Var θ = Σ_g (K_g − 1)/K_g · Σ_i (θ_g(−i) − mean_i)² / G².
    The groups are the strata, so the interval is conditional on them: it says how much θ depends
    on the candidates, not on which tasks are in the benchmark. Its ends are θ ± t · se with
    Σ_g (K_g − 1) degrees of freedom.

    Args:
        groups: One entry per group; groups whose value is NaN are left out.

    Returns:
        The estimate; all NaN, with `n_groups` 0, if no group has a value.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11 (jackknife);
        the variances of independent strata add up.

    Example:
        >>> groups = [GroupJackknife(0.5, np.array([0.4, 0.5, 0.6]))] * 2
        >>> estimate = stratified_jackknife(groups)
        >>> estimate.value, round(estimate.standard_error, 4), estimate.n_groups
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
        # (n − 1)/n and not 1/(n − 1): leave-one-out values differ from each other n − 1 times
        # less than the candidates themselves do
        variance += (n - 1) / n * float(((group.deleted - group.deleted.mean()) ** 2).sum())
        freedom += n - 1
    error = math.sqrt(variance) / len(defined)
    # Student's t: with a dozen candidates per group the normal quantile is visibly too short
    margin = float(t.ppf(0.975, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom)) if error > 0 else math.nan
    if error == 0:  # the value is the same without any one candidate
        p = float(value == 0)
    return Estimate(value, value - margin, value + margin, error, len(defined), p)


def top_k_gain(scores: ArrayLike, performance: ArrayLike, top_k: int) -> TopK:
    """Return the mean performance of the k best by score, of a random choice, and of the oracle.

    Args:
        scores: (K,) scores, higher is better.
        performance: (K,) task performance, higher is better.
        top_k: Number of candidates to choose, from 1 to K.

    Returns:
        The three means; `chosen` is NaN if a score is not finite.

    Example:
        >>> top_k_gain([3, 2, 2, 1], [1.0, 0.5, 0.75, 0.25], top_k=2)
        TopK(chosen=0.8125, blind=0.625, oracle=0.875)
    """
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    border = np.sort(a)[-top_k]
    above, tied = a > border, a == border
    n_tied = top_k - int(above.sum())
    # candidates that tie at the border enter with their mean, the expectation of breaking the tie
    # at random: otherwise the result would depend on the order of the rows
    chosen = (b[above].sum() + n_tied * b[tied].mean()) / top_k
    chosen = chosen if np.isfinite(a).all() else math.nan
    oracle = np.sort(b)[-top_k:].mean()
    return TopK(float(chosen), float(b.mean()), float(oracle))


def gain_share(groups: Sequence[TopK]) -> float:
    """Return the share of the oracle's gain that a score reaches over all groups.

    Σ_g (chosen − blind) / Σ_g (oracle − blind): 1 is the oracle's gain, 0 that of a random
    choice; not clipped, so a score that chooses worse than at random is below 0.

    Args:
        groups: One entry per group, of the same k.

    Returns:
        The share, higher is better; NaN if the oracle gains nothing, because all performances
        are equal up to rounding.

    Example:
        >>> gain_share([TopK(chosen=0.75, blind=0.5, oracle=1.0)])
        0.5
    """
    gain = sum(group.chosen - group.blind for group in groups)
    possible = sum(group.oracle - group.blind for group in groups)
    # a ratio of sums, not a mean of ratios: a group in which all candidates perform alike would
    # divide by almost nothing and dominate the mean
    rounding = 1e-12 * sum(abs(group.oracle) for group in groups)
    return gain / possible if possible > rounding else math.nan


def random_choice_p_value(performance: Sequence[ArrayLike], top_k: int, chosen: float) -> float:
    """Return the chance that k random candidates in every group perform as well as those chosen.

    The null distribution of Σ_g (mean of k random candidates of g) is exact, by convolution over
    the groups; sums that differ by less than 1e-5 of their range count as equal. If `chosen` is a
    mean over seeds, p is conservative: the null distribution has one draw per group.

    Args:
        performance: (K_g,) task performance of each group's candidates, higher is better.
        top_k: Number of candidates chosen in each group.
        chosen: Σ_g of the mean performance of the chosen candidates.

    Returns:
        One-sided p-value in 0..1.

    Example:
        >>> random_choice_p_value([[1.0, 2.0, 3.0]], top_k=1, chosen=3.0) == 1 / 3
        True
    """
    groups = [np.asarray(values, dtype=np.float64) for values in performance]
    # if all performances are equal the range is 0, and any grid gives the right answer, 1
    grid = _GRID * sum(float(np.ptp(values)) for values in groups) or _GRID
    shares, lowest = np.ones(1), 0.0
    for values in groups:
        draws = np.array(
            [sum(draw) / top_k for draw in itertools.combinations(values.tolist(), top_k)]
        )
        cells, counts = np.unique(np.rint((draws - draws.min()) / grid), return_counts=True)
        shares = _convolve(shares, cells.astype(np.int64), counts / len(draws))
        lowest += float(draws.min())
    sums = lowest + grid * np.arange(len(shares))
    # rounding to the grid moves each group's mean by half a cell at most; a whole cell of slack
    # per group errs towards a larger p
    return float(shares[sums >= chosen - grid * len(groups)].sum())


def _convolve(shares: _Array, cells: NDArray[np.int64], weights: _Array) -> _Array:
    # by shifts, not by Fourier transform: its rounding error of 1e-16 is absolute, and the
    # probabilities in the tail, which make up p, are smaller than that
    convolved = np.zeros(len(shares) + int(cells[-1]))
    for cell, weight in zip(cells.tolist(), weights.tolist(), strict=True):
        convolved[cell : cell + len(shares)] += weight * shares
    return convolved


def noise_ceiling(performance: ArrayLike, n_test: int, *, n_draws: int = 2000, seed: int) -> float:
    """Return the mean Spearman correlation that a perfect proxy would reach on a test set.

    The performances are taken as true shares of correct answers; each draw measures them again,
    binomially and independently, on `n_test` questions, and is correlated with the truth. Two
    errors work against each other: measured performances already contain noise and are spread
    more widely than the truth, so the ceiling is too high; candidates that answer the same
    questions have less noise between them than independent ones, so it is too low.

    Args:
        performance: (K,) shares of correct answers in 0..1.
        n_test: Number of questions in the test set.
        n_draws: Number of simulated test sets.
        seed: Random seed for the simulation.

    Returns:
        Mean correlation, at most 1; NaN if all performances are equal.

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
    # a share computed from percentages may be 1 + 2e-16, which binomial() refuses
    draws = generator.binomial(n_test, np.clip(truth, 0, 1), size=(n_draws, len(truth)))
    ranks = rankdata(draws, axis=1)
    # Spearman is Pearson of mid-ranks; cdist computes it for all draws at once, much faster than
    # one call of scipy's spearmanr per draw
    correlations = 1 - cdist(rankdata(truth)[None], ranks, "correlation")[0]
    # a draw in which all candidates measure equal has no correlation; it carries no information
    # about their order, so it counts as 0 rather than being dropped, which would flatter the mean
    return float(np.where(np.ptp(ranks, axis=1) > 0, correlations, 0).mean())


def infer_test_size(shares: ArrayLike, n_decimals: int) -> int | None:
    """Return the smallest test-set size n of which every printed share is a multiple of 1/n.

    Args:
        shares: (K,) shares of correct answers in 0..1.
        n_decimals: Number of decimals to which the shares were rounded.

    Returns:
        n; None if no n up to 5,000 fits, or if the shares would fit by chance (p ≥ 0.001), which
        makes the answer meaningless.

    Example:
        >>> infer_test_size([0.4603, 0.3968, 0.5238, 0.4921], n_decimals=4)
        63
    """
    values = np.unique(np.asarray(shares, dtype=np.float64))
    # 0 and 1 are multiples of every 1/n and carry no information
    values = values[(values > 0) & (values < 1)]
    # half a unit of the last decimal, plus the error of binary fractions
    half = 0.5 * 10.0**-n_decimals + 1e-12
    for n in range(2, _MAX_TEST_SIZE + 1):
        # a random share lies within `half` of a multiple of 1/n with chance 2·half·n; times n for
        # the sizes tried so far
        by_chance = min(1.0, 2 * half * n) ** len(values)
        if by_chance * n >= _CHANCE:
            return None
        if (np.abs(values * n - np.rint(values * n)) <= half * n).all():
            return n
    return None


def own_vs_decoys_auc(scores: ArrayLike, is_own: ArrayLike) -> float:
    """Return the AUC of a group's own candidates against decoys from other groups.

    It is the chance that a random own candidate scores above a random decoy; ties count half.

    Args:
        scores: (K,) scores, higher is better.
        is_own: (K,) bool, True for the group's own candidates, False for decoys.

    Returns:
        AUC in 0..1, 0.5 is chance; NaN if a score is not finite.

    Example:
        >>> own_vs_decoys_auc([3, 1, 2, 1], [True, True, False, False])
        0.625
    """
    a, own = np.asarray(scores, dtype=np.float64), np.asarray(is_own, dtype=bool)
    if not np.isfinite(a).all():
        return math.nan
    # the Mann-Whitney form: all pairs at once, and ties as the definition has them
    gaps = a[own][:, None] - a[~own]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
