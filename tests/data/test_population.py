"""The draw from a stream: uniform, seeded, and the same however the examples are counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from synque_select.data.population import (
    LabelCounts,
    Population,
    Reservoir,
    ReservoirOptions,
    TextCounts,
)
from synque_select.errors import ConfigError
from synque_select.functional.ngram import counts_by_hash, ngram_counts


def drawn(size: int, n: int, seed: int, name: str = "a") -> list[int]:
    reservoir = Reservoir(ReservoirOptions(size, seed), name)
    reservoir.skip_to(n)
    return reservoir.positions


@pytest.mark.parametrize(("size", "n"), [(1, 30), (5, 40), (20, 25)])
def test_every_example_has_the_same_probability(size: int, n: int):
    # p of this test under a right draw: these seeds were not chosen, and 1e-4 is the limit
    n_draws = 4000
    counts = np.zeros(n)
    for seed in range(n_draws):
        positions = drawn(size, n, seed)
        assert len({*positions}) == size
        counts[positions] += 1
    p = size / n
    # inclusions of one draw add up to `size`: one degree of freedom less, and a factor for it
    statistic = ((counts - n_draws * p) ** 2).sum() / (n_draws * p * (1 - p)) * (n - 1) / n
    assert 1e-4 < chi2.sf(statistic, n - 1) < 1 - 1e-4


def test_every_pair_has_the_same_probability():
    size, n, n_draws = 3, 8, 6000
    counts = np.zeros((n, n))
    for seed in range(n_draws):
        positions = sorted(drawn(size, n, seed))
        counts[np.ix_(positions, positions)] += 1
    pairs = counts[np.triu_indices(n, 1)] / n_draws
    expected = size * (size - 1) / (n * (n - 1))
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected * (1 - expected) / n_draws)


def test_one_by_one_and_at_once_are_one_draw():
    for n in (0, 3, 10, 11, 500, 20_000):
        one_by_one = Reservoir(ReservoirOptions(10, 3), "a")
        slots = [one_by_one.place() for _ in range(n)]
        assert one_by_one.positions == drawn(10, n, 3)
        assert one_by_one.n == n
        assert all(slot is None or slot < 10 for slot in slots)


def test_seeds_and_names_give_other_draws():
    assert drawn(10, 500, 0) == drawn(10, 500, 0)
    assert drawn(10, 500, 0) != drawn(10, 500, 1)
    assert drawn(10, 500, 0) != drawn(10, 500, 0, "b")


@pytest.mark.parametrize("size", [99, 0, -1, True, "many"])
def test_sizes_that_are_not_allowed(size: object):
    with pytest.raises(ConfigError, match=r"reservoir=.*allowed is a whole number from 100"):
        ReservoirOptions.of(size)  # type: ignore[arg-type]
    assert ReservoirOptions.of(None) is None


def test_texts_are_counted_as_if_all_were_there():
    texts = [f"how many {i % 7} apps, {'x' * (i % 900)}" for i in range(9000)]
    counts = TextCounts()
    for text in texts[:4000]:
        counts.add(text)
    counts.totals()  # asking for them in between changes nothing
    for text in texts[4000:]:
        counts.add(text)
    for total, expected in zip(counts.totals(), counts_by_hash(texts), strict=True):
        assert (total == expected.numpy()).all()
    assert (counts.totals()[0] == ngram_counts(texts).numpy()).all()


def test_labels_that_are_no_classes_are_not_counted():
    counts = LabelCounts()
    for i in range(10_000):
        counts.add(str(i))
    assert len(counts.total() or ()) == 10_000
    counts.add("one more")
    assert counts.total() is None


def test_only_the_default_ngrams_are_those_of_all():
    texts = Population(200, "", np.arange(100), ngrams=(np.zeros(2**14, dtype=np.int64),))
    assert texts.has_ngrams(level="word", max_order=2, n_buckets=2**14)
    assert not texts.has_ngrams(level="word", max_order=1, n_buckets=2**14)
    assert "n-grams are those of all" in texts.note
    assert not Population(200, "", np.arange(100)).has_ngrams(
        level="word", max_order=2, n_buckets=2**14
    )
