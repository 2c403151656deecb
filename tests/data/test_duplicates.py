"""Datasets with many duplicates are reported."""

from __future__ import annotations

import unicodedata

import pytest

from synque_select.data import duplicates
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import copy_groups, n_distinct, sample_messages

REAL = [f"Which app is number {i}?" for i in range(24)]


def test_data_without_many_duplicates_gives_no_message():
    assert sample_messages([Candidate("a", ["x", "y", "y"])]) == ()


def test_different_texts_are_counted_as_distinct():
    assert n_distinct(RealSample("real", REAL).digests) == 24


def test_candidates_that_are_copies_of_each_other_are_named_once():
    texts = ["one", "two", "three"]
    candidates = [
        Candidate("a", texts),
        Candidate("b", ["four", "five"]),
        Candidate("a2", texts[::-1]),
        Candidate("b2", ["four", "five"]),
        Candidate("c", [*texts, "one"]),
    ]
    (message,) = sample_messages(candidates[:4])
    assert message.startswith("Copies of each other: a, a2; b, b2. They have the same inputs")
    assert sample_messages(candidates[:2]) == ()
    exact, near = sample_messages(candidates)
    assert exact.startswith("Copies of each other: b, b2.")
    assert near.startswith("Near copies of each other: a, a2, c. They share more than half")


def test_the_unicode_form_makes_no_difference():
    texts = ["tôi thích ăn", "phở bò", "김치찌개"]
    other = [unicodedata.normalize("NFD", text) for text in texts]
    (message,) = sample_messages([Candidate("a", texts), Candidate("b", other)])
    assert message.startswith("Copies of each other: a, b.")
    assert n_distinct(RealSample("real", [*texts, *other]).digests) == 3


def test_near_copies_share_more_than_half_of_the_distinct_views_of_the_smaller_one():
    def numbers(*views: str) -> list[int]:
        sets = [Candidate(str(i), list(part)) for i, part in enumerate(views)]
        return copy_groups([part.digests for part in sets]).tolist()

    assert numbers("abcd", "abxy") == [0, 1]
    assert numbers("abcd", "abcx") == [0, 0]
    # a part of a larger one, and repeated views count once
    assert numbers("abcdefgh", "gh") == [0, 0]
    assert numbers("aaaaaaab", "aaaxyz") == [0, 1]
    # by a chain: the first and the last share half
    assert numbers("uvwx", "wxyz", "vwxy") == [0, 0, 0]
    assert numbers("uvwx", "wxyz", "efgh") == [0, 1, 2]


def test_only_pairs_that_share_a_view_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    n_pairs: list[int] = []
    connected = duplicates.connected_components
    monkeypatch.setattr(
        duplicates,
        "connected_components",
        lambda pairs, **options: n_pairs.append(pairs.nnz) or connected(pairs, **options),
    )
    sets = [Candidate(str(k), [f"{k} {i}" for i in range(5)]) for k in range(300)]
    sets += [Candidate(f"copy {k}", [f"0 {i}" for i in range(5)]) for k in range(300)]
    numbers = copy_groups([part.digests for part in sets])
    assert numbers.tolist() == [*range(300), *[0] * 300]
    assert sum(n_pairs) <= 600  # not the 180,000 of all pairs, nor the 45,000 of copies
