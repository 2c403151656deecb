"""Paired comparisons of training arms, and the interval of a share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from synque_select.errors import ConfigError

__all__ = ["PairedComparison", "Verdict", "compare_paired", "wilson_interval"]

Verdict = Literal["beats", "is beaten by", "no difference shown"]


@dataclass(frozen=True)
class PairedComparison:
    """The mean difference of two arms over paired replicates.

    Args:
        difference: Mean of first − second, in the metric's unit, its sign flipped nowhere.
        low: Lower end of the paired t-interval; NaN under 2 pairs.
        high: Upper end.
        n: Number of pairs.
        verdict: What may be said of the first arm.
    """

    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `result.json` has them; NaN is left for the writer."""
        return vars(self).copy()


def compare_paired(
    first: ArrayLike, second: ArrayLike, *, mode: Literal["max", "min"], level: float = 0.95
) -> PairedComparison:
    r"""Compare two arms by the paired t-interval of their difference.

    .. math:: \bar d \pm t_{n-1,\,(1+\text{level})/2} \; s_d / \sqrt n, \quad d = first - second

    Args:
        first: (n,) a figure of the first arm a replicate; NaN where it was not run.
        second: (n,) of the second arm, of the same replicates in the same order.
        mode: Whether a larger ("max") or a smaller ("min") figure is better.
        level: Of the interval.

    Returns:
        "beats" only where the interval excludes 0 on the better side; "no difference shown" where
        it contains 0, or where fewer than 2 pairs make an interval impossible.

    Raises:
        ConfigError: The arms differ in length, or an argument is not allowed.

    Source:
        Student, "The probable error of a mean", Biometrika 1908.

    Example:
        >>> compare_paired([0.80, 0.82, 0.81], [0.70, 0.73, 0.71], mode="max").verdict
        'beats'
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ConfigError(f"paired arms need one length, found shapes {a.shape} and {b.shape}")
    _check_mode(mode)
    _check_level(level)
    differences = (a - b)[np.isfinite(a - b)]
    mean, low, high = _t_interval(differences, level)
    return PairedComparison(mean, low, high, len(differences), _verdict(low, high, mode))


def _t_interval(values: np.ndarray[Any, Any], level: float) -> tuple[float, float, float]:
    from scipy import stats

    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return mean, mean - float(half), mean + float(half)


def _verdict(low: float, high: float, mode: str) -> Verdict:
    if not (low > 0 or high < 0):
        return "no difference shown"
    return "beats" if (low > 0) == (mode == "max") else "is beaten by"


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Return Wilson's interval of a share, such as an accuracy on n test examples.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \quad p = successes/n

    Args:
        successes: How many of the n; no whole number where it is a mean over several fits.
        n: At least 1.
        level: Of the interval.

    Raises:
        ConfigError: `successes` is not in 0..n, or n or level is not allowed.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    from scipy import stats

    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"successes={successes} of n={n}: allowed is 0 <= successes <= n, n >= 1")
    _check_level(level)
    z, p = float(stats.norm.ppf((1 + level) / 2)), successes / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def _check_mode(mode: str) -> None:
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed is 'max' or 'min'")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: allowed is a share between 0 and 1")
