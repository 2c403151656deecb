"""The parts of an experiment that train nothing: shares, sizes, what may be validated on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.experiment import unseen
from synque_select.experiment.fits import shares
from synque_select.experiment.result import _largest_difference
from synque_select.experiment.task import sized
from synque_select.types import Mixture

# at 100 examples no share is under two, which is the least that a candidate is given
WEIGHTS = st.lists(st.floats(0.3, 1.0), min_size=1, max_size=12)


@given(weights=WEIGHTS, n=st.integers(100, 5000))
def test_shares_sum_to_n_and_differ_from_the_weights_by_less_than_one(weights: list[float], n: int):
    total = sum(weights)
    mixture = Mixture({f"c{i}": weight / total for i, weight in enumerate(weights)})
    counts = shares(mixture, n)
    assert sum(counts.values()) == n
    for name, weight in mixture.weights.items():
        assert abs(counts[name] - weight * n) < 1 + 1e-6


def test_shares_of_equal_weights_differ_by_one_at_most():
    counts = shares(Mixture.equal([f"c{i}" for i in range(12)]), 1000)
    assert sorted(set(counts.values())) == [83, 84]
    assert sum(counts.values()) == 1000


def test_sized_takes_different_examples_under_different_seeds_and_keeps_the_view():
    candidate = Candidate("a", [{"text": f"t{i}", "label": i} for i in range(50)], "text", "label")
    first, again, other = (sized(candidate, 20, seed=seed) for seed in (0, 0, 1))
    assert list(first.views) == list(again.views)
    assert set(first.views) != set(other.views)
    assert len(set(first.views)) == 20
    assert (first.name, first.label) == ("a", "label")


def test_a_candidate_that_is_small_enough_is_not_cut():
    candidate = Candidate("a", ["x", "y"])
    assert sized(candidate, 2, seed=0) is candidate


@pytest.mark.parametrize(("samples", "left"), [([], [0, 1, 2]), ([["b", "z"], ["c", "y"]], [0])])
def test_unseen_excludes_the_examples_of_every_sample(samples: list[list[str]], left: list[int]):
    labeled = Examples("labeled", ["a", "b", "c"])
    assert unseen(labeled, *(RealSample(f"r{i}", s) for i, s in enumerate(samples))) == left


@pytest.mark.parametrize(
    ("metric", "values", "largest"),
    [
        ("acc", {0: 0.9, 1: math.nan}, 1.0),
        ("execution_accuracy", {0: 0.0, 1: 1.0}, 1.0),
        ("acc", {0: 90.0}, math.inf),  # in percent
        ("loss", {0: 0.9}, math.inf),
    ],
)
def test_the_difference_of_two_shares_has_a_bound(metric, values, largest):
    assert _largest_difference(metric, {"chosen": values, "all": {0: 0.5}}) == largest
