"""The distance excess against a direct computation, and its two ends."""

from __future__ import annotations

import pytest
import torch

from synque_select.functional.coverage import coverage_distances
from synque_select.functional.farness import distance_excess


def points(n: int, shift: float, seed: int, d: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + shift


def test_it_is_what_its_formula_says():
    real, synthetic = points(12, 0, 0), points(40, 0.5, 1)
    expected = []
    for i in range(12):
        others = torch.cat([real[:i], real[i + 1 :]])
        near, random, made = (
            coverage_distances(real[i : i + 1], part, m)
            for part, m in ((others, 11), (others, 1), (synthetic, 11))
        )
        expected.append(float(made - (near + random) / 2))
    assert distance_excess(real, synthetic).tolist() == pytest.approx(expected, abs=1e-5)


def test_examples_of_one_group_are_not_compared():
    real, synthetic = points(10, 0, 0), points(40, 0, 1)
    doubled = torch.cat([real, real])
    groups = torch.arange(10).repeat(2)
    once = distance_excess(real, synthetic)
    twice = distance_excess(doubled, synthetic, groups)
    # another real example is met twice, so the nearest of m of them lies a little farther
    assert twice.mean() == pytest.approx(float(once.mean()), abs=0.35)
    assert distance_excess(doubled, synthetic).mean() > twice.mean() + 0.5


def test_one_group_says_nothing():
    assert distance_excess(points(4, 0, 0), points(9, 0, 1), torch.zeros(4)).isnan().all()


def test_the_same_distribution_is_near_and_another_is_far():
    real = points(60, 0, 0)
    assert distance_excess(real, points(400, 0, 1)).mean() < -0.3
    assert distance_excess(real, points(400, 2, 1)).mean() > 0.5
