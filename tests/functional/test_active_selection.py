"""Drawing questions, and what answers to them show: validity under the null, and power."""

from __future__ import annotations

import numpy as np
import pytest

from synque_select.functional.active_selection import (
    closed_e_values,
    contest,
    differences_from_others,
    draw_questions,
    evidence_against,
    importance_weights,
    mean_interval,
    reading_differences,
    weighted_mean,
)

N = 40


def panel(seed: int, n: int = N, n_candidates: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Shares of heads that predict each of three classes, and the true classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    right = rng.random((n_candidates, n)) < rng.uniform(0.4, 0.95, (n_candidates, 1))
    predicted = np.where(right, truth, rng.integers(0, 3, (n_candidates, n)))
    return np.eye(3)[predicted], truth


def right_of(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return shares[:, np.arange(len(truth)), truth]


def test_an_example_without_dispute_is_drawn_least():
    shares = np.eye(2)[[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]
    scores = contest(shares, np.arange(3))
    assert scores[0] == 0
    assert (scores[1:] > 0).all()
    counts = np.zeros(3)
    for seed in range(400):
        counts[draw_questions(scores, 1, seed=seed).rows] += 1
    assert counts[0] / 400 == pytest.approx(0.25 / 3, abs=0.04)


def test_a_family_has_one_vote():
    shares = np.eye(2)[[[0], [0], [0], [1]]]
    alone, together = contest(shares, np.arange(4)), contest(shares, np.array([0, 0, 0, 1]))
    assert alone[0] == pytest.approx(together[0])  # equal only as the spread is that of two classes
    three = np.eye(3)[[[0], [0], [1], [2]]]
    assert contest(three, np.arange(4))[0] != contest(three, np.array([0, 0, 1, 2]))[0]


def test_the_first_questions_do_not_depend_on_how_many_are_drawn():
    scores = np.arange(N, dtype=float)
    few, many = draw_questions(scores, 5, seed=3), draw_questions(scores, N, seed=3)
    assert few.rows.tolist() == many.rows[:5].tolist()
    assert sorted(many.rows.tolist()) == list(range(N))
    assert many.probabilities[-1] == 1
    assert many.first(5).least.shape == (5, N)


def test_the_mean_is_unbiased_whatever_is_drawn_more_often():
    values = np.linspace(0, 1, 12) ** 2
    scores = np.linspace(0, 3, 12)[::-1]
    estimates = []
    for seed in range(4000):
        draws = draw_questions(scores, 4, seed=seed)
        weights = importance_weights(draws.probabilities, 12)
        estimates.append((weights * values[draws.rows]).mean())
    error = np.std(estimates) / np.sqrt(4000)
    assert abs(np.mean(estimates) - values.mean()) < 3.5 * error
    naive = np.mean([values[draw_questions(scores, 4, seed=s).rows].mean() for s in range(1000)])
    assert abs(naive - values.mean()) > 10 * error  # without weights it is far off


def test_all_examples_give_the_mean_itself():
    values = np.arange(6) / 5
    draws = draw_questions(np.ones(6), 6, seed=0)
    assert weighted_mean(values[draws.rows], np.ones(6, bool), draws, 6) == pytest.approx(0.5)
    low, high = mean_interval(values[draws.rows], np.ones(6, bool), draws, np.zeros(6), np.ones(6))
    assert low <= 0.5 <= high
    assert high - low < 0.05


@pytest.mark.parametrize("m", [3, 12, 24])
def test_intervals_cover_and_false_claims_are_rare(m: int):
    covered, false, n_runs = 0, 0, 120
    for seed in range(n_runs):
        shares, truth = panel(seed)
        right = right_of(shares, truth)
        draws = draw_questions(contest(shares, np.arange(5)), m, seed=seed)
        answered = np.ones(m, bool)
        low, high = mean_interval(
            right[0, draws.rows], answered, draws, np.zeros(N), np.ones(N), step=0.02
        )
        covered += low <= right[0].mean() <= high
        limits, differences = differences_from_others(shares), differences_from_others(right)
        below = [
            evidence_against(
                differences[k, draws.rows], answered, draws, limits[k].min(1), limits[k].max(1),
                np.zeros(1),
            )[1][0]
            for k in range(5)
        ]  # fmt: skip
        shown = closed_e_values(np.array(below)) >= 20
        false += bool((shown & (differences.mean(1) >= 0)).any())
    assert covered / n_runs >= 0.95
    assert false / n_runs <= 0.05


def test_the_evidence_is_one_on_average_if_the_mean_is_right():
    shares, truth = panel(1, n=20)
    right = right_of(shares, truth)[0]
    scores = contest(shares, np.arange(5))
    mean = np.array([right.mean()])
    evidence = []
    for seed in range(3000):
        draws = draw_questions(scores, 8, seed=seed)
        above, below = evidence_against(
            right[draws.rows], np.ones(8, bool), draws, np.zeros(20), np.ones(20), mean
        )
        evidence.append((above[0] + below[0]) / 2)
    assert np.mean(evidence) == pytest.approx(1, abs=4 * np.std(evidence) / np.sqrt(3000))


def test_what_cannot_be_answered_is_not_in_the_mean():
    values = np.array([1.0] * 30 + [0.0] * 10)
    can = np.arange(N) < 30
    missed = 0
    for seed in range(100):
        draws = draw_questions(np.ones(N), 20, seed=seed)
        interval = mean_interval(
            values[draws.rows], can[draws.rows], draws, np.zeros(N), np.ones(N), step=0.02
        )
        missed += interval[1] < 1
    assert missed == 0
    nothing = weighted_mean(values[draws.rows], np.zeros(20, bool), draws, N)
    assert np.isnan(nothing)


def test_two_groups_that_contradict_each_other_are_decided():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, N)
    shares = np.eye(2)[np.stack([truth, truth, 1 - truth, 1 - truth])]
    first = np.array([True, True, False, False])
    readings = reading_differences(shares, first)
    values = readings[np.arange(N), truth]
    assert (values == 1).all()
    draws = draw_questions(np.ones(N), 12, seed=0)
    above, below = evidence_against(
        values[draws.rows], np.ones(12, bool), draws, readings.min(1), readings.max(1), np.zeros(1)
    )
    assert above[0] > 40
    assert below[0] < 1


def test_claims_that_support_each_other_are_adjusted_less_than_by_their_number():
    adjusted = closed_e_values(np.array([100.0, 100.0, 100.0, 0.0]))
    assert adjusted.tolist() == [50, 50, 50, 0]
    assert closed_e_values(np.array([np.inf, 1.0]))[0] == np.inf
