"""Paired comparisons of training arms, and confidence intervals of a share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json

__all__ = [
    "MIN_PAIRS",
    "PairedComparison",
    "Verdict",
    "compare_paired",
    "holm",
    "holm_verdicts",
    "paired_p",
    "wilson_interval",
]

MIN_PAIRS = 5
"""Fewest pairs for which a comparison gives a verdict."""

Verdict = Literal["beats", "is beaten by", "no difference shown", "hint only", "not compared"]


@dataclass(frozen=True)
class PairedComparison:
    """The mean difference of two arms over paired replicates.

    Args:
        difference: Mean of first − second in the unit of the metric; not oriented, so a negative
            difference is better if the metric is minimized. NaN without a pair.
        low: Lower end of the paired t-interval; NaN for fewer than 2 pairs.
        high: Upper end of the paired t-interval; NaN for fewer than 2 pairs.
        n: Number of pairs.
        verdict: Conclusion about the first arm: "beats" or "is beaten by" where `p_holm` is below
            1 − level, else "no difference shown"; "hint only" for fewer than `MIN_PAIRS` pairs,
            and "not compared" without any.
        p: Two-sided p-value of the paired t-test; NaN for fewer than 2 pairs.
        p_holm: The same, adjusted by Holm for all comparisons that are read together; equal to
            `p` for a comparison that is read alone, NaN for fewer than `MIN_PAIRS` pairs.
    """

    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict
    p: float = math.nan
    p_holm: float = math.nan

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `result.json`; the writer turns NaN into null."""
        return vars(self).copy()


def compare_paired(
    first: ArrayLike,
    second: ArrayLike,
    *,
    mode: Literal["max", "min"],
    level: float = 0.95,
    bound: float = math.inf,
) -> PairedComparison:
    r"""Compare two arms by the paired t-interval of their difference.

    .. math:: \bar d \pm t_{n-1,\,(1+\text{level})/2} \; s_d / \sqrt n, \quad d = first - second

    Args:
        first: (n,) metric of the first arm in each replicate; NaN for a replicate that was not run.
        second: (n,) metric of the second arm, of the same replicates in the same order.
        mode: Whether a larger ("max") or a smaller ("min") metric is better.
        level: Coverage of the interval, above 0 and below 1.
        bound: Largest possible absolute difference, at which the interval ends at the latest: 1
            for two accuracies, 2 for two correlations. The p-value does not depend on it.

    Returns:
        The comparison, with the verdict that holds if it is read alone: "beats" or "is beaten by"
        if the interval excludes 0 and there are at least `MIN_PAIRS` pairs. Verdicts on several
        comparisons that are read together are those of `holm_verdicts`.

    Raises:
        ConfigError: The arms differ in length, a difference is above `bound`, or `mode` or `level`
            is not allowed.

    Source:
        Student, "The probable error of a mean", Biometrika 1908.

    Example:
        >>> first, second = [0.80, 0.82, 0.81, 0.83, 0.80], [0.70, 0.73, 0.71, 0.71, 0.72]
        >>> compare_paired(first, second, mode="max").verdict
        'beats'
        >>> compare_paired(first[:2], second[:2], mode="max").verdict
        'hint only'
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ConfigError(
            f"the arms have shapes {a.shape} and {b.shape}: both must be one-dimensional and of "
            "the same length, one value per replicate"
        )
    _check_mode(mode)
    _check_level(level)
    # a replicate shares data order, initialization and test set between the arms: the difference
    # within it is free of their variance, which is usually larger than the effect. A replicate
    # that lacks either arm has no difference
    differences = (a - b)[np.isfinite(a - b)]
    n, largest = len(differences), float(np.abs(differences).max(initial=0.0))
    if largest > bound * (1 + 1e-9):
        raise ConfigError(f"a difference of {largest:g} is above bound={bound:g}")
    mean, low, high = _t_interval(differences, level)
    p = paired_p(mean, low, high, n, level=level)
    # Student's t knows no bounds: two accuracies cannot differ by 5, as it would say of two pairs
    low, high = (float(np.clip(end, -bound, bound)) for end in (low, high))
    alone = PairedComparison(mean, low, high, n, "not compared", p)
    return holm_verdicts({"": alone}, mode=mode, level=level)[""]


def paired_p(difference: float, low: float, high: float, n: int, *, level: float = 0.95) -> float:
    """Return the two-sided p-value of the paired t-test that belongs to a t-interval.

    Args:
        difference: Mean difference, the center of the interval.
        low: Lower end.
        high: Upper end.
        n: Number of pairs.
        level: Coverage of the interval.

    Returns:
        The p-value, below 1 − level exactly if the interval excludes 0; NaN for fewer than 2 pairs.

    Example:
        >>> round(paired_p(0.231, 0.038, 0.424, 5), 3)
        0.029
    """
    from scipy import stats

    if n < 2 or not math.isfinite(high - low):
        return math.nan
    error = (high - low) / 2 / float(stats.t.ppf((1 + level) / 2, n - 1))
    if error == 0:  # all differences are equal
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, n - 1))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    r"""Adjust the p-values of several tests that are read together (Holm's step-down method).

    With :math:`p_{(1)} \le \dots \le p_{(m)}`, the adjusted
    :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`. Calling a difference
    where :math:`\tilde p < \alpha` makes one or more false calls with probability at most
    :math:`\alpha`, however the tests depend on each other.

    Args:
        p_values: (m,) p-values in 0..1; NaN for a test that was not made.

    Returns:
        (m,) float64 adjusted p-values in the same order; NaN where they were NaN, which do not
        count.

    Raises:
        ConfigError: A p-value is outside 0..1.

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03]).tolist()]
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if bool(((p < 0) | (p > 1)).any()):
        raise ConfigError(f"p_values={p.tolist()}: allowed are numbers in 0..1, and NaN")
    adjusted = np.full(p.shape, math.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN is sorted last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def holm_verdicts(
    comparisons: Mapping[str, PairedComparison],
    *,
    mode: Literal["max", "min"],
    level: float = 0.95,
) -> dict[str, PairedComparison]:
    """Give comparisons that are read together, on a page or in a table, their verdicts.

    A verdict for each comparison alone would be wrong too often: of 11 comparisons without any
    difference, at least one "beats" or "is beaten by" in 43 % of tables (if independent). Holm
    keeps that at 1 − level.

    Args:
        comparisons: Name to comparison.
        mode: Whether a larger ("max") or a smaller ("min") metric is better.
        level: Probability that no verdict is wrong if nothing differs.

    Returns:
        The comparisons in the same order, with `p_holm` and the verdict set anew.

    Raises:
        ConfigError: `mode` or `level` is not allowed.

    Example:
        >>> pair = PairedComparison(0.231, 0.038, 0.424, 5, "beats", p=0.029)
        >>> holm_verdicts({"a": pair}, mode="max")["a"].verdict
        'beats'
        >>> holm_verdicts({"a": pair, "b": pair}, mode="max")["a"].verdict
        'no difference shown'
    """
    _check_mode(mode)
    _check_level(level)
    # comparisons over too few pairs give no verdict, so they must not cost the others any power
    tested = [c.p if c.n >= MIN_PAIRS else math.nan for c in comparisons.values()]
    return {
        name: dataclasses.replace(c, p_holm=p, verdict=_verdict(c, p, mode, level))
        for (name, c), p in zip(comparisons.items(), holm(tested).tolist(), strict=True)
    }


def _t_interval(values: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    from scipy import stats

    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return mean, float("nan"), float("nan")
    # t and not a bootstrap: with 3 to 10 replicates, the usual number, bootstrap intervals of a
    # mean are much too short. Divisor n − 1, the unbiased variance that t assumes
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return mean, mean - float(half), mean + float(half)


def _verdict(comparison: PairedComparison, p_holm: float, mode: str, level: float) -> Verdict:
    if comparison.n < MIN_PAIRS:
        return "hint only" if comparison.n else "not compared"
    # written so that NaN shows no difference
    if not p_holm < 1 - level:
        return "no difference shown"
    return "beats" if (comparison.difference > 0) == (mode == "max") else "is beaten by"


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Return Wilson's interval of a share, such as an accuracy on n test examples.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \quad p = successes/n

    Args:
        successes: Number of successes, 0 to n; not necessarily a whole number, if it is a mean
            over several fits.
        n: Number of trials, at least 1.
        level: Coverage of the interval, above 0 and below 1.

    Returns:
        Lower and upper end, in 0..1.

    Raises:
        ConfigError: `successes` is not in 0..n, or `n` or `level` is not allowed.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    from scipy import stats

    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(
            f"successes={successes} and n={n}: allowed is 0 <= successes <= n with n >= 1"
        )
    _check_level(level)
    # Wilson and not Wald, p ± z √(p(1 − p)/n): that one has length 0 for an accuracy of 1 and
    # covers far less than its level on small test sets (Brown, Cai and DasGupta 2001)
    z, p = float(stats.norm.ppf((1 + level) / 2)), successes / n
    center = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((center + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    # exactly 0 and 1 at the ends, which rounding may miss by 1e-17
    return max(0.0, low), min(1.0, high)


def _check_mode(mode: str) -> None:
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed is 'max' or 'min'")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: allowed is a number above 0 and below 1, such as 0.95")
