"""Races: the bounds hold, decisions are right, and easy cases cost less."""

from __future__ import annotations

import numpy as np
import pytest

from synque_select.functional.racing import decided_at_border, finite_mean_bounds, race

DELTA = 0.1


def population(rng: np.random.Generator, n: int, mean: float, spread: float) -> np.ndarray:
    """Return values in 0..1 in random order; with a wide spread they are mostly 0 and 1."""
    concentration = 1 / spread
    return rng.beta(mean * concentration, (1 - mean) * concentration, n)


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.05), (0.5, 5.0), (0.03, 0.3), (0.9, 1.0)])
def test_bounds_hold_after_every_value(mean: float, spread: float):
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        values = population(rng, 120, mean, spread)
        looks = [finite_mean_bounds(values[:n], 120, DELTA) for n in (4, 8, 15, 30, 60, 90, 119)]
        missed += any(not low <= values.mean() <= high for low, high in looks)
    # the binomial's 99.9 % point where the error is exactly what is allowed
    assert missed <= 300 * DELTA + 3.1 * (300 * DELTA * (1 - DELTA)) ** 0.5
    widths = [high - low for low, high in looks]
    assert widths == sorted(widths, reverse=True)


def test_bounds_are_tighter_where_values_spread_less_and_where_little_is_left():
    rng = np.random.default_rng(1)
    narrow, wide = population(rng, 400, 0.5, 0.02), population(rng, 400, 0.5, 5.0)

    def width(values: np.ndarray, n: int, n_population: int) -> float:
        low, high = finite_mean_bounds(values[:n], n_population, 0.05)
        return high - low

    assert width(narrow, 100, 400) < 0.6 * width(wide, 100, 400)
    assert width(wide, 300, 330) < 0.8 * width(wide, 300, 100_000)
    # Hoeffding–Serfling at one fixed n, two-sided, for comparison
    rho = min(1 - 99 / 400, (1 - 100 / 400) * (1 + 1 / 100))
    assert width(narrow, 100, 400) < 2 * (rho * np.log(2 / 0.05) / 200) ** 0.5


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_decisions_are_right(gap: float):
    """Hard cases: the border between candidate k and k + 1 is `gap` wide."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(150):
        means = 0.5 + gap * np.array([1.0, 1.0, 0.0, 0.0, -1.0])
        pools = [population(rng, 100, mean, 0.3) for mean in means]
        outcome = race(lambda i, a, b, p=pools: p[i][a:b], [100] * 5, [100] * 5, 2, DELTA, 5)
        best = np.argsort([-pool.mean() for pool in pools])[:2]
        is_best = np.isin(np.arange(5), best)
        assert (outcome.inside | outcome.outside).all()
        wrong += bool((outcome.inside & ~is_best).any() or (outcome.outside & is_best).any())
    assert wrong <= 150 * DELTA


def test_easy_cases_cost_less_and_hard_ones_are_judged_in_full():
    rng = np.random.default_rng(3)

    def cost(means: list[float]) -> list[int]:
        pools = [population(rng, 500, mean, 0.1) for mean in means]
        outcome = race(lambda i, a, b: pools[i][a:b], [500] * 4, [500] * 4, 1, 0.05, 6)
        return [len(values) for values in outcome.values]

    easy = cost([0.9, 0.5, 0.4, 0.3])
    assert sum(easy) < 0.4 * 2000
    close = cost([0.6, 0.6, 0.3, 0.2])
    assert close[:2] == [500, 500]
    assert max(close[2:]) < 500


@pytest.mark.parametrize(("gap", "share"), [(0.2, 0.14), (0.1, 0.47), (0.05, 0.97)])
def test_savings_that_the_documentation_states(gap: float, share: float):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(8):
        means = 0.5 + gap * (np.arange(8) < 3)
        pools = [population(rng, 1000, mean, 0.3) for mean in means]
        done = race(lambda i, a, b, p=pools: p[i][a:b], [1000] * 8, [1000] * 8, 3, 0.05, 6)
        shares.append(sum(len(values) for values in done.values) / 8000)
    assert np.mean(shares) == pytest.approx(share, abs=0.08)


def test_a_limit_leaves_it_open_and_missing_values_are_left_out():
    rng = np.random.default_rng(4)
    pools = [population(rng, 1000, 0.5, 0.3) for _ in range(2)]
    outcome = race(lambda i, a, b: pools[i][a:b], [40, 40], [1000, 1000], 1, 0.05, 4)
    assert not (outcome.inside | outcome.outside).any()
    assert [len(values) for values in outcome.values] == [40, 40]
    fewer = race(lambda i, a, b: pools[i][a : b - 1], [40, 40], [40, 40], 1, 0.05, 1)
    assert fewer.low[0] < pools[0][:39].mean() < fewer.high[0]


def test_ties_are_never_decided():
    low = high = np.array([0.5, 0.5, 0.1])
    inside, outside = decided_at_border(low, high, 1)
    assert not inside.any()
    assert outside.tolist() == [False, False, True]
