"""Dropped and relabeled examples of a candidate."""

from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from synque_select.data.candidate import Candidate
from synque_select.data.label_edits import LabelEdits
from synque_select.errors import ConfigError, DataError

RECORDS = [{"text": f"t{i}", "label": i % 2} for i in range(4)]


def test_dropped_examples_are_gone_and_the_others_keep_their_order():
    candidate = Candidate("a", RECORDS, "text", "label")
    edited = LabelEdits({"a": {2: "1", 0: "1"}}).apply(candidate)
    assert list(edited) == [RECORDS[1], RECORDS[3]]
    assert edited.label == "label"
    assert len(candidate) == 4


def test_relabeled_examples_have_a_label_of_the_type_of_the_others():
    candidate = Candidate("a", RECORDS, "text", "label")
    edited = LabelEdits({"a": {0: "1"}}, relabel=True).apply(candidate)
    assert [example["label"] for example in edited] == [1, 1, 0, 1]
    assert list(edited.views) == list(candidate.views)
    assert RECORDS[0]["label"] == 0


def test_classes_are_compared_by_name_and_written_as_their_numbers():
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos", "odd"])})
    data = Dataset.from_dict({"text": list("wxyz"), "label": [0, 1, 1, -1]}, features=kinds)
    candidate = Candidate("a", data, "text", "label")
    assert candidate.labels == ("neg", "pos", "pos", "(no label)")
    edited = LabelEdits({"a": {0: "pos", 2: "odd"}}, relabel=True).apply(candidate)
    assert [example["label"] for example in edited] == [1, 1, 2, -1]
    assert edited.labels == ("pos", "pos", "odd", "(no label)")
    assert edited.without([1]).labels == ("pos", "odd", "(no label)")


def test_examples_that_are_tuples():
    candidate = Candidate("a", [("x", 0), ("y", 1)], 0, 1)
    assert list(LabelEdits({"a": {0: "1"}}, relabel=True).apply(candidate)) == [("x", 1), ("y", 1)]


def test_other_candidates_are_not_touched():
    candidate = Candidate("b", RECORDS, "text", "label")
    assert LabelEdits({"a": {0: "1"}}).apply(candidate) is candidate


def test_it_is_read_back():
    edits = LabelEdits({"a": {2: "1", 0: "x"}, "b": {}}, relabel=True)
    assert LabelEdits.from_dict(edits.to_dict()) == edits


def test_a_label_that_is_a_function_cannot_be_changed():
    candidate = Candidate("a", RECORDS, "text", lambda example: example["label"])
    with pytest.raises(ConfigError, match="a field or a position"):
        LabelEdits({"a": {0: "1"}}, relabel=True).apply(candidate)


def test_two_examples_must_remain():
    candidate = Candidate("a", RECORDS, "text", "label")
    with pytest.raises(DataError, match="at least 2"):
        candidate.without([0, 1, 2])


def test_positions_are_those_of_the_candidate_that_was_judged():
    candidate = Candidate("a", RECORDS, "text", "label")
    part = candidate.without([0])
    edits = LabelEdits({"a": {0: "1", 2: "1"}})
    assert list(edits.apply(part, of=candidate)) == [RECORDS[1], RECORDS[3]]
    with pytest.raises(ConfigError, match="not a part"):
        edits.apply(Candidate("a", [*RECORDS], "text"), of=candidate)
