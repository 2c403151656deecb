"""The halves of the real sample: nothing straddles them, and both are reproducible."""

from __future__ import annotations

import numpy as np
import pytest

from synque_select.data.candidate import RealSample
from synque_select.data.contamination import duplicates_in
from synque_select.errors import DataError
from synque_select.generation.split import split_real
from tests.generation.sentences import sentences


def views(real: RealSample) -> set[str]:
    return {str(view) for view in real.views}


@pytest.mark.parametrize("seed", range(5))
def test_the_halves_are_disjoint_and_complete(seed: int):
    texts = sentences("real", 81, 0)
    halves = split_real(RealSample("real", texts), seed)
    shown, held_out = views(halves.shown), views(halves.held_out)
    assert shown | held_out == set(texts)
    assert not shown & held_out
    assert abs(len(shown) - len(held_out)) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_near_copies_and_groups_are_in_one_half(seed: int):
    texts = sentences("real", 150, 0)
    rows = [{"text": text, "thread": i // 2} for i, text in enumerate(texts)]
    # near copies of texts of other threads connect their threads
    rows += [{"text": f"{texts[i].upper()}!", "thread": 200 + i} for i in range(0, 150, 9)]
    real = RealSample("real", rows, view="text", group_by="thread")
    halves = split_real(real, seed)
    assert not duplicates_in(halves.shown, halves.held_out).any()
    threads = [{row["thread"] for row in half} for half in (halves.shown, halves.held_out)]
    assert not threads[0] & threads[1]


def test_copies_do_not_straddle_even_if_examples_are_called_independent():
    texts = sentences("real", 60, 0)
    real = RealSample("real", texts + [f"{text}?" for text in texts[:20]], group_by=False)
    halves = split_real(real, 3)
    assert not duplicates_in(halves.shown, halves.held_out).any()


def test_the_split_depends_on_content_and_seed_only():
    texts = sentences("real", 80, 0)
    turned = np.random.default_rng(0).permutation(texts).tolist()
    halves = split_real(RealSample("real", texts), 1)
    assert views(halves.held_out) == views(split_real(RealSample("real", turned), 1).held_out)
    assert views(halves.held_out) != views(split_real(RealSample("real", texts), 2).held_out)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (sentences("real", 30, 0), "the held-out half has 15"),
        ([f"one two three four five {'six' * (i % 2)}" for i in range(50)], "copies of each other"),
    ],
)
def test_too_little_to_divide(texts: list[str], words: str):
    with pytest.raises(DataError, match=words):
        split_real(RealSample("real", texts), 0)


def test_large_groups_count_as_little_as_they_say():
    rows = [{"text": text, "g": i % 6} for i, text in enumerate(sentences("real", 80, 0))]
    with pytest.raises(DataError, match="count as 3 independent ones"):
        split_real(RealSample("real", rows, view="text", group_by="g"), 0)
