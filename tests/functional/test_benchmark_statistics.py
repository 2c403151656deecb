from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from synque_select.functional.benchmark_statistics import (
    GroupJackknife,
    agreement,
    gain_share,
    infer_test_size,
    noise_ceiling,
    own_vs_decoys_auc,
    random_choice_p_value,
    stratified_jackknife,
    top_k_gain,
)


def test_agreement_with_constant_values_is_undefined():
    assert all(map(math.isnan, agreement([1, 1, 1], [1, 2, 3])))
    assert all(map(math.isnan, agreement([1, 2, 3], [5, 5, 5])))
    assert all(map(math.isnan, agreement([1, 2], [1, 2])))
    assert all(map(math.isnan, agreement([1, math.nan, 3], [1, 2, 3])))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    deleted = np.array([np.delete(values, i).mean() for i in range(12)])
    estimate = stratified_jackknife([GroupJackknife(values.mean(), deleted)])
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 12**0.5)
    from scipy.stats import t

    low, high = t.interval(0.95, 11, values.mean(), estimate.standard_error)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_strata_add_up_and_undefined_groups_are_left_out():
    one = GroupJackknife(0.2, np.array([0.1, 0.3]))
    other = GroupJackknife(0.6, np.array([0.2, 1.0]))
    undefined = GroupJackknife(math.nan, np.array([math.nan, math.nan]))
    estimate = stratified_jackknife([one, other, undefined])
    assert estimate.value == pytest.approx(0.4)
    assert estimate.n_groups == 2
    assert estimate.standard_error == pytest.approx(math.sqrt(0.01 + 0.16) / 2)
    assert math.isnan(stratified_jackknife([undefined]).value)


def test_a_border_tie_is_the_mean_over_all_ways_to_break_it():
    performance = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    scores = np.array([5.0, 4.0, 4.0, 4.0, 1.0])
    ways = [performance[[0, *pair]].mean() for pair in itertools.combinations([1, 2, 3], 2)]
    assert top_k_gain(scores, performance, 3).chosen == pytest.approx(np.mean(ways))


def test_gain_share_of_the_oracle_is_one_and_of_the_worst_is_negative():
    performance = [0.1, 0.2, 0.6, 0.8]
    assert gain_share([top_k_gain(performance, performance, 2)]) == pytest.approx(1)
    assert gain_share([top_k_gain([4, 3, 2, 1], performance, 2)]) == pytest.approx(-1)
    assert math.isnan(gain_share([top_k_gain([1, 2, 3], [5, 5, 5], 2)]))


def test_exact_p_equals_enumeration():
    groups = [np.random.default_rng(i).choice([0.1, 0.25, 0.5, 0.8], size=6) for i in range(3)]
    draws = [[np.mean(c) for c in itertools.combinations(group, 3)] for group in groups]
    sums = np.array([sum(parts) for parts in itertools.product(*draws)])
    for chosen in (sums.min(), np.median(sums), sums.max()):
        expected = float((sums >= chosen - 1e-9).mean())
        assert random_choice_p_value(groups, 3, chosen) == pytest.approx(expected)


def test_exact_p_of_many_groups_stays_small_in_memory():
    groups = [np.random.default_rng(i).random(8) for i in range(11)]
    best = sum(np.sort(group)[-3:].mean() for group in groups)
    assert random_choice_p_value(groups, 3, best) == pytest.approx(56.0**-11, rel=1e-6)
    blind = sum(group.mean() for group in groups)
    assert random_choice_p_value(groups, 3, blind) == pytest.approx(0.5, abs=0.05)


def test_noise_ceiling_falls_with_the_test_set():
    performance = [0.40, 0.44, 0.48, 0.52, 0.56]
    ceilings = [noise_ceiling(performance, n, seed=0) for n in (10_000, 500, 50, 5)]
    assert ceilings == sorted(ceilings, reverse=True)
    assert ceilings[0] > 0.99
    assert ceilings[-1] < 0.4
    assert math.isnan(noise_ceiling([0.5, 0.5, 0.5], 100, seed=0))


@pytest.mark.parametrize("n", [41, 63, 167, 500])
def test_the_test_size_is_inferred_from_its_shares(n: int):
    generator = np.random.default_rng(n)
    shares = generator.choice(np.arange(1, n), size=8, replace=False) / n
    assert infer_test_size(np.round(shares, 4), 4) == n


def test_values_that_are_not_shares_have_no_test_size():
    shares = np.random.default_rng(0).random(8)
    assert infer_test_size(shares, 14) is None
    # two values of two decimals fit too many sizes to be informative
    assert infer_test_size([0.25, 0.5], 2) is None


def test_auc_against_scikit_learn():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    scores = generator.integers(0, 5, size=40).astype(float)
    own = generator.random(40) < 0.3
    assert own_vs_decoys_auc(scores, own) == pytest.approx(roc_auc_score(own, scores))


@pytest.mark.parametrize("value", [0.05, 0.5, -0.8])
def test_the_p_value_of_an_estimate_agrees_with_its_interval(value: float):
    deleted = value + np.array([0.1, -0.1, 0.05, -0.05, 0.0])
    estimate = stratified_jackknife([GroupJackknife(value, deleted)] * 2)
    assert (estimate.p < 0.05) == (estimate.low > 0 or estimate.high < 0)


def test_an_estimate_without_an_interval_has_no_p_value():
    """A deleted candidate can leave scores that are all equal, so that nothing is defined."""
    estimate = stratified_jackknife([GroupJackknife(-0.2, np.array([-0.2, math.nan, -0.1]))])
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.p)
    assert stratified_jackknife([GroupJackknife(0.5, np.full(3, 0.5))]).p == 0
    assert stratified_jackknife([GroupJackknife(0.0, np.zeros(3))]).p == 1
