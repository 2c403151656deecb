"""Datasets with many duplicates are reported."""

from __future__ import annotations

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import n_distinct, sample_messages

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
    (message,) = sample_messages(candidates)
    assert message.startswith("Copies of each other: a, a2; b, b2. They have the same inputs")
    assert sample_messages(candidates[:2]) == ()
