"""Coefficients and p-values against scipy, orientation, and undefined cases."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from synque_select.errors import ConfigError
from synque_select.functional import correlation as module
from synque_select.functional.correlation import (
    Correlation,
    bonett_wright_interval,
    correlate_scores,
)


def correlate(x, y, higher_is_better=True, mode="max", **options) -> Correlation:
    return correlate_scores(x, y, higher_is_better=higher_is_better, mode=mode, **options)


def drawn(n: int, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=n)
    return (x, y) if not ties else (np.round(x), np.round(2 * y) / 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("seed", range(3))
def test_coefficients_and_exact_p_match_scipy(n: int, seed: int, ties: bool):
    x, y = drawn(n, seed, ties)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        pytest.skip("drawn constant")
    correlation = correlate(x, y)
    references = {
        "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
        "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
        "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
    }
    for name, statistic in references.items():
        coefficient = getattr(correlation, name)
        assert coefficient.value == pytest.approx(statistic(x, y), abs=1e-12)
        test = stats.permutation_test(
            (x,),
            lambda a, y=y, statistic=statistic: statistic(a, y),
            permutation_type="pairings",
            n_resamples=np.inf,
        )
        assert coefficient.p == pytest.approx(test.pvalue, abs=1e-12), name


def test_random_permutations_approximate_the_exact_p_and_are_reported():
    x, y = drawn(10, 1, ties=False)
    correlation = correlate(x, y)
    assert correlation.p_method == "over 99,999 random permutations, seed 0"
    exact = stats.kendalltau(x, y, method="exact").pvalue
    assert correlation.kendall.p == pytest.approx(exact, abs=0.01)
    assert correlate(x, y) == correlation
    assert correlate(x, y, seed=1).kendall.p != correlation.kendall.p


@pytest.mark.parametrize("n", [5, 9, 12])
def test_a_perfect_order_has_the_smallest_p_and_no_interval(n: int):
    correlation = correlate(range(n), np.arange(n) ** 3)
    assert correlation.spearman.value == pytest.approx(1)
    # among random permutations the observed one is counted too, so p is not 0
    smallest = 2 / math.factorial(n) if n <= 9 else 2 / 100_000
    assert correlation.kendall.p == pytest.approx(smallest)
    assert math.isnan(correlation.spearman.low)
    assert math.isnan(correlation.spearman.high)
    assert "no interval" in correlation.message
    assert correlation.verdict == "agrees"


@given(
    st.lists(
        st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=5, max_size=7, unique=True
    ),
    st.booleans(),
    st.sampled_from(["max", "min"]),
)
@settings(max_examples=40, deadline=None)
def test_reversing_an_orientation_reverses_the_sign_and_keeps_p(pairs, higher, mode):
    x, y = np.array(pairs, dtype=float).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    correlation = correlate(x, y, higher, mode)
    for turned in (
        correlate(x, y, not higher, mode),
        correlate(x, y, higher, "min" if mode == "max" else "max"),
        correlate(-x, y, higher, mode),
    ):
        for name in ("pearson", "spearman", "kendall"):
            ours, theirs = getattr(correlation, name), getattr(turned, name)
            assert theirs.value == pytest.approx(-ours.value, abs=1e-12)
            assert theirs.p == pytest.approx(ours.p, abs=1e-12)
    both = correlate(x, y, not higher, "min" if mode == "max" else "max")
    assert both.spearman.value == pytest.approx(correlation.spearman.value, abs=1e-12)


@given(st.integers(0, 10_000), st.floats(0.001, 1000), st.floats(-1000, 1000))
@settings(max_examples=25, deadline=None)
def test_scaling_and_shifting_the_scores_changes_nothing(seed, scale, shift):
    x, y = drawn(6, seed, ties=False)
    correlation, scaled = correlate(x, y), correlate(x * scale + shift, y)
    for name in ("pearson", "spearman", "kendall"):
        assert getattr(scaled, name).value == pytest.approx(
            getattr(correlation, name).value, abs=1e-6
        )
        assert getattr(scaled, name).p == pytest.approx(getattr(correlation, name).p, abs=1e-12)


def test_the_order_of_the_units_changes_nothing():
    x, y = drawn(8, 3, ties=True)
    order = np.random.default_rng(0).permutation(8)
    correlation, turned = correlate(x, y), correlate(x[order], y[order])
    assert turned.spearman.value == pytest.approx(correlation.spearman.value, abs=1e-12)
    assert turned.pearson.p == pytest.approx(correlation.pearson.p, abs=1e-12)


def test_positive_means_that_the_proxy_agrees():
    distance, accuracy, loss = [0.1, 0.2, 0.3, 0.4, 0.6], [9, 8, 6, 7, 5], [1, 2, 4, 3, 5]
    assert correlate(distance, accuracy, higher_is_better=False).spearman.value > 0.8
    assert correlate(distance, loss, higher_is_better=False, mode="min").spearman.value > 0.8
    assert correlate(distance, accuracy, higher_is_better=True).spearman.value < -0.8


@pytest.mark.parametrize("n", range(5))
def test_fewer_than_five_units_give_no_coefficient(n: int):
    correlation = correlate(range(n), range(n))
    assert correlation.n == n
    for coefficient in (correlation.pearson, correlation.spearman, correlation.kendall):
        assert math.isnan(coefficient.value)
        assert math.isnan(coefficient.p)
    assert f"{5 - n} more" in correlation.message
    assert correlation.verdict == "no coefficient"


@pytest.mark.parametrize("constant", [0.0, 1e6, -3.0])
def test_constant_values_are_undefined_with_a_reason(constant: float):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = correlate([constant] * 6, range(6))
        figures = correlate(range(6), [constant] * 6)
    assert math.isnan(scores.pearson.value)
    assert "all scores are equal" in scores.message
    assert math.isnan(figures.kendall.p)
    assert "all validation figures are equal" in figures.message


def test_values_that_differ_by_rounding_are_constant():
    x = 1e6 + np.array([0, 1, 2, 1, 0, 2]) * 1e-10
    assert math.isnan(correlate(x, range(6)).spearman.value)


def test_undefined_pairs_are_left_out_and_counted():
    x = [1.0, math.nan, 2.0, 3.0, 5.0, 4.0, math.inf]
    y = [1.0, 2.0, 2.5, 3.0, 4.0, 6.0, 7.0]
    correlation = correlate(x, y)
    assert correlation.n == 5
    assert "2 left out" in correlation.message
    assert correlation.spearman.value == pytest.approx(0.9)


def test_the_interval_is_that_of_bonett_and_wright():
    r, n = 0.6, 15
    half = stats.norm.ppf(0.975) * math.sqrt((1 + r**2 / 2) / (n - 3))
    low, high = bonett_wright_interval(r, n)
    assert low == pytest.approx(math.tanh(math.atanh(r) - half))
    assert high == pytest.approx(math.tanh(math.atanh(r) + half))
    assert bonett_wright_interval(-r, n) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("r", "n"), [(1.0, 10), (-1.0, 10), (math.nan, 10), (0.5, 3)])
def test_an_interval_that_does_not_exist_is_nan(r: float, n: int):
    assert all(map(math.isnan, bonett_wright_interval(r, n)))


def test_too_few_to_tell_exactly_where_the_interval_contains_zero():
    for seed in range(30):
        x, y = drawn(6 + seed % 3, seed, ties=False)
        correlation = correlate(x, y)
        low, high = correlation.spearman.low, correlation.spearman.high
        if math.isnan(low):
            continue
        assert (correlation.verdict == "too few to tell") == (low <= 0 <= high)
        assert (correlation.verdict == "contradicts") == (high < 0)


def test_the_interval_has_its_nominal_coverage():
    rng, rho, hits = np.random.default_rng(0), 0.5, 0
    # the rank correlation of normal pairs with correlation rho
    true = 6 / math.pi * math.asin(rho / 2)
    for _ in range(500):
        x, e = rng.normal(size=(2, 20))
        r = stats.spearmanr(x, rho * x + math.sqrt(1 - rho**2) * e).statistic
        low, high = bonett_wright_interval(float(r), 20)
        hits += low <= true <= high
    assert 0.92 <= hits / 500 <= 0.98


def test_dict_round_trip():
    for correlation in (correlate(*drawn(7, 0, ties=False)), correlate([1] * 3, [1] * 3)):
        again = Correlation.from_dict(correlation.to_dict())
        assert again.to_dict().keys() == correlation.to_dict().keys()
        assert repr(again) == repr(correlation)
    assert set(correlation.to_dict()["pearson"]) == {"value", "p"}
    assert set(correlation.to_dict()["spearman"]) == {"value", "p", "low", "high"}


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="of the same length"):
        correlate([1, 2], [1, 2, 3])
    with pytest.raises(ConfigError, match="mode='best'"):
        correlate(range(5), range(5), mode="best")


def test_time_is_bounded_for_many_units():
    x, y = drawn(120, 0, ties=False)
    result = correlate(x, y)
    assert result.p_method.startswith("over 999 random")
    # of more units, p of tau-b is an approximation, near that of Spearman's by permutations
    assert result.kendall.p == pytest.approx(result.spearman.p, abs=0.05)
    start = time.process_time()
    correlate(*drawn(1000, 0, ties=True))
    assert time.process_time() - start < 10  # all pairs in all permutations take minutes


def test_p_does_not_depend_on_how_many_are_permuted_at_once(monkeypatch: pytest.MonkeyPatch):
    x, y = drawn(120, 3, ties=True)
    expected = correlate(x, y)
    monkeypatch.setattr(module, "_PERMUTED_AT_ONCE", 1000)
    assert correlate(x, y) == expected
