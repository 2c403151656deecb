"""Paired comparisons of training arms, and confidence intervals of a share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json

__all__ = ["PairedComparison", "Verdict", "compare_paired", "wilson_interval"]

Verdict = Literal["beats", "is beaten by", "no difference shown"]


@dataclass(frozen=True)
class PairedComparison:
    """The mean difference of two arms over paired replicates.

    Args:
        difference: Mean of first − second in the unit of the metric; not oriented, so a negative
            difference is better if the metric is minimized. NaN without a pair.
        low: Lower end of the paired t-interval; NaN for fewer than 2 pairs.
        high: Upper end of the paired t-interval; NaN for fewer than 2 pairs.
        n: Number of pairs.
        verdict: Conclusion about the first arm.
    """

    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `result.json`; the writer turns NaN into null."""
        return vars(self).copy()


def compare_paired(
    first: ArrayLike, second: ArrayLike, *, mode: Literal["max", "min"], level: float = 0.95
) -> PairedComparison:
    r"""Compare two arms by the paired t-interval of their difference.

    .. math:: \bar d \pm t_{n-1,\,(1+\text{level})/2} \; s_d / \sqrt n, \quad d = first - second

    Args:
        first: (n,) metric of the first arm in each replicate; NaN for a replicate that was not run.
        second: (n,) metric of the second arm, of the same replicates in the same order.
        mode: Whether a larger ("max") or a smaller ("min") metric is better.
        level: Coverage of the interval, above 0 and below 1.

    Returns:
        The comparison. Its verdict is "beats" only if the interval excludes 0 on the better side;
        "no difference shown" if it contains 0, or if fewer than 2 pairs make an interval
        impossible.

    Raises:
        ConfigError: The arms differ in length, or `mode` or `level` is not allowed.

    Source:
        Student, "The probable error of a mean", Biometrika 1908.

    Example:
        >>> compare_paired([0.80, 0.82, 0.81], [0.70, 0.73, 0.71], mode="max").verdict
        'beats'
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
    mean, low, high = _t_interval(differences, level)
    return PairedComparison(mean, low, high, len(differences), _verdict(low, high, mode))


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


def _verdict(low: float, high: float, mode: str) -> Verdict:
    # written so that NaN ends, of fewer than 2 pairs, show no difference
    if not (low > 0 or high < 0):
        return "no difference shown"
    return "beats" if (low > 0) == (mode == "max") else "is beaten by"


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
