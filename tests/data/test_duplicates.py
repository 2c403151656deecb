"""Small real samples, and datasets with many duplicates, are reported."""

from __future__ import annotations

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import n_distinct, sample_messages
from synque_select.selection.scorer import rank

REAL = [f"Which app is number {i}?" for i in range(24)]


def test_data_without_many_duplicates_gives_no_message():
    assert sample_messages([Candidate("a", ["x", "y", "y"])], RealSample("real", REAL)) == ()


def test_copies_of_one_text_count_as_one_distinct_example():
    repeated, few = sample_messages([], RealSample("real", REAL[:1] * 24))
    assert repeated.startswith("Only 1 of the 24 real examples are distinct")
    assert few.startswith("1 distinct real examples are few")


def test_a_ranking_includes_the_messages():
    candidates = [Candidate("same", ["Yes.", "No."] * 10), Candidate("other", REAL[::-1])]
    real = RealSample("real", REAL[:8])
    messages = rank(candidates, real, proxies=["ngram"], top_k=1).messages
    assert "same: only 2 of its 20 examples are distinct." in messages
    assert any(message.startswith("8 distinct real examples are few") for message in messages)


def test_different_texts_are_counted_as_distinct():
    assert n_distinct(RealSample("real", REAL).digests) == 24
