"""Online Data Mixing against its published formulas, on bandits whose best arm is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.errors import ConfigError
from synque_select.functional.odm import exp3_weights, exploration_rate, smoothed_rewards

losses = st.lists(st.floats(0, 20), min_size=2, max_size=8)


def test_the_published_schedule_worked_by_hand():
    # K = 4: √(ln 4 / (4 t)) is above 1/4 up to t = 4 ln 4 = 5.5
    assert exploration_rate(0, 4) == exploration_rate(5, 4) == 0.25
    assert exploration_rate(6, 4) == pytest.approx(math.sqrt(math.log(4) / 24))
    assert exploration_rate(1000, 4) == pytest.approx(0.018616, abs=1e-6)
    assert exploration_rate(100_000, 22) == pytest.approx(0.001185, abs=1e-6)


def test_the_published_policy_worked_by_hand():
    # (1 − 3·0.1) e^(0.2·R) / Σ e^(0.2·R) + 0.1 with R = (0, 5, 10)
    powers = [1, math.e, math.e**2]
    expected = [0.7 * power / sum(powers) + 0.1 for power in powers]
    assert exp3_weights([0, 5, 10], 0.1, 0.2) == pytest.approx(expected)


def test_the_published_moving_average_worked_by_hand():
    new = smoothed_rewards([10.0, 4.0, 7.0], [3.0, math.nan, 2.0], [0.6, 0.4, 0.0], smoothing=0.9)
    # 0.9·10 + 0.1·3/0.6; the second was not observed, the third not drawn
    assert new == pytest.approx([9.5, 4.0, 7.0])


@settings(max_examples=60, deadline=None)
@given(losses, st.integers(0, 10_000), st.integers(0, 10_000))
def test_weights_are_a_mixture_with_at_least_the_exploration_rate(rewards, step, earlier):
    k = len(rewards)
    rate = exploration_rate(step, k)
    weights = exp3_weights(rewards, rate, exploration_rate(earlier, k))
    assert weights.sum() == pytest.approx(1)
    assert (weights >= rate - 1e-12).all()
    # a higher reward never has a lower weight
    assert (np.diff(weights[np.argsort(rewards)]) >= -1e-12).all()


@settings(max_examples=60, deadline=None)
@given(losses, st.floats(-1000, 1000))
def test_only_differences_of_rewards_matter(rewards, shift):
    k = len(rewards)
    weights = exp3_weights(rewards, 0.5 / k, 0.2)
    shifted = exp3_weights(np.asarray(rewards) + shift, 0.5 / k, 0.2)
    assert shifted == pytest.approx(weights, abs=1e-9)


@given(losses)
def test_the_average_of_constant_losses_tends_to_loss_by_weight(constant):
    k = len(constant)
    rewards = np.zeros(k)
    for _ in range(200):
        rewards = smoothed_rewards(rewards, constant, np.full(k, 1 / k), smoothing=0.9)
    assert rewards == pytest.approx(k * np.asarray(constant), rel=1e-6, abs=1e-9)


def test_the_arm_with_the_highest_reward_is_found():
    """A bandit: one arm is drawn at each step and only its reward is seen."""
    means = np.array([0.2, 0.9, 0.5, 0.3, 0.1])
    n_right = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        rewards, weights, previous = np.zeros(5), np.full(5, 0.2), 0.2
        drawn = np.zeros(5)
        for step in range(1, 2001):
            arm = generator.choice(5, p=weights)
            seen = np.full(5, np.nan)
            seen[arm] = 100 * (means[arm] + 0.1 * generator.standard_normal())
            rewards = smoothed_rewards(rewards, seen, weights, smoothing=0.9)
            rate = exploration_rate(step, 5)
            weights, previous = exp3_weights(rewards, rate, previous), rate
            drawn[arm] += 1
        n_right += drawn.argmax() == 1
    assert n_right >= 9, "the best arm is the most drawn one in nearly all of 10 bandits"


def test_large_rewards_do_not_overflow():
    assert exp3_weights([0.0, 1e6], 0.01, 0.5) == pytest.approx([0.01, 0.99])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exploration_rate(-1, 3), "step=-1"),
        (lambda: exploration_rate(1, 0), "n_arms=0"),
        (lambda: exp3_weights([1.0, math.inf], 0.1, 0.1), "finite"),
        (lambda: exp3_weights([1.0, 2.0], 0.6, 0.1), "rate=0.6"),
        (lambda: smoothed_rewards([0.0], [1.0, 2.0], [1.0]), "shapes"),
        (lambda: smoothed_rewards([0.0], [1.0], [1.0], smoothing=1.0), "smoothing=1.0"),
    ],
)
def test_arguments_that_are_not_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
