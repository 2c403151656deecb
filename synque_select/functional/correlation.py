"""Agreement of a proxy's scores with validation figures, with p-values that hold for few units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

__all__ = ["MIN_UNITS", "Coefficient", "Correlation", "bonett_wright_interval", "correlate_scores"]

# fewer units give no coefficient: with 4 units the smallest two-sided p is 2/4! = 0.083, so that
# no result could ever be significant
MIN_UNITS = 5
# 9! = 362,880 permutations take a fraction of a second; 10! would take ten times as long
_MAX_EXACT_UNITS = 9
# units whose n²/2 pairs are counted in each permutation, for tau-b
_MAX_PERMUTED = 100
# values that are permuted at once: they stay in the cache of a core
_PERMUTED_AT_ONCE = 2**16
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coefficient:
    """A correlation coefficient, positive if the proxy agrees with validation.

    Args:
        value: Coefficient in −1..1; NaN if undefined.
        p: Two-sided permutation p-value; NaN if undefined.
        low: Lower end of the 95 % interval; None for a coefficient without an interval, NaN if
            the interval is undefined.
        high: Upper end of the 95 % interval, likewise.
    """

    value: float = math.nan
    p: float = math.nan
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float]:
        """Return plain values, without the ends for a coefficient that has no interval."""
        return {name: value for name, value in vars(self).items() if value is not None}


_UNDEFINED_SPEARMAN = Coefficient(low=math.nan, high=math.nan)


@dataclass(frozen=True)
class Correlation:
    """Agreement of one proxy with validation over n distinct units.

    Args:
        n: Number of units with a finite score and a finite validation figure.
        pearson: Pearson's coefficient of the values.
        spearman: Spearman's coefficient, with its Bonett-Wright interval.
        kendall: Kendall's tau-b.
        p_method: How p was computed: exactly, or from how many random permutations.
        message: Why a coefficient is undefined and which units were left out; "" if neither.
    """

    n: int
    pearson: Coefficient = field(default_factory=Coefficient)
    spearman: Coefficient = _UNDEFINED_SPEARMAN
    kendall: Coefficient = field(default_factory=Coefficient)
    p_method: str = ""
    message: str = ""

    @property
    def verdict(self) -> str:
        """Conclusion: "agrees", "contradicts", "too few to tell", or "no coefficient"."""
        low, high, value = self.spearman.low, self.spearman.high, self.spearman.value
        if math.isnan(value) or low is None or high is None:
            return "no coefficient"
        # artanh(±1) is infinite, so a perfect order has no interval: its exact p decides
        if math.isnan(low):
            low = high = value if self.spearman.p < 0.05 else 0.0
        if low > 0:
            return "agrees"
        return "contradicts" if high < 0 else "too few to tell"

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `result.json`; the writer turns NaN into null."""
        return {
            "n": self.n,
            "pearson": self.pearson.to_dict(),
            "spearman": self.spearman.to_dict(),
            "kendall": self.kendall.to_dict(),
            "p_method": self.p_method,
            "verdict": self.verdict,
            "message": self.message,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Correlation:
        """Read what `to_dict` returned, with null for undefined values."""

        def coefficient(name: str) -> Coefficient:
            parts = {key: math.nan if v is None else v for key, v in state[name].items()}
            return Coefficient(**parts)

        return cls(
            state["n"],
            coefficient("pearson"),
            coefficient("spearman"),
            coefficient("kendall"),
            state.get("p_method", ""),
            state.get("message", ""),
        )


def correlate_scores(
    scores: ArrayLike,
    validation: ArrayLike,
    *,
    higher_is_better: bool,
    mode: Literal["max", "min"],
    seed: int = 0,
) -> Correlation:
    r"""Correlate a proxy's raw scores with validation figures; positive means that they agree.

    Both are oriented first, so the sign does not depend on whether lower is better. Pearson,
    Spearman and Kendall's tau-b are scipy's. p is two-sided: twice the smaller of the shares of
    permutations whose coefficient is at most, or at least, the observed one (at most 1). All n!
    permutations are used up to n = 9, random ones above; `p_method` gives their number. Above
    n = 100, that of tau-b is the normal approximation: all pairs in all permutations take minutes.
    Spearman's 95 % interval is

    .. math:: \tanh\left(\operatorname{artanh} r \pm 1.96 \sqrt{(1 + r^2/2)/(n - 3)}\right).

    Args:
        scores: (n,) the proxy's raw score of each distinct unit. Units whose score or figure is
            not finite are left out and counted in the message.
        validation: (n,) the validation figure of the same units, averaged over seeds.
        higher_is_better: The proxy's orientation.
        mode: "max" if a larger validation figure is better, "min" if a smaller one is.
        seed: Random seed for the permutations, if they are drawn at random.

    Returns:
        The coefficients. All are NaN, with a message that gives the reason, for fewer than 5
        units and if the scores or the figures are constant.

    Raises:
        ConfigError: The arguments differ in length, or `mode` is not allowed.

    Source:
        Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
        correlations", Psychometrika 2000.

    Example:
        >>> pad = [0.2, 0.5, 0.9, 1.1, 1.6, 1.4]
        >>> accuracy = [0.91, 0.88, 0.80, 0.75, 0.40, 0.55]
        >>> agreement = correlate_scores(pad, accuracy, higher_is_better=False, mode="max")
        >>> agreement.n, round(agreement.spearman.value, 3), agreement.p_method
        (6, 1.0, 'exact, over 720 permutations')
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(validation, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ConfigError(
            f"scores have shape {x.shape} and validation has shape {y.shape}: both must be "
            "one-dimensional and of the same length"
        )
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed is 'max' or 'min'")
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite] * (1 if higher_is_better else -1), y[finite] * (1 if mode == "max" else -1)
    n_left_out = int((~finite).sum())
    notes = [f"{n_left_out} left out: score or validation figure undefined"] if n_left_out else []
    if reason := _undefined(x, y):
        return Correlation(len(x), message="; ".join([*notes, reason]))
    return _correlate(x, y, seed, notes)


def _undefined(x: _Array, y: _Array) -> str:
    if len(x) < MIN_UNITS:
        units = counted(len(x), "distinct unit")
        return f"{units}: {MIN_UNITS - len(x)} more are needed for a coefficient"
    for values, reason in ((x, "all scores are equal"), (y, "all validation figures are equal")):
        # a range of 1e-12 of the values is rounding: its "correlation" would be noise
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return f"{reason}: a correlation is undefined"
    return ""


def _correlate(x: _Array, y: _Array, seed: int, notes: list[str]) -> Correlation:
    from scipy import stats

    n = len(x)
    x, y = _scaled(x), _scaled(y)
    ranks = stats.rankdata(x), stats.rankdata(y)
    orders, p_method = _permutations(n, seed)
    r = float(stats.spearmanr(x, y).statistic)
    low, high = bonett_wright_interval(r, n)
    if math.isnan(low):
        notes = [*notes, "no interval: the formula has none for a perfect order"]
    exact = n <= _MAX_EXACT_UNITS
    return Correlation(
        n=n,
        pearson=Coefficient(float(stats.pearsonr(x, y).statistic), _p_product(x, y, orders, exact)),
        spearman=Coefficient(r, _p_product(*ranks, orders, exact), low, high),
        kendall=Coefficient(
            float(stats.kendalltau(x, y).statistic), _p_concordance(x, y, orders, exact)
        ),
        p_method=p_method,
        message="; ".join(notes),
    )


def bonett_wright_interval(r: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the Bonett-Wright interval of Spearman's coefficient.

    tanh(artanh r ± z √((1 + r²/2) / (n − 3))), z the normal quantile of (1 + level) / 2.

    Args:
        r: Spearman's coefficient, in −1..1.
        n: Number of units.
        level: Coverage of the interval, above 0 and below 1.

    Returns:
        Lower and upper end; both NaN if |r| is 1 or n < 4.

    Source:
        Bonett and Wright 2000, Psychometrika 65.

    Example:
        >>> low, high = bonett_wright_interval(0.7, 12)
        >>> round(low, 3), round(high, 3)
        (0.137, 0.921)
    """
    from scipy import stats

    # scipy may return 1 − 1e-16 for a perfect order, whose artanh is finite and meaningless
    if n < 4 or not abs(r) < 1 - 1e-12:
        return math.nan, math.nan
    # Fisher's variance 1/(n − 3) is too small for ranks; the factor 1 + r²/2 corrects it
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt((1 + r**2 / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _scaled(values: _Array) -> _Array:
    """Centered, of unit norm: a product of two such vectors is Pearson's coefficient."""
    # by the largest entry first, or the squares of values such as 1e200 overflow
    values = values / np.abs(values).max()
    values = values - values.mean()
    return values / np.linalg.norm(values)


@lru_cache(maxsize=4)
def _permutations(n: int, seed: int) -> tuple[NDArray[np.int16], str]:
    """Return orders, (B, n), and a description: all of them, or how many random ones.

    Cached, because a ranking asks for the same n once per proxy.
    """
    if n <= _MAX_EXACT_UNITS:
        flat = itertools.chain.from_iterable(itertools.permutations(range(n)))
        orders = np.fromiter(flat, dtype=np.int16).reshape(-1, n)
        return orders, f"exact, over {counted(len(orders), 'permutation')}"
    # the cost of tau-b grows with n², so many units get fewer permutations
    n_random = 99_999 if n <= 30 else 9_999 if n <= 100 else 999
    tiled = np.tile(np.arange(n, dtype=np.int16), (n_random, 1))
    orders = np.random.default_rng(seed).permuted(tiled, axis=1)
    return orders, f"over {counted(n_random, 'random permutation')}, seed {seed}"


def _p_product(x: _Array, y: _Array, orders: NDArray[np.int16], exact: bool) -> float:
    """P-value of Pearson's coefficient, or of Spearman's if x and y are ranks."""
    # a permutation changes neither mean nor norm, so one product per permutation is enough
    x, y = _scaled(x), _scaled(y)
    at_once = max(1, _PERMUTED_AT_ONCE // len(y))
    blocks = [orders[i : i + at_once] for i in range(0, len(orders), at_once)]
    null = np.concatenate([y[block] @ x for block in blocks])
    return _two_sided(null, float(x @ y), exact)


def _p_concordance(x: _Array, y: _Array, orders: NDArray[np.int16], exact: bool) -> float:
    """P-value of tau-b, from its numerator: the concordant less the discordant pairs."""
    # the denominator depends on ties alone and is the same for every permutation; what is left
    # are whole numbers, so that ties with the observed value are exact
    if len(x) > _MAX_PERMUTED:
        from scipy import stats

        return float(stats.kendalltau(x, y, method="asymptotic").pvalue)
    signs_x, signs_y = (np.sign(v[:, None] - v).astype(np.int8) for v in (x, y))
    null = np.zeros(len(orders), dtype=np.int64)
    for i, j in _pairs(signs_x):
        null += signs_x[i, j] * signs_y[orders[:, i], orders[:, j]]
    observed = sum(int(signs_x[i, j]) * int(signs_y[i, j]) for i, j in _pairs(signs_x))
    return _two_sided(null.astype(np.float64), float(observed), exact)


def _pairs(signs: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    pairs = itertools.combinations(range(len(signs)), 2)
    return ((i, j) for i, j in pairs if signs[i, j])


def _two_sided(null: _Array, observed: float, exact: bool) -> float:
    # a permutation that sums the same terms in another order ties with the observed value, though
    # its last digits differ
    tolerance = 1e-12
    n_low = int((null <= observed + tolerance).sum())
    n_high = int((null >= observed - tolerance).sum())
    # all permutations contain the observed one; among random ones it is counted in addition, so
    # that p is never 0 (Phipson and Smyth 2010)
    share = min(n_low, n_high) / len(null) if exact else (min(n_low, n_high) + 1) / (len(null) + 1)
    return min(1.0, 2 * share)
