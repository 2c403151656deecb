"""Paired intervals against scipy, and their verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from synque_select.errors import ConfigError
from synque_select.functional.paired import (
    MIN_PAIRS,
    compare_paired,
    holm,
    holm_verdicts,
    paired_p,
    wilson_interval,
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_matches_scipy(seed: int, level: float):
    a, b = np.random.default_rng(seed).normal(size=(2, 5))
    comparison = compare_paired(a, b, mode="max", level=level)
    reference = stats.ttest_rel(a, b).confidence_interval(level)
    assert comparison.difference == pytest.approx(np.mean(a - b))
    assert (comparison.low, comparison.high) == pytest.approx((reference.low, reference.high))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=5, max_size=8))
@settings(max_examples=100, deadline=None)
def test_beats_only_where_the_interval_excludes_zero(pairs):
    a, b = np.array(pairs).T
    comparison = compare_paired(a, b, mode="max")
    assume(abs(comparison.p - 0.05) > 1e-9)
    assert (comparison.verdict == "beats") == (comparison.low > 0)
    assert (comparison.verdict == "is beaten by") == (comparison.high < 0)
    turned = compare_paired(b, a, mode="max")
    mirror = {"beats": "is beaten by", "is beaten by": "beats"}
    assert turned.verdict == mirror.get(comparison.verdict, comparison.verdict)
    assert turned.difference == pytest.approx(-comparison.difference)
    assert compare_paired(b, a, mode="min").verdict == comparison.verdict


@pytest.mark.parametrize("n", range(1, MIN_PAIRS))
def test_under_five_pairs_nothing_beats_however_clear_it_looks(n: int):
    rng = np.random.default_rng(n)
    comparison = compare_paired(0.9 + rng.normal(0, 1e-6, n), [0.1] * n, mode="max")
    assert comparison.verdict == "hint only"
    assert math.isnan(comparison.p_holm)
    assert math.isnan(comparison.low) == (n == 1)
    assert comparison.n == n


def test_an_interval_ends_at_the_largest_possible_difference():
    first, second = [0.9, 0.6], [0.2, 0.5]
    free = compare_paired(first, second, mode="max")
    ended = compare_paired(first, second, mode="max", bound=1.0)
    assert free.low < -1
    assert free.high > 1
    assert (ended.low, ended.high) == (-1.0, 1.0)
    # the test is the same
    assert (ended.difference, ended.p, ended.n) == (free.difference, free.p, free.n)
    alone = compare_paired([0.9], [0.2], mode="max", bound=1.0)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_a_difference_above_the_bound_is_an_error():
    with pytest.raises(ConfigError, match=r"difference of 70 is above bound=1"):
        compare_paired([90.0, 60.0], [20.0, 50.0], mode="max", bound=1.0)


def test_without_a_pair_nothing_is_compared():
    comparison = compare_paired([0.9, math.nan], [math.nan, 0.1], mode="max")
    assert (comparison.verdict, comparison.n) == ("not compared", 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_matches_scipy_and_can_be_read_off_the_interval(seed: int):
    a, b = np.random.default_rng(seed).normal(size=(2, 6))
    comparison = compare_paired(a, b, mode="max")
    assert comparison.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert comparison.p_holm == comparison.p
    assert paired_p(comparison.difference, comparison.low, comparison.high, 6) == pytest.approx(
        comparison.p
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_follows_its_definition(p_values):
    """Step down: the smallest is compared with α/m, the next with α/(m − 1), until one fails."""
    adjusted = holm(p_values)
    m = len(p_values)
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for step, place in enumerate(sorted(range(m), key=lambda i: p_values[i])):
            if p_values[place] * (m - step) > alpha:
                break
            rejected.add(place)
        assert rejected == {i for i in range(m) if adjusted[i] <= alpha}
    assert (adjusted >= np.asarray(p_values)).all()


def test_holm_does_not_count_what_was_not_tested():
    assert holm([0.04, math.nan])[0] == 0.04
    assert math.isnan(holm([0.04, math.nan])[1])
    assert len(holm([])) == 0
    with pytest.raises(ConfigError, match="allowed are numbers"):
        holm([1.2])


def test_a_family_of_nulls_has_a_verdict_in_at_most_five_percent_of_pages():
    """Eleven comparisons without a difference; each decided alone, it is 43 %."""
    rng, alone, together, n_pages = np.random.default_rng(0), 0, 0, 400
    for _ in range(n_pages):
        pairs = {
            str(i): compare_paired(rng.normal(size=5), rng.normal(size=5), mode="max")
            for i in range(11)
        }
        alone += any(pair.verdict != "no difference shown" for pair in pairs.values())
        family = holm_verdicts(pairs, mode="max")
        together += any(pair.verdict != "no difference shown" for pair in family.values())
    assert 0.36 <= alone / n_pages <= 0.5
    assert together / n_pages <= 0.075  # 0.05 and two standard errors


def test_few_pairs_do_not_cost_the_others_power():
    clear = compare_paired([0.9, 0.91, 0.92, 0.9, 0.9], [0.7, 0.72, 0.71, 0.7, 0.73], mode="max")
    few = compare_paired([0.9, 0.8], [0.1, 0.2], mode="max")
    family = holm_verdicts({"clear": clear, **{str(i): few for i in range(20)}}, mode="max")
    assert family["clear"].p_holm == clear.p
    assert family["clear"].verdict == "beats"


def test_a_replicate_that_was_not_run_is_left_out():
    comparison = compare_paired([0.9, 0.8, math.nan, 0.85], [0.5, 0.4, 0.1, 0.46], mode="max")
    assert comparison.n == 3
    assert comparison.difference == pytest.approx(np.mean([0.4, 0.4, 0.39]))


def test_no_difference_at_all_is_no_difference_shown():
    assert compare_paired([0.5] * 5, [0.5] * 5, mode="max").verdict == "no difference shown"


def test_the_paired_interval_has_its_nominal_coverage():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        shared, noise = rng.normal(size=5), rng.normal(size=5)
        comparison = compare_paired(shared + 0.3 + noise, shared, mode="max")
        hits += comparison.low <= 0.3 <= comparison.high
    assert 0.93 <= hits / 1000 <= 0.97


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="of the same length"):
        compare_paired([1.0], [1.0, 2.0], mode="max")
    with pytest.raises(ConfigError, match="mode='up'"):
        compare_paired([1.0], [1.0], mode="up")
    with pytest.raises(ConfigError, match="level=95"):
        compare_paired([1.0], [1.0], mode="max", level=95)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 7), (80, 100), (0.5, 6)])
def test_wilson_against_its_formula(k: float, n: int):
    z, p = stats.norm.ppf(0.975), k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = wilson_interval(k, n)
    assert (low, high) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


@pytest.mark.parametrize("k", [0, 3, 24])
def test_wilson_against_scipy(k: int):
    reference = stats.binomtest(k, 24).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, 24) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_checks_its_counts(k: int, n: int):
    with pytest.raises(ConfigError, match="successes"):
        wilson_interval(k, n)
