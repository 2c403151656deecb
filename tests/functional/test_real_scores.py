"""What further real examples would score: exact up to the sample's size, continued beyond it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synque_select.functional.coverage import coverage_distances
from synque_select.functional.ngram import (
    N_BUCKETS,
    hash_ngrams,
    ngram_counts,
    ngram_cross_entropy,
    ngram_log_probabilities,
)
from synque_select.functional.real_scores import real_coverage_distance, real_cross_entropy

OTHERS = [[j for j in range(12) if j != i] for i in range(12)]
TEXTS = [f"show all w{i % 5} of w{i % 3} and w{i}" for i in range(12)]


def entropy(texts: list[str], size: int) -> float:
    return real_cross_entropy(hash_ngrams(texts), size, n_buckets=N_BUCKETS, alpha=0.1)


@pytest.mark.parametrize("size", [1, 5, 11])
def test_distances_up_to_the_size_of_the_sample_are_those_to_the_others(size: int):
    points = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    expected = np.mean(
        [float(coverage_distances(points[[i]], points[OTHERS[i]], size)) for i in range(12)]
    )
    assert real_coverage_distance(points, size) == pytest.approx(expected, abs=1e-5)


def test_cross_entropy_at_the_size_of_the_sample_is_that_under_the_others():
    likelihood = [
        float(
            ngram_cross_entropy(
                hash_ngrams([TEXTS[i]]),
                ngram_log_probabilities(ngram_counts([TEXTS[j] for j in OTHERS[i]])),
            )
        )
        for i in range(12)
    ]
    lengths = torch.bincount(hash_ngrams(TEXTS).texts).numpy()
    assert entropy(TEXTS, 11) == pytest.approx(np.average(likelihood, weights=lengths))


def test_distances_beyond_it_follow_their_power_law():
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(0))
    fresh = torch.rand(3000, 3, generator=torch.Generator().manual_seed(1))
    expected = float(coverage_distances(points, fresh, 3000).mean())
    # near the faces of the cube, distances fall more slowly than inside
    assert real_coverage_distance(points, 3000) == pytest.approx(expected, rel=0.08)


def test_further_texts_make_texts_likelier():
    values = [entropy(TEXTS, size) for size in (2, 6, 11, 30, 100)]
    assert values == sorted(values, reverse=True)


def test_copies_of_one_another_have_no_distance():
    assert real_coverage_distance(torch.zeros(10, 3), 50) == 0


def test_two_real_examples_say_nothing():
    assert math.isnan(real_coverage_distance(torch.randn(2, 4), 5))
    assert math.isnan(entropy(TEXTS[:2], 5))
    assert math.isnan(entropy(["", ""], 5))
