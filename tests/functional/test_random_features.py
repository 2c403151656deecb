"""Random Fourier features against the kernel that they estimate."""

from __future__ import annotations

import pytest
import torch

from synque_select.functional.mmd import BANK, Kernel, kernel_matrix
from synque_select.functional.random_features import RandomFeatures
from synque_select.selection import mixture


def test_products_are_those_of_the_kernel():
    points = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    gammas = tuple(gamma / 16 for gamma in BANK)
    features = RandomFeatures(8, gammas, 20_000, seed=1)(points)
    error = features @ features.T - kernel_matrix(Kernel("rbf", gammas), points, points)
    assert float(error.abs().max()) < 0.03
    assert float(error.abs().mean()) < 0.006


def test_the_mean_is_that_of_all_blocks():
    points = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    features = RandomFeatures(3, (1.0,), 16, seed=0)
    assert torch.allclose(features.mean(points), features(points).double().mean(0), atol=1e-6)


def test_mixture_weights_by_features_are_nearly_as_good(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    shifts = torch.linspace(-2, 2, 6)[:, None, None]
    candidates = list(torch.randn(6, 300, 8, generator=generator) + shifts)
    real = torch.randn(60, 8, generator=generator)
    real[:30] += 1.2
    exact, linear = mixture._kernel_means(real, candidates, 0)
    monkeypatch.setattr(mixture, "_MAX_EXACT_SETS", 5)
    weights = [
        mixture.minimize_quadratic_on_simplex(quadratic, part.mean(0))
        for quadratic, part in ((exact, linear), mixture._kernel_means(real, candidates, 0))
    ]
    best, by_features, equal = (
        float(w @ exact @ w - 2 * w @ linear.mean(0))
        for w in (*weights, torch.full((6,), 1 / 6, dtype=torch.float64))
    )
    assert by_features - best < 0.05 * (equal - best)
