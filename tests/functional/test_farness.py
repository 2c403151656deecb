"""How often the nearest example is synthetic, against a direct computation, and its two ends."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from synque_select.functional.farness import nearest_is_synthetic


def points(n: int, shift: float, seed: int, d: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + shift


@pytest.mark.parametrize(("n", "n_made"), [(4, 7), (7, 4), (5, 4)])
def test_it_is_the_share_of_all_draws(n: int, n_made: int):
    real, synthetic = points(n, 0, 0), points(n_made, 0.3, 1)
    m = min(n - 1, n_made)
    for i, chance in enumerate(nearest_is_synthetic(real, synthetic).tolist()):
        others = [j for j in range(n) if j != i]
        to_real = torch.cdist(real[[i]], real)[0]
        to_made = torch.cdist(real[[i]], synthetic)[0]
        draws = [
            bool(to_made[list(s)].min() < to_real[list(r)].min())
            for r in combinations(others, m)
            for s in combinations(range(n_made), m)
        ]
        assert chance == pytest.approx(sum(draws) / len(draws), abs=1e-9)


def test_a_tie_counts_half():
    real = torch.tensor([[0.0], [2.0]])
    assert nearest_is_synthetic(real, torch.tensor([[-2.0]])).tolist() == [0.5, 0.0]


def test_one_real_example_says_nothing():
    assert nearest_is_synthetic(points(1, 0, 0), points(9, 0, 1)).isnan().all()


def test_its_mean_is_a_half_for_the_same_distribution_whatever_the_sizes():
    for n, n_made in ((30, 500), (200, 40)):
        shares = [
            float(nearest_is_synthetic(points(n, 0, 2 * i), points(n_made, 0, 2 * i + 1)).mean())
            for i in range(40)
        ]
        assert sum(shares) / 40 == pytest.approx(0.5, abs=0.04)


def test_it_falls_to_0_for_another_distribution():
    assert nearest_is_synthetic(points(60, 0, 0), points(400, 2, 1)).mean() < 0.02
