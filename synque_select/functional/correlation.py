"""How well a proxy's scores agree with validation, over few units and honestly."""

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

__all__ = ["MIN_UNITS", "Coefficient", "Correlation", "bonett_wright_interval", "correlate_scores"]

MIN_UNITS = 5
_MAX_EXACT_UNITS = 9  # 9! = 362,880 permutations
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coefficient:
    """A correlation coefficient, + where the proxy was right.

    Args:
        value: In −1..1; NaN where undefined.
        p: Two-sided permutation p; NaN where undefined.
        low: Lower end of the 95 % interval; None for a coefficient that is given none, NaN where
            it is undefined.
        high: Upper end.
    """

    value: float = math.nan
    p: float = math.nan
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float]:
        """Return plain values, without the ends where there are none."""
        return {name: value for name, value in vars(self).items() if value is not None}


_UNDEFINED_SPEARMAN = Coefficient(low=math.nan, high=math.nan)


@dataclass(frozen=True)
class Correlation:
    """Agreement of one proxy with validation over n distinct units.

    Args:
        n: Units with a finite score and a finite validation figure.
        pearson: Of the values.
        spearman: Of the ranks, with its Bonett-Wright interval.
        kendall: Tau-b.
        p_method: How p was computed: exactly, or from how many random permutations.
        message: What a reader must know: why something is undefined, what was left out.
    """

    n: int
    pearson: Coefficient = field(default_factory=Coefficient)
    spearman: Coefficient = _UNDEFINED_SPEARMAN
    kendall: Coefficient = field(default_factory=Coefficient)
    p_method: str = ""
    message: str = ""

    @property
    def verdict(self) -> str:
        """What may be said: "agrees", "contradicts", "too few to tell", or "no coefficient"."""
        low, high, value = self.spearman.low, self.spearman.high, self.spearman.value
        if math.isnan(value) or low is None or high is None:
            return "no coefficient"
        if math.isnan(low):  # a perfect order has no interval: its exact p decides
            low = high = value if self.spearman.p < 0.05 else 0.0
        if low > 0:
            return "agrees"
        return "contradicts" if high < 0 else "too few to tell"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `result.json` has them; NaN is left for the writer."""
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
        """Read what `to_dict` wrote, null for undefined."""

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
    r"""Correlate a proxy's raw scores with validation figures, oriented: + means it was right.

    Pearson, Spearman and Kendall's tau-b are scipy's. p is two-sided, twice the smaller of the
    shares of permutations whose coefficient is at most, or at least, the observed one (at most
    1): over all n! permutations up to n = 9, else over random ones, whose number stands in
    `p_method`. Spearman's 95 % interval is

    .. math:: \tanh\left(\operatorname{artanh} r \pm 1.96 \sqrt{(1 + r^2/2)/(n - 3)}\right).

    Args:
        scores: (n,) the proxy's raw score of each distinct unit; pairs with a score or a figure
            that is not finite are left out, and counted in the message.
        validation: (n,) the validation figure of the same units; seeds averaged before.
        higher_is_better: The proxy's orientation.
        mode: "max" where a larger validation figure is better, else "min".
        seed: Of random permutations.

    Returns:
        The coefficients. All are NaN, with a message that says why, under 5 units and where one
        side is constant.

    Raises:
        ConfigError: The two differ in length, or mode is not allowed.

    Source:
        Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
        correlations", Psychometrika 2000.

    Example:
        >>> pad = [0.2, 0.5, 0.9, 1.1, 1.6, 1.4]
        >>> accuracy = [0.91, 0.88, 0.80, 0.75, 0.40, 0.55]
        >>> found = correlate_scores(pad, accuracy, higher_is_better=False, mode="max")
        >>> found.n, round(found.spearman.value, 3), found.p_method
        (6, 1.0, 'exact, over 720 permutations')
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(validation, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ConfigError(f"scores and validation need one length, found {x.shape} and {y.shape}")
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed is 'max' or 'min'")
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite] * (1 if higher_is_better else -1), y[finite] * (1 if mode == "max" else -1)
    n_left_out = int((~finite).sum())
    notes = [f"{n_left_out} left out: undefined score or figure"] if n_left_out else []
    if reason := _undefined(x, y):
        return Correlation(len(x), message="; ".join([*notes, reason]))
    return _correlate(x, y, seed, notes)


def _undefined(x: _Array, y: _Array) -> str:
    if len(x) < MIN_UNITS:
        return f"{len(x)} distinct units: {MIN_UNITS - len(x)} more are needed for a coefficient"
    for values, words in ((x, "all scores are equal"), (y, "all validation figures are equal")):
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return f"{words}: a correlation is undefined"
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
    """Return the interval of Spearman's coefficient r over n units; NaN where |r| is 1 or n < 4.

    Example:
        >>> low, high = bonett_wright_interval(0.7, 12)
        >>> round(low, 3), round(high, 3)
        (0.137, 0.921)
    """
    from scipy import stats

    if n < 4 or not abs(r) < 1 - 1e-12:
        return math.nan, math.nan
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt((1 + r**2 / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _scaled(values: _Array) -> _Array:
    values = values / np.abs(values).max()
    values = values - values.mean()
    return values / np.linalg.norm(values)


@lru_cache(maxsize=4)
def _permutations(n: int, seed: int) -> tuple[NDArray[np.int16], str]:
    """Return orders, (B, n), and how they were made: all of them, or random ones."""
    if n <= _MAX_EXACT_UNITS:
        flat = itertools.chain.from_iterable(itertools.permutations(range(n)))
        orders = np.fromiter(flat, dtype=np.int16).reshape(-1, n)
        return orders, f"exact, over {len(orders):,} permutations"
    # fewer where there are many units: the cost of tau-b grows with their square
    n_random = 99_999 if n <= 30 else 9_999 if n <= 100 else 999
    tiled = np.tile(np.arange(n, dtype=np.int16), (n_random, 1))
    orders = np.random.default_rng(seed).permuted(tiled, axis=1)
    return orders, f"over {n_random:,} random permutations, seed {seed}"


def _p_product(x: _Array, y: _Array, orders: NDArray[np.int16], exact: bool) -> float:
    """P of Pearson's coefficient; of Spearman's, where x and y are ranks."""
    x, y = _scaled(x), _scaled(y)
    return _two_sided(y[orders] @ x, float(x @ y), exact)


def _p_concordance(x: _Array, y: _Array, orders: NDArray[np.int16], exact: bool) -> float:
    """P of tau-b: its denominator is the same for every permutation, its numerator counts pairs."""
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
    tolerance = 1e-12  # sums of the same terms in another order are ties
    n_low = int((null <= observed + tolerance).sum())
    n_high = int((null >= observed - tolerance).sum())
    # among random permutations the observed one counts, so that p is never 0
    share = min(n_low, n_high) / len(null) if exact else (min(n_low, n_high) + 1) / (len(null) + 1)
    return min(1.0, 2 * share)
