"""Nearest distances, their expectation at a common size, k-NN density and coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from sklearn.neighbors import NearestNeighbors

from synque_select.functional.coverage import (
    counts_within,
    coverage_distances,
    knn_coverage,
    knn_density,
    order_weights,
    real_radii,
)
from synque_select.functional.pairwise import median_sq_distance, nearest_distances


def sample(n: int, d: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (5, 1), (9, 4), (30, 29)])
def test_order_weights_are_the_exact_fractions(n, m):
    exact = [math.comb(n - j, m - 1) / math.comb(n, m) for j in range(1, n - m + 2)]
    weights = order_weights(n, m).numpy()
    np.testing.assert_allclose(weights, exact[: len(weights)], rtol=1e-12)
    assert sum(exact[len(weights) :]) < 1e-11


@pytest.mark.parametrize("m", [1_000, 200_000, 1_000_000])
def test_order_weights_of_a_million(m):
    n = 1_000_000
    weights = order_weights(n, m)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    # the expected rank of the smallest of m is (n + 1) / (m + 1)
    ranks = torch.arange(1, len(weights) + 1, dtype=torch.float64)
    assert float(weights @ ranks) == pytest.approx((n + 1) / (m + 1), rel=1e-8)


def test_expected_nearest_distance_is_the_mean_over_all_subsets():
    real, synthetic = sample(3), sample(7, seed=1)
    every = [
        torch.cdist(real.double(), synthetic[list(chosen)].double()).amin(1)
        for chosen in itertools.combinations(range(7), 3)
    ]
    expected = torch.stack(every).mean(0)
    torch.testing.assert_close(coverage_distances(real, synthetic, 3), expected, rtol=1e-6, atol=0)


def test_nearest_distances_equal_scikit_learn_across_blocks():
    real, synthetic = sample(300), sample(20_000, seed=1)
    tree = NearestNeighbors(n_neighbors=7).fit(synthetic.double().numpy())
    expected = tree.kneighbors(real.double().numpy())[0]
    np.testing.assert_allclose(nearest_distances(real, synthetic, 7).numpy(), expected, rtol=1e-5)


def test_equal_rows_are_at_distance_zero_wherever_they_lie():
    far = sample(50) + 300
    assert nearest_distances(far, far.flip(0)).abs().max() == 0


def test_density_and_coverage_by_hand():
    real, synthetic = sample(40), sample(60, seed=1)
    k = 5
    among = torch.cdist(real.double(), real.double()).sort(1).values[:, k]
    inside = torch.cdist(real.double(), synthetic.double()) <= among.unsqueeze(1)
    radii = real_radii(real, k)
    torch.testing.assert_close(radii, among, rtol=1e-6, atol=0)
    counts = counts_within(real, synthetic, radii)
    assert counts.tolist() == inside.sum(1).tolist()
    assert float(knn_density(counts, k, 60).mean()) == pytest.approx(int(inside.sum()) / (k * 60))
    assert float(knn_coverage(counts, 60, 60).mean()) == pytest.approx(
        float(inside.any(1).double().mean())
    )


@pytest.mark.parametrize(("n", "m"), [(60, 40), (1_000_000, 200)])
def test_knn_coverage_is_hypergeometric(n, m):
    counts = torch.tensor([0, 1, 2, 30, n - m, n])
    expected = 1 - hypergeom(n, counts.numpy(), m).pmf(0)
    np.testing.assert_allclose(knn_coverage(counts, n, m).numpy(), expected, rtol=1e-6, atol=1e-12)


def test_median_of_pairs():
    points = sample(31)
    pairs = torch.pdist(points.double()).square().numpy()
    assert median_sq_distance(points) == pytest.approx(np.median(pairs), rel=1e-6)
    assert median_sq_distance(torch.ones(9, 4)) == 0
