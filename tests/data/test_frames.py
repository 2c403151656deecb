"""Tables in memory are datasets of records."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from synque_select.data.sources import load_candidates, load_real
from synque_select.errors import DataError

RECORDS = [
    {"text": "x", "label": "a", "score": 0.5},
    {"text": "y", "label": None, "score": math.nan},
    {"text": "z", "label": "b", "score": 2.0},
]


def polars() -> Any:
    return pytest.importorskip("polars", reason="polars is not installed")


def frames() -> list[Any]:
    pl = polars()
    indexed = pd.DataFrame(RECORDS, index=[5, 3, 9])
    return [
        indexed,
        indexed.astype({"label": "category"}),
        pl.DataFrame(RECORDS),
        pl.DataFrame(RECORDS).with_columns(pl.col("label").cast(pl.Categorical)),
        pl.DataFrame(RECORDS).lazy(),
        pa.Table.from_pylist(RECORDS),
    ]


@pytest.mark.parametrize("place", range(6))
def test_a_table_is_a_candidate(place: int):
    frame = frames()[place]
    for source in ({"a": frame}, [frame], frame):
        (candidate,) = load_candidates(source, view="text", label="label")
        assert list(candidate.views) == ["x", "y", "z"]
        assert candidate.labels == ("a", "(no label)", "b")
        assert set(candidate[0]) == {"text", "label", "score"}
    assert list(load_real(frame, view="text").views) == ["x", "y", "z"]


def test_a_column_is_a_list():
    assert list(load_real(pd.DataFrame(RECORDS)["text"]).views) == ["x", "y", "z"]
    assert list(load_real(polars().DataFrame(RECORDS)["text"]).views) == ["x", "y", "z"]
    assert list(load_real(pa.chunked_array([["x", "y", "z"]])).views) == ["x", "y", "z"]


def test_values_of_several_types_stay_as_they_are():
    frame = pd.DataFrame({"text": ["x", "y"], "other": [1, "one"]})
    (candidate,) = load_candidates({"a": frame}, view="text")
    assert [record["other"] for record in candidate] == [1, "one"]


def test_columns_without_names():
    with pytest.raises(DataError, match=r"a: the columns of the table are \[0, 1\]"):
        load_candidates({"a": pd.DataFrame([["x", 1], ["y", 2]])})
