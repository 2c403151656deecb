"""MMD against scikit-learn's kernels, its resampling, its estimate at size, its p-value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import (
    euclidean_distances,
    laplacian_kernel,
    polynomial_kernel,
    rbf_kernel,
)

from synque_select.functional import mmd
from synque_select.functional.mmd import (
    BANK,
    Kernel,
    kernel_contributions,
    mmd2_biased,
    mmd2_unbiased,
    mmd_permutation_p,
    self_kernel_mean,
    weighted_kernel_mean,
)

D = 24
KERNELS = {
    "rbf": (Kernel("rbf", (0.05,)), lambda x, y: rbf_kernel(x, y, gamma=0.05)),
    "bank": (
        Kernel("rbf", tuple(g / 40 for g in BANK)),
        lambda x, y: np.mean([rbf_kernel(x, y, gamma=g / 40) for g in BANK], axis=0),
    ),
    "uneven bank": (
        Kernel("rbf", (0.01, 0.05, 0.07)),
        lambda x, y: np.mean([rbf_kernel(x, y, gamma=g) for g in (0.01, 0.05, 0.07)], axis=0),
    ),
    "laplacian": (
        Kernel("laplacian", (0.05,)),
        lambda x, y: laplacian_kernel(x, y, gamma=0.05),
    ),
    "polynomial": (
        Kernel("polynomial", (1 / D,)),
        lambda x, y: polynomial_kernel(x, y, degree=3, gamma=1 / D, coef0=1),
    ),
    "energy": (Kernel("energy"), lambda x, y: -euclidean_distances(x, y)),
}


def sample(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) + shift


def reference(real, synthetic, function, *, unbiased: bool) -> float:
    real, synthetic = real.double().numpy(), synthetic.double().numpy()
    total = -2 * function(real, synthetic).mean()
    for side in (real, synthetic):
        matrix = function(side, side)
        n = len(side)
        total += (matrix.sum() - np.trace(matrix)) / (n * (n - 1)) if unbiased else matrix.mean()
    return float(total)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n", [7, 1500])
def test_equals_scikit_learn(name, n):
    kernel, function = KERNELS[name]
    real, synthetic = sample(40, 0), sample(n, 1, 0.3)
    assert mmd2_unbiased(real, synthetic, kernel) == pytest.approx(
        reference(real, synthetic, function, unbiased=True), rel=1e-5, abs=1e-7
    )
    assert mmd2_biased(real, synthetic, kernel) == pytest.approx(
        reference(real, synthetic, function, unbiased=False), rel=1e-5, abs=1e-7
    )


@pytest.mark.parametrize("n", [9, 10, 23])
def test_blocks_of_any_size_give_the_mean_of_all_pairs(monkeypatch, n):
    kernel, points = KERNELS["bank"][0], sample(n, 4)
    weights = torch.rand(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, forms = self_kernel_mean(kernel, points), weighted_kernel_mean(kernel, points, weights)
    monkeypatch.setattr(mmd, "_HALF_ROWS", 3)
    monkeypatch.setattr(mmd, "_HALF_COLUMNS", 7)
    blocks = self_kernel_mean(kernel, points)
    assert blocks.off_diagonal == pytest.approx(whole.off_diagonal)
    assert blocks.diagonal == pytest.approx(whole.diagonal)
    torch.testing.assert_close(weighted_kernel_mean(kernel, points, weights), forms)


def test_far_from_the_origin_keeps_its_digits():
    kernel = KERNELS["bank"][0]
    # whole steps of 1/1024 at 2,000: float32 holds them exactly
    real, synthetic = ((sample(n, n) * 1024).round() / 1024 for n in (30, 50))
    moved = mmd2_unbiased(real + 2000, synthetic + 2000, kernel)
    assert moved == pytest.approx(mmd2_unbiased(real, synthetic, kernel), rel=1e-4)


def test_weights_of_the_sample_itself_give_the_value():
    kernel, points = KERNELS["bank"][0], sample(1100, 0)
    even = torch.full((1, 1100), 1 / 1100, dtype=torch.float64)
    expected = self_kernel_mean(kernel, points).off_diagonal * 1100 / 1099
    assert float(weighted_kernel_mean(kernel, points, even)) == pytest.approx(expected, rel=1e-9)


def test_resampled_kernel_mean_is_unbiased():
    kernel, points = KERNELS["bank"][0], sample(12, 0)
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.multinomial(12, np.full(12, 1 / 12), 40_000) / 12)
    resampled = weighted_kernel_mean(kernel, points, weights)
    error = float(resampled.std()) / 200
    expected = self_kernel_mean(kernel, points).off_diagonal
    assert float(resampled.mean()) == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("seed", range(5))
def test_estimate_of_a_large_set_is_within_its_stated_error(seed):
    kernel, points = KERNELS["bank"][0], sample(5000, 3)
    exact = self_kernel_mean(kernel, points, max_exact=5000)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
    estimate = self_kernel_mean(kernel, points, max_exact=1000, order=order)
    assert exact.standard_error == 0
    assert 0 < estimate.standard_error < 0.02 * exact.off_diagonal
    assert abs(estimate.off_diagonal - exact.off_diagonal) < 2 * estimate.standard_error
    assert estimate.diagonal == pytest.approx(exact.diagonal)


def test_contributions_are_rows_of_the_kernel_matrix():
    kernel, function = KERNELS["rbf"]
    real, synthetic = sample(1100, 0), sample(2100, 1)
    contributions = kernel_contributions(kernel, real, synthetic)
    expected = function(real.double().numpy(), synthetic.double().numpy()).mean(1)
    np.testing.assert_allclose(contributions.numpy(), expected, rtol=1e-5)


def test_permutation_p_is_uniform_without_and_small_with_a_difference():
    kernel = KERNELS["bank"][0]
    null = [
        mmd_permutation_p(sample(10, s), sample(15, 100 + s), kernel, n_permutations=49)
        for s in range(60)
    ]
    assert 0.35 < np.mean(null) < 0.65
    assert np.mean(np.array(null) <= 0.1) < 0.25
    assert mmd_permutation_p(sample(10, 0), sample(15, 1, 2.0), kernel) == 0.001


def test_a_set_of_one_block_is_exact_whatever_the_bound():
    points = sample(150, 4)
    kernel = Kernel("rbf", (0.5,))
    assert self_kernel_mean(kernel, points, max_exact=100) == self_kernel_mean(kernel, points)


def test_time_and_error_of_the_default_grow_slowly(monkeypatch: pytest.MonkeyPatch):
    evaluated: list[int] = []
    given = mmd.kernel_matrix

    def counting(kernel: Kernel, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        evaluated.append(len(x) * len(y))
        return given(kernel, x, y)

    monkeypatch.setattr(mmd, "kernel_matrix", counting)
    kernel, work = KERNELS["bank"][0], {}
    for n in (5_000, 10_000, 20_000):
        evaluated.clear()
        points = sample(n, 3)
        estimate = self_kernel_mean(kernel, points)
        work[n] = sum(evaluated)
    exponent = np.log(work[20_000] / work[5_000]) / np.log(4)
    assert exponent <= 1.1
    exact = self_kernel_mean(kernel, points, max_exact=20_000)
    assert 0 < estimate.standard_error < 0.01 * exact.off_diagonal
    assert abs(estimate.off_diagonal - exact.off_diagonal) < 3 * estimate.standard_error
