"""The batched solver: what falls back to Newton's method, and threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from synque_select.functional import logistic
from synque_select.functional.logistic import fit_logistic_regressions


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_systems_of_a_batch_are_solved_with_several_threads():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(1, 3, 300, 300, generator=generator, dtype=torch.float64)
    matrices = roots @ roots.mT + torch.eye(300, dtype=torch.float64)
    vectors = torch.randn(1, 3, 300, 1, generator=generator, dtype=torch.float64)
    solutions = logistic._solved(matrices, vectors)
    torch.testing.assert_close(matrices @ solutions, vectors, rtol=1e-8, atol=1e-8)


def test_a_system_that_is_not_positive_definite_is_not_a_number():
    matrices = torch.diag_embed(torch.tensor([[1.0, 1.0], [1.0, -1.0]])).double().unsqueeze(0)
    solutions = logistic._solved(matrices, torch.ones(1, 2, 2, 1, dtype=torch.float64))
    assert solutions.flatten().tolist()[:2] == [1.0, 1.0]
    assert bool(solutions[0, 1].isnan().all())


def test_only_what_did_not_converge_is_fitted_by_newton(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 60, 5, generator=generator)
    y = (x[..., 0] + 0.5 * torch.randn(3, 60, generator=generator) > 0).float()
    targets = torch.stack((y, 1 - y), 1)
    weights = torch.ones(3, 2, 60, dtype=torch.float64)
    whole = fit_logistic_regressions(x, targets, weights)

    minimise, newton, shapes = logistic._minimise, logistic._newton, []

    def unfinished(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        coefficients, converged = minimise(*given)  # type: ignore[arg-type]
        converged[1, 1] = False
        coefficients[1, 1] += 1
        return coefficients, converged

    def watched(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.append(tuple(given[1].shape))
        return newton(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(logistic, "_minimise", unfinished)
    monkeypatch.setattr(logistic, "_newton", watched)
    again = fit_logistic_regressions(x, targets, weights)
    assert shapes == [(1, 1, 6)]
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-3)
    rival = LogisticRegression(C=1, tol=1e-8).fit(x[1].numpy(), (1 - y[1]).numpy())
    torch.testing.assert_close(
        again[1, 1, :-1].double(), torch.from_numpy(rival.coef_[0]).double(), rtol=1e-3, atol=1e-4
    )


def test_leverages_from_inner_products_are_those_from_the_hessian():
    generator = torch.Generator().manual_seed(0)
    x = 30 + 3 * torch.randn(2, 20, 35, generator=generator)  # far from 0, fewer rows than columns
    weights = torch.rand(2, 3, 20, generator=generator, dtype=torch.float64)
    weights[:, 0, :5] = 0  # a fold that is held out
    logits = torch.randn(2, 3, 20, generator=generator).double()
    rows = torch.tensor([0, 3, 7, 19])
    parts = logistic._half_solved(x, weights, logits, rows, 0.5)
    expected = torch.cat([part.square().sum(1) for part in parts]).view(2, 3, 4)
    result = logistic.leverages(x, weights, logits, rows, l2=0.5)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-9)  # a trace of a penalty
    assert result[:, 0, :2].abs().max() < 1e-9


@pytest.mark.parametrize("scale", [0.0, 1e-12])
def test_leverages_of_a_fit_without_curvature_are_0(scale: float):
    x = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    weights = torch.full((1, 1, 4), scale, dtype=torch.float64)
    result = logistic.leverages(x, weights, torch.zeros(1, 1, 4).double(), torch.arange(4))
    assert bool((result.abs() < 2e-3).all())
