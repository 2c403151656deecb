from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from synque_select.functional import adam_direction, estimate_influence


def unit_rows(n: int, seed: int, k: int = 5) -> torch.Tensor:
    rows = torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def test_it_is_the_weighted_mean_of_all_inner_products():
    mine, theirs = [unit_rows(4, 0), unit_rows(4, 1)], [unit_rows(6, 2), unit_rows(6, 3)]
    expected = [float((a @ b.T).mean()) for a, b in zip(mine, theirs, strict=True)]
    estimate = estimate_influence(mine, theirs, [0.1, 0.3])
    assert estimate.value == pytest.approx(0.25 * expected[0] + 0.75 * expected[1], abs=1e-7)


def test_the_interval_of_a_whole_candidate_is_that_of_a_mean_over_units():
    mine, theirs = unit_rows(7, 0), unit_rows(30, 1)
    estimate = estimate_influence([mine], [theirs], [1.0])
    per_example = (theirs @ mine.T).mean(dim=1)
    low, high = stats.t.interval(0.95, 29, per_example.mean(), stats.sem(per_example))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-6)
    assert estimate.n_units == 30


def test_drawn_examples_widen_the_interval():
    mine, theirs = unit_rows(20, 0), unit_rows(30, 1)
    whole, half, few = (
        estimate_influence([mine], [theirs], [1.0], n_all=n) for n in (20, 40, 20_000)
    )
    widths = [one.high - one.low for one in (whole, half, few)]
    assert widths[0] < widths[1] < widths[2]
    assert whole.value == few.value


def test_families_are_the_units():
    mine, theirs = unit_rows(5, 0), unit_rows(12, 1)
    units = torch.tensor([0] * 8 + [1, 1] + [2, 2])
    estimate = estimate_influence([mine], [theirs], [1.0], units=units)
    per_example = (theirs @ mine.T).mean(dim=1)
    means = torch.stack([per_example[units == u].mean() for u in range(3)])
    assert estimate.value == pytest.approx(means.mean().item(), abs=1e-7)
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-6)


def test_two_units_have_no_interval():
    estimate = estimate_influence([unit_rows(5, 0)], [unit_rows(2, 1)], [1.0])
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert math.isfinite(estimate.value)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """The mean over validation data of which each run sees 25 examples."""
    truth_rows, mine = unit_rows(20_000, 5) + 0.3, unit_rows(50, 6)
    truth = float((truth_rows @ mine.T).mean())
    generator = torch.Generator().manual_seed(7)
    covered = 0
    for _ in range(400):
        drawn = truth_rows[torch.randint(20_000, (25,), generator=generator)]
        one = estimate_influence([mine], [drawn], [1.0])
        covered += one.low <= truth <= one.high
    assert 0.92 <= covered / 400 <= 0.98  # 0.95 ± 2.7 standard errors


def test_the_direction_is_the_step_that_adam_takes_without_momentum():
    parameter = torch.nn.Parameter(torch.zeros(6))
    optimizer = torch.optim.Adam([parameter], lr=1.0, betas=(0.0, 0.9), eps=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        parameter.grad = torch.randn(6, generator=generator)
        optimizer.step()
    state = optimizer.state[parameter]
    moment, step = state["exp_avg_sq"].clone(), float(state["step"])
    gradient, before = torch.randn(6, generator=generator), parameter.detach().clone()
    parameter.grad = gradient
    optimizer.step()
    direction = adam_direction(gradient.unsqueeze(0), moment, step, 0.9, 1e-3)[0]
    assert torch.allclose(before - parameter, direction, atol=1e-6)
