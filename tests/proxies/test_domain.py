"""The spread of PAD over its own seeds."""

from __future__ import annotations

import math

import pytest
import torch

from synque_select.proxies.domain import PAD
from synque_select.proxies.registry import get_proxy
from tests.proxies.test_properties import CPU, draw, make, score


@pytest.mark.parametrize("n_candidates", [2, 6])
def test_the_spread_is_that_of_other_seeds(n_candidates: int):
    real = make("real", draw(40, 0))
    candidates = [make(f"c{i}", draw(80 + 10 * i, 1 + i, 0.3)) for i in range(n_candidates)]
    result = [score("pad", real, candidates, seed=seed) for seed in range(12)]
    actual = torch.stack([part.values for part in result]).var(dim=0).mean()
    stated = torch.stack([part.spread.square() for part in result if part.spread is not None])
    assert len(stated) == 12
    # 12 seeds of 2 candidates leave an error of about 40 % in the variance
    assert float(stated.mean() / actual) == pytest.approx(1, rel=0.6)


def test_a_candidate_that_cannot_be_fitted_has_no_spread():
    real = make("real", draw(20, 0))
    copies = make("copies", draw(1, 1).repeat(30, axis=0))
    scores = get_proxy("pad").score(real, [make("c", draw(30, 2)), copies], seed=0, device=CPU)
    assert scores.spread is not None
    assert math.isfinite(scores.spread[0])
    assert math.isnan(scores.spread[1])


def test_the_scores_alone_are_those_of_the_proxy():
    real = make("real", draw(20, 0))
    candidates = [make("c", draw(30, 2)), make("copies", draw(1, 1).repeat(30, axis=0))]
    pad = get_proxy("pad")
    assert isinstance(pad, PAD)
    values = pad.values(real, candidates, seed=3, device=CPU)
    expected = pad.score(real, candidates, seed=3, device=CPU).values
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
