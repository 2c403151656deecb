"""Tables in memory are datasets of records."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
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


@pytest.mark.parametrize("label", ["other", "label"])
def test_the_label_is_read_beside_values_of_several_types(label: str):
    frame = pd.DataFrame({"text": ["x", "y"], "other": [1, "one"], "label": ["a", "b"]})
    (candidate,) = load_candidates({"a": frame}, view="text", label=label)
    assert candidate.labels == {"other": ("1", "one"), "label": ("a", "b")}[label]
    (alone,) = load_candidates({"a": frame[["other"]]}, view=lambda row: str(row["other"]))
    assert list(alone.views) == ["1", "one"]


def test_columns_without_names():
    with pytest.raises(DataError, match=r"a: the columns of the table are \[0, 1\]"):
        load_candidates({"a": pd.DataFrame([["x", 1], ["y", 2]])})


def records_of(frame: Any) -> list[Any]:
    (candidate,) = load_candidates({"a": frame}, view="text")
    return [candidate[place] for place in range(len(candidate))]


def test_a_nested_value_does_not_depend_on_other_rows():
    cells = [{"a": 9007199254740993}, {"a": 0.5, "b": "x"}, None, {"c": [1, 0.5]}]
    frame = pd.DataFrame({"text": list("wxyz"), "more": cells, "n": [1, 2, 3, 4]})
    assert [record["more"] for record in records_of(frame)] == cells
    assert [*records_of(frame)[0]] == ["text", "more", "n"]
    lists = [[9007199254740993], [0.5], [{"role": "user"}], []]
    assert [r["more"] for r in records_of(frame.assign(more=lists))] == lists


def test_a_frame_read_from_parquet_keeps_its_chats(tmp_path: Any):
    chats = [[{"role": "user", "content": text}] for text in "xy"]
    pa.parquet.write_table(pa.table({"messages": chats}), tmp_path / "a.parquet")
    (candidate,) = load_candidates({"a": pd.read_parquet(tmp_path / "a.parquet")})
    assert list(candidate.views) == ["x", "y"]
    assert candidate[0] == {"messages": chats[0]}


def test_integers_beyond_64_bits_and_missing_values_stay():
    frame = pd.DataFrame({"text": ["x", "y"], "n": pd.Series([10**30, None], dtype=object)})
    assert [record["n"] for record in records_of(frame)] == [10**30, None]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame([["x", "y"]] * 2, columns=["text", "text"]),
            "a: 2 columns are named 'text'",
        ),
        (pa.table([["x"], ["y"]], names=["text", "text"]), "a: 2 columns are named 'text'"),
        (
            pa.table({"text": ["x", "y"], "day": pa.array([10**8, 0], pa.date32())}),
            "a: the column 'day' holds dates outside of the years 1 to 9999",
        ),
        (
            pa.table({"text": ["x", "y"], "t": pa.array([1, 2], pa.time64("ns"))}),
            "a: the column 't' holds times with nanoseconds",
        ),
        (
            pa.table({"text": ["x"], "m": pa.array([[("k", 1)]], pa.map_("string", "int64"))}),
            "a: the column 'm' has the type map<string, int64>, which cannot be read",
        ),
    ],
)
def test_what_a_table_would_lose_is_an_error_that_names_the_column(frame: Any, words: str):
    with pytest.raises(DataError) as error:
        load_candidates({"a": frame}, view="text")
    assert str(error.value).startswith(words)


def test_a_lazy_frame_that_fails_is_named():
    lazy = polars().LazyFrame({"text": ["x"]}).select("none")
    with pytest.raises(DataError, match=r'a: the LazyFrame cannot be read: .*"none"'):
        load_candidates({"a": lazy})
