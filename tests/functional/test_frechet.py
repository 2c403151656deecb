"""Fréchet distance against scipy's matrix root and scikit-learn's shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf

from synque_select.errors import ProxyError
from synque_select.functional.frechet import frechet_distance, moments
from synque_select.proxies.divergence import Frechet
from tests.functional.test_mauve import part


def sample(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)


@pytest.mark.parametrize(("n", "d"), [(10, 30), (100, 6), (500, 20)])
def test_shrinkage_is_ledoit_wolf(n, d):
    points = sample(n, d, 0)
    expected, shrinkage = ledoit_wolf(points.double().numpy())
    estimate = moments(points)
    assert estimate.shrinkage == pytest.approx(shrinkage, rel=1e-9)
    np.testing.assert_allclose(estimate.covariance.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("shrink", [True, False])
def test_equals_the_formula_with_a_matrix_root(shrink):
    real, synthetic = sample(60, 8, 0), sample(200, 8, 1) + 0.5
    a, b = moments(real, shrink=shrink), moments(synthetic, shrink=shrink)
    cross = sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    expected = float((a.mean - b.mean).square().sum()) + np.trace(
        a.covariance.numpy() + b.covariance.numpy() - 2 * cross
    )
    assert frechet_distance(real, synthetic, shrink=shrink) == pytest.approx(expected, rel=1e-9)


def test_identical_and_repeated_points():
    points = sample(40, 6, 0)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(torch.ones(5, 3), torch.zeros(5, 3)) == pytest.approx(3)


def test_fewer_examples_than_dimensions_warn_or_raise():
    few, many = part("real", sample(20, 30, 0)), part("real", sample(40, 30, 0))
    candidates = [part("a", sample(50, 30, 1)), part("b", sample(60, 30, 2))]
    cpu = torch.device("cpu")
    messages = " ".join(Frechet().score(few, candidates, seed=0, device=cpu).messages)
    assert (
        "20 real and 50 synthetic examples for 30 dimensions: the covariances are mostly"
        in messages
    )
    assert "mostly" not in " ".join(Frechet().score(many, candidates, seed=0, device=cpu).messages)
    with pytest.raises(ProxyError, match="20 real and 50 synthetic examples are fewer than the 30"):
        Frechet(shrink=False).score(few, candidates, seed=0, device=cpu)
