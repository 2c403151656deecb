"""Rows without the formatting of `datasets` are those that `datasets` returns."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets
from PIL import Image as PILImage

from synque_select.data.candidate import Candidate
from synque_select.data.plain_rows import PlainRows, plain_rows


def table(start: int, n: int) -> Dataset:
    rows = range(start, start + n)
    return Dataset.from_dict(
        {
            "text": [f"text {i}" for i in rows],
            "label": [None if i % 3 == 0 else i % 2 for i in rows],
            "parts": [[{"a": i, "b": None}] * (i % 3) for i in rows],
            "number": [i / 7 for i in rows],
        }
    )


def cases() -> dict[str, Dataset]:
    chunked = concatenate_datasets([table(0, 5), table(5, 1), table(6, 7)])
    named = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    return {
        "one chunk": table(0, 6),
        "chunks": chunked,
        "shuffled": chunked.shuffle(seed=0),
        "selected": chunked.select([7, 0, 0, 5]),
        "classes": Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=named),
    }


@pytest.mark.parametrize("name", cases())
def test_rows_are_equal(name: str):
    dataset = cases()[name]
    rows = plain_rows(dataset)
    again = pickle.loads(pickle.dumps(rows))
    for i in (*range(len(dataset)), -1, np.int64(1)):
        assert rows[i] == again[i] == dataset[i]
        assert list(rows[i]) == list(dataset[i])
    with pytest.raises(IndexError):
        rows[len(dataset)]


def test_a_format_that_is_set_later_counts():
    dataset = table(0, 6)
    candidate = Candidate("a", dataset, "text", "label")
    assert candidate[1] == dataset[1]
    dataset.set_format("numpy", columns=["number"])
    assert isinstance(candidate[1]["number"], np.floating)
    assert set(candidate[1]) == {"number"}


@pytest.mark.parametrize(
    "dataset",
    [
        [{"text": "x"}],
        table(0, 3).with_format("numpy"),
        table(0, 3).with_transform(lambda batch: batch),
        Dataset.from_dict(
            {"image": [PILImage.new("RGB", (2, 2))]}, features=Features({"image": Image()})
        ),
    ],
    ids=["list", "format", "transform", "images"],
)
def test_what_is_formatted_or_decoded_is_left_to_the_dataset(dataset: Any):
    assert plain_rows(dataset) is None


def test_a_part_of_a_candidate_reads_the_same_rows():
    candidate = Candidate("a", cases()["shuffled"], "text", "label")
    part = candidate.without([0, 2])
    assert [part[i] for i in range(len(part))] == [
        candidate.dataset[i] for i in range(len(candidate)) if i not in (0, 2)
    ]
    assert isinstance(part.dataset._rows, PlainRows)
    assert pickle.loads(pickle.dumps(part))[0] == part[0]
