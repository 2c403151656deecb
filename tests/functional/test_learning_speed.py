"""Weights by learning curves and by closeness: against numpy, and in their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.errors import ConfigError
from synque_select.functional.learning_speed import (
    closeness_weights,
    curve_slopes,
    learning_speed_weights,
)

seeds = st.integers(0, 10_000)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(1, 6))
def test_slopes_are_those_of_numpy(seed, n, k):
    generator = np.random.default_rng(seed)
    steps = np.sort(generator.choice(10_000, n, replace=False))
    losses = generator.normal(size=(n, k))
    expected = np.polyfit(steps, losses, 1)[0]
    assert curve_slopes(steps, losses) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_an_unknown_loss_has_no_slope_and_leaves_the_others_alone():
    slopes = curve_slopes([0, 1], [[1.0, 5.0], [math.nan, 3.0]])
    assert math.isnan(slopes[0])
    assert slopes[1] == -2


def test_the_fastest_falling_loss_has_the_highest_weight():
    steps = np.arange(5) * 20
    curves = np.stack([np.exp(-steps / scale) for scale in (1000, 30, 200)], axis=1)
    weights = learning_speed_weights(np.full(3, 1 / 3), curve_slopes(steps, curves))
    assert weights.argsort().tolist() == [0, 2, 1]


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(0, 1))
def test_weights_by_speed_are_a_mixture_above_a_share_of_the_prior(seed, k, keep):
    generator = np.random.default_rng(seed)
    prior, slopes = generator.dirichlet(np.ones(k)), generator.normal(size=k)
    weights = learning_speed_weights(prior, slopes, keep)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= keep * prior - 1e-12).all()
    assert learning_speed_weights(prior, 1000 * slopes, keep) == pytest.approx(weights)


def test_where_nothing_is_learned_the_prior_stays():
    prior = [0.2, 0.8]
    for slopes in ([0.1, 0.0], [math.nan, math.nan]):
        assert learning_speed_weights(prior, slopes) == pytest.approx(prior)


def test_an_unknown_slope_counts_as_the_mean():
    weights = learning_speed_weights([1 / 3] * 3, [-1.0, math.nan, -3.0], keep=0.0)
    assert weights == pytest.approx([1 / 6, 2 / 6, 3 / 6])


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(0.01, 1000))
def test_weights_by_closeness_fall_with_the_distance_and_know_no_scale(seed, k, scale):
    generator = np.random.default_rng(seed)
    distances = generator.exponential(size=k)
    weights = closeness_weights(np.full(k, 1 / k), distances)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(distances)]) <= 0).all()
    assert closeness_weights(np.full(k, 1 / k), scale * distances) == pytest.approx(weights)


def test_the_limits_of_closeness():
    prior = [0.2, 0.3, 0.5]
    assert closeness_weights(prior, [1.0, 5.0, 2.0], sharpness=0) == pytest.approx(prior)
    assert closeness_weights(prior, [2.0, 2.0, 2.0]) == pytest.approx(prior)
    assert closeness_weights(prior, [0.0, 0.0, 0.0]) == pytest.approx(prior)
    assert closeness_weights(prior, [1.0, 5.0, 2.0], sharpness=500).round(6).tolist() == [1, 0, 0]
    assert closeness_weights([0.0, 1.0], [0.0, 9.0]) == pytest.approx([0, 1])
    assert closeness_weights([0.5, 0.5], [math.nan, 1.0]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curve_slopes([1, 1], [[1.0], [2.0]]), "different steps"),
        (lambda: curve_slopes([1], [[1.0], [2.0]]), "shapes"),
        (lambda: learning_speed_weights([0.5, 0.6], [1.0, 1.0]), "sum to 1"),
        (lambda: learning_speed_weights([0.5, 0.5], [1.0]), "shapes"),
        (lambda: learning_speed_weights([0.5, 0.5], [1.0, math.inf]), "finite"),
        (lambda: learning_speed_weights([0.5, 0.5], [1.0, 1.0], keep=2), "keep=2"),
        (lambda: closeness_weights([0.5, 0.5], [-1.0, 1.0]), "from 0"),
        (lambda: closeness_weights([0.5, 0.5], [1.0, 1.0], sharpness=-1), "sharpness=-1"),
    ],
)
def test_arguments_that_are_not_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
