"""The list of dropped examples on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.records.dropped_labels_file import load_dropped_labels, save_dropped_labels
from synque_select.types import DroppedLabel

DROPPED = {"=cmd()": (DroppedLabel(3, "=1+1", "größer", 0.75), DroppedLabel(7, "a\nb", "c", 1.0))}


def test_it_is_read_back(tmp_path: Path):
    path = save_dropped_labels(tmp_path / "new" / "dropped_labels.jsonl", DROPPED, relabel=False)
    assert len(path.read_text().splitlines()) == 2
    assert load_dropped_labels(path) == DROPPED


def test_the_reason_says_which_class_has_the_most_votes(tmp_path: Path):
    dropped = {"a": (DroppedLabel(0, "x", "y", 0.75), DroppedLabel(1, "x", "x", 0.59))}
    path = save_dropped_labels(tmp_path / "d.jsonl", dropped, relabel=False)
    first, second = (json.loads(line)["reason"] for line in path.read_text().splitlines())
    assert first.endswith("the label 'x', and 'y' has the most votes of all classes: it is dropped")
    assert second.endswith("the label 'x', which has the most votes of all classes: it is dropped")


def test_nothing_dropped_is_an_empty_file(tmp_path: Path):
    path = save_dropped_labels(tmp_path / "d.jsonl", {"a": ()}, relabel=False)
    assert load_dropped_labels(path) == {}


@pytest.mark.parametrize("text", ["{", '{"candidate": "a"}', '{"candidate": "a", "position": -1}'])
def test_a_damaged_line_is_named(tmp_path: Path, text: str):
    path = save_dropped_labels(tmp_path / "d.jsonl", DROPPED, relabel=False)
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(RecordError, match="line 3, is damaged"):
        load_dropped_labels(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RecordError, match=r"nothing\.jsonl"):
        load_dropped_labels(tmp_path / "nothing.jsonl")
