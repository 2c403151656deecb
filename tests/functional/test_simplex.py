"""Quadratic problems on the capped simplex against scipy, and their optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from synque_select.errors import ConfigError
from synque_select.functional import capped_simplex, simplex_descent
from synque_select.functional.capped_simplex import project_from
from synque_select.functional.simplex import (
    minimize_quadratic_on_simplex,
    nearest_psd,
    project_to_capped_simplex,
)


def problem(seed: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(k, k + 2, generator=generator, dtype=torch.float64)
    upper = torch.rand(k, generator=generator, dtype=torch.float64) * 0.5 + 2 / k
    return factor @ factor.T / k, torch.randn(k, generator=generator, dtype=torch.float64), upper


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 12))
def test_solution_meets_the_optimality_conditions(seed: int, k: int):
    quadratic, linear, upper = problem(seed, k)
    weights = minimize_quadratic_on_simplex(quadratic, linear, upper)
    assert weights.sum().item() == pytest.approx(1)
    assert bool((weights >= 0).all())
    assert bool((weights <= upper + 1e-12).all())
    gradient = 2 * (quadratic @ weights - linear)
    free = (weights > 1e-9) & (weights < upper - 1e-9)
    multiplier = (
        gradient[free].mean()
        if free.any()
        else ((gradient[weights <= 1e-9].min() + gradient[weights > 1e-9].max()) / 2)
    )
    assert torch.allclose(gradient[free], multiplier.expand(int(free.sum())), atol=1e-6)
    assert bool((gradient[weights <= 1e-9] >= multiplier - 1e-6).all())
    assert bool((gradient[weights >= upper - 1e-9] <= multiplier + 1e-6).all())


def test_no_worse_than_scipy():
    for seed in range(5):
        quadratic, linear, upper = (t.numpy() for t in problem(seed, 8))

        def value(w: np.ndarray, quadratic=quadratic, linear=linear) -> float:
            return float(w @ quadratic @ w - 2 * w @ linear)

        theirs = minimize(
            value,
            np.full(8, 1 / 8),
            method="SLSQP",
            bounds=[(0, u) for u in upper],
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        ours = minimize_quadratic_on_simplex(*map(torch.from_numpy, (quadratic, linear, upper)))
        assert value(ours.numpy()) <= theirs.fun + 1e-9


def test_a_batch_gives_what_each_problem_gives():
    problems = [problem(seed, 5) for seed in range(7)]
    together = minimize_quadratic_on_simplex(
        *(torch.stack(parts) for parts in zip(*problems, strict=True))
    )
    for row, one in zip(together, problems, strict=True):
        assert torch.allclose(row, minimize_quadratic_on_simplex(*one), atol=1e-8)


def test_projection_is_idempotent_and_nearest():
    generator = torch.Generator().manual_seed(0)
    upper = torch.full((6,), 0.4)
    for _ in range(20):
        point = torch.randn(6, generator=generator)
        onto = project_to_capped_simplex(point, upper)
        assert torch.allclose(project_to_capped_simplex(onto, upper), onto, atol=1e-12)
        other = project_to_capped_simplex(torch.randn(6, generator=generator), upper)
        assert (point - onto).norm() <= (point - other).norm() + 1e-12


def test_caps_below_one_are_refused():
    with pytest.raises(ConfigError, match="less than 1"):
        minimize_quadratic_on_simplex(torch.eye(3), torch.zeros(3), torch.full((3,), 0.2))


def test_nearest_psd_leaves_a_psd_matrix_alone():
    quadratic, _, _ = problem(0, 6)
    assert torch.allclose(nearest_psd(quadratic), quadratic)
    assert torch.linalg.eigvalsh(nearest_psd(quadratic - torch.eye(6))).min() > -1e-12


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), tie=st.booleans())
def test_projection_is_that_of_a_root_finder(seed: int, k: int, tie: bool):
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(k, generator=generator, dtype=torch.float64)
    upper = torch.rand(k, generator=generator, dtype=torch.float64) + 1 / k
    if tie:
        point, upper = point.round(), torch.ones(k, dtype=torch.float64)

    def excess(threshold: float) -> float:
        return float((point - threshold).clamp(min=0).minimum(upper).sum()) - 1

    low, high = float((point - upper).min()) - 1, float(point.max())
    if excess(low) > 1e-12:
        root = brentq(excess, low, high, xtol=1e-15)
        expected = (point - root).clamp(min=0).minimum(upper)
    else:
        expected = upper
    assert torch.allclose(project_to_capped_simplex(point, upper), expected, rtol=0, atol=1e-12)


def test_caps_that_sum_to_1_are_the_projection():
    upper = torch.tensor([0.2, 0.5, 0.3])
    onto = project_to_capped_simplex(torch.tensor([9.0, -3.0, 0.0]), upper)
    assert torch.allclose(onto, upper.double(), atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-9])
def test_candidates_that_differ_little_have_the_same_best_weights(scale: float):
    quadratic, linear, upper = problem(3, 10)
    expected = minimize_quadratic_on_simplex(quadratic, linear, upper)
    # what is equal for all candidates, as the kernel of nearly equal embeddings, changes nothing
    shared = torch.ones(10, 10, dtype=torch.float64)
    weights = minimize_quadratic_on_simplex(shared + scale * quadratic, 1 + scale * linear, upper)
    assert torch.allclose(weights, expected, atol=max(1e-7, 1e-14 / scale))


def test_equal_candidates_get_equal_weights():
    quadratic = torch.full((3, 3), 0.7, dtype=torch.float64)
    noise = 1e-16 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    weights = minimize_quadratic_on_simplex(quadratic + noise + noise.T, torch.full((3,), 0.7))
    assert torch.allclose(weights, torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), tie=st.booleans(), far=st.booleans())
def test_projection_from_any_guess_is_the_sorted_one(seed: int, k: int, tie: bool, far: bool):
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(5, k, generator=generator, dtype=torch.float64)
    upper = torch.rand(5, k, generator=generator, dtype=torch.float64) + 1 / k
    if tie:
        point, upper = point.round(), torch.ones(5, k, dtype=torch.float64)
    guess = (30.0 if far else 1.0) * torch.randn(5, 1, generator=generator, dtype=torch.float64)
    weights, threshold = project_from(point, upper, guess)
    expected = project_to_capped_simplex(point, upper)
    assert torch.allclose(weights, expected, rtol=0, atol=1e-12)
    again, _ = project_from(point, upper, threshold)
    assert torch.allclose(again, expected, rtol=0, atol=1e-12)


def like_candidates(k: int, n_problems: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean kernels of k similar candidates, and of redrawn samples that a few of them resemble."""
    generator = torch.Generator().manual_seed(k)
    means = torch.randn(k, 40, generator=generator, dtype=torch.float64) / 40**0.5
    real = torch.randn(n_problems, 40, generator=generator, dtype=torch.float64) / 20
    return 0.9 + 0.1 * means @ means.T, 0.9 + 0.1 * (means[:8].mean(0) + real) @ means.T


def test_the_work_of_many_candidates_is_that_of_those_with_weights(
    monkeypatch: pytest.MonkeyPatch,
):
    n_problems, n_candidates = 20, 400
    products: list[int] = []
    n_sorted: list[int] = []
    multiplied, project = simplex_descent._products, project_to_capped_simplex
    monkeypatch.setattr(
        simplex_descent,
        "_products",
        lambda q, v: products.append(v.numel() * q.shape[-1]) or multiplied(q, v),
    )
    monkeypatch.setattr(
        capped_simplex,
        "project_to_capped_simplex",
        lambda p, u: n_sorted.append(len(p)) or project(p, u),
    )
    quadratic, linear = like_candidates(n_candidates, n_problems)
    weights = minimize_quadratic_on_simplex(quadratic, linear)
    gradient = 2 * (weights @ quadratic - linear)
    multiplier = gradient.where(weights > 0, -torch.inf).amax(1, keepdim=True)
    assert bool((gradient >= multiplier - 1e-9).all())
    # until no weight moves, it would be 837 steps over all pairs of candidates
    assert sum(products) < 120 * n_problems * n_candidates**2
    assert sum(n_sorted) < 10 * n_problems  # not in every step


def test_copies_share_a_weight():
    quadratic, linear, upper = problem(1, 6)
    expected = minimize_quadratic_on_simplex(quadratic, linear, upper)
    twice = torch.arange(12) % 6
    weights = minimize_quadratic_on_simplex(quadratic[twice][:, twice], linear[twice])
    assert torch.allclose(weights[:6], weights[6:], atol=1e-7)
    one = minimize_quadratic_on_simplex(quadratic, linear)
    assert torch.allclose(weights[:6] + weights[6:], one, atol=1e-7)
    assert bool((expected <= upper + 1e-12).all())
