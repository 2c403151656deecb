"""How many labels are random, against scikit-learn and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from synque_select.functional.label_noise import Predictability, kappa_influences


def labelings(n: int = 300, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.choice(n_classes, n, p=[0.6, 0.3, 0.1])
    return first, np.where(rng.random(n) < 0.3, rng.integers(0, n_classes, n), first)


def test_kappa_is_that_of_scikit_learn():
    first, second = labelings()
    value, influences = kappa_influences(first, second, 3)
    assert value == pytest.approx(cohen_kappa_score(first, second))
    assert influences.mean() == pytest.approx(0, abs=1e-12)


def test_influences_are_the_derivatives_in_the_weight_of_an_example():
    first, second = labelings(40)
    value, influences = kappa_influences(first, second, 3)
    step = 1e-5
    for i in (0, 7, 23):
        weights = np.full(40, 1 - step)
        weights[i] += 40 * step
        moved = cohen_kappa_score(first, second, sample_weight=weights)
        assert (moved - value) / step == pytest.approx(influences[i], rel=1e-3, abs=1e-3)


def test_without_two_classes_there_is_no_kappa():
    same = np.zeros(5, dtype=np.int64)
    assert np.isnan(kappa_influences(same, same, 2)[0])
    assert np.isnan(Predictability.of(same, same, same, 2).ratio)


@pytest.mark.parametrize("error", [0.0, 0.2])
@pytest.mark.parametrize("random", [0.25, 0.5])
def test_random_labels_lower_the_ratio_by_their_share_however_hard_the_inputs_are(error, random):
    rng = np.random.default_rng(1)
    n = 40_000
    votes = rng.integers(0, 3, n)
    own = np.where(rng.random(n) < 0.1, rng.integers(0, 3, n), votes)
    right = np.where(rng.random(n) < error, rng.integers(0, 3, n), votes)
    noisy = np.where(rng.random(n) < random, rng.permutation(right), right)
    before, after = (Predictability.of(part, own, votes, 3).ratio for part in (right, noisy))
    assert before == pytest.approx(1 - error, abs=0.02)
    assert after == pytest.approx((1 - random) * before, abs=0.02)


def test_at_the_limit_the_test_errs_as_often_as_its_level_says():
    rng = np.random.default_rng(2)
    n_below = 0
    for _ in range(400):
        votes = rng.integers(0, 3, 300)
        own = np.where(rng.random(300) < 0.1, rng.integers(0, 3, 300), votes)
        labels = np.where(rng.random(300) < 0.25, rng.integers(0, 3, 300), votes)
        n_below += Predictability.of(labels, own, votes, 3).is_below(0.75)
    assert 8 <= n_below <= 34  # 20 expected


def test_exchanged_classes_are_systematic_and_not_random():
    votes = np.arange(200) % 2
    other = np.where(np.arange(200) < 150, 1 - votes, votes)
    assert not Predictability.of(1 - votes, other, votes, 2).is_below(0.75)


def test_without_agreement_there_is_no_ratio():
    """A ratio of two numbers near 0 could be anything."""
    rng = np.random.default_rng(3)
    labels, own, votes = rng.integers(0, 2, (3, 200))
    assert np.isnan(Predictability.of(labels, own, votes, 2).ratio)
    assert not Predictability.of(labels, own, votes, 2).is_below(0.75)
