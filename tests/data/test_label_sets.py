"""The texts of labels: what means the same is the same, in linear time."""

from __future__ import annotations

import time

import datasets
import pytest

from synque_select.data.candidate import Candidate
from synque_select.data.label_sets import NO_LABEL, label_text


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("\u200b a \u3000\n", "a"),
        (" \ufeff\u2060 ", NO_LABEL),
        ("-0.0", "0"),
        ("-3.00", "-3"),
        ("1" * 5000 + ".0", "1" * 5000),  # Python refuses to read so many digits
        (["café", "cafe\u0301", "b"], '["b", "café"]'),
        (["a", "a"], '["a"]'),
    ],
)
def test_labels_that_mean_the_same_have_one_text(label: object, text: str):
    assert label_text(label) == text


@pytest.mark.parametrize("inside", [" " * 100_000, "\u0301\u0323" * 50_000])
def test_long_labels_take_linear_time(inside: str):
    started = time.process_time()
    assert label_text(f"a{inside}b").endswith("b")
    assert time.process_time() - started < 5


def test_labels_of_a_candidate_are_those_of_its_values_one_by_one():
    """The class of a value that was read before is kept, and 1, 1.0 and true are not one value."""
    values = [1, True, 1.0, "1", "1.0", " a", "a", None, "", "a", True, 0, False, "cafe\u0301"] * 3
    values += [f"class {i}" for i in range(1500)] * 2  # more than are kept
    of_values = Candidate("a", [("x", value) for value in values], view=0, label=1)
    assert of_values.labels == tuple(map(label_text, values))
    assert of_values.merged_labels == {"1": ("1", "1.0"), "a": (" a", "a")}


def test_merged_classes_are_known_for_lists_and_for_the_type_of_datasets():
    lists = Candidate("a", [("x", ["café"]), ("y", ["cafe\u0301", "b"])], view=0, label=1)
    assert lists.merged_labels == {"café": ("café", "cafe\u0301")}
    kinds = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["café", "cafe\u0301"]),
        }
    )
    rows = [{"text": "x", "label": 0}, {"text": "y", "label": 1}]
    table = datasets.Dataset.from_list(rows, features=kinds)
    typed = Candidate("a", table, view="text", label="label")
    assert typed.labels == ("café", "café")
    assert typed.merged_labels == {"café": ("café", "cafe\u0301")}
