"""Parquet and Arrow files that cannot be read: one error that names the file and the column."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synque_select.data import load_dataset_file, tables
from synque_select.errors import DataError

N = 3
BAD_TEXT = pa.StringArray.from_buffers(
    N, pa.py_buffer(np.arange(N + 1, dtype=np.int32).tobytes()), pa.py_buffer(b"ok\xff")
)
LIST_VIEW = pa.list_view(pa.int64())
COLUMNS: dict[str, Any] = {
    "map": pa.array([[("k", "v")]] * N, pa.map_(pa.string(), pa.string())),
    "uuid": pa.array([uuid.UUID(int=i).bytes for i in range(N)], pa.uuid()),
    "list_view": pa.array([[1]] * N, LIST_VIEW),
    "a list_view in a struct": pa.array([{"a": [1]}] * N, pa.struct([("a", LIST_VIEW)])),
    "a time zone that does not exist": pa.array([1] * N, pa.timestamp("us", "Mars/Base")),
    "the same in a list": pa.array([[1]] * N, pa.list_(pa.timestamp("us", "Mars/Base"))),
    "a repeated name in a struct": pa.StructArray.from_arrays(
        [pa.array(range(N)), pa.array(range(N))], ["a", "a"]
    ),
}
KEPT: dict[str, tuple[pa.DataType, list[Any]]] = {
    "large_string": (pa.large_string(), ["a", None, "b"]),
    "string_view": (pa.string_view(), ["a", None, "b"]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["a", None, "a"]),
    "decimal": (pa.decimal128(25, 2), [Decimal("1.10"), None, Decimal("12345678901234567890.12")]),
    "date": (pa.date32(), [datetime.date(2026, 2, 28), None, datetime.date(1, 1, 1)]),
    "time zone": (
        pa.timestamp("us", "Europe/Berlin"),
        [datetime.datetime(2026, 7, 1, 12, 0, 0, 1, datetime.UTC), None, None],
    ),
    "uint64": (pa.uint64(), [2**64 - 1, None, 0]),
    "integer beyond a float": (pa.int64(), [2**53 + 1, None, -(2**63)]),
    "binary": (pa.binary(), [b"\xff", None, b""]),
    "nested": (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.string())])))]),
        [{"a": 2**60 + 1, "b": [{"c": "x"}, {"c": None}]}, None, {"a": None, "b": []}],
    ),
    "large_list": (pa.large_list(pa.int8()), [[1, None], None, []]),
}


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        opener = pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.fixture(params=["a.parquet", "file.arrow", "stream.arrow", "large.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    if request.param == "large.parquet":
        monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    return tmp_path / request.param


@pytest.mark.parametrize("name", COLUMNS)
def test_a_type_that_cannot_be_read_names_the_column(name: str, path: Path):
    write(path, pa.table({"text": ["a", "b", "c"], name: COLUMNS[name]}))
    with pytest.raises(DataError, match=rf"^{path}: the column '{name}' has the type .*drop the"):
        load_dataset_file(path)


@pytest.mark.parametrize("name", KEPT)
def test_values_of_other_types_are_kept(name: str, path: Path):
    type_, values = KEPT[name]
    write(path, pa.table({"text": ["a", "b", "c"], "x": pa.array(values, type_)}))
    dataset = load_dataset_file(path)
    assert [dataset[position]["x"] for position in range(N)] == values


@pytest.mark.parametrize("index", [["i", "j", "k"], pd.Index([5, 6, 7], name="id")])
def test_the_index_of_pandas_is_kept(index: Any, tmp_path: Path):
    frame = pd.DataFrame({"text": ["a", "b", "c"]}, index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    dataset = load_dataset_file(tmp_path / "a.parquet")
    assert [[*dataset[position].values()] for position in range(N)] == [
        [text, value] for value, text in frame["text"].items()
    ]


FAR = {
    "date32": (pa.array([0, 10**8, None], pa.int32()).cast(pa.date32()), "dates outside"),
    "date64": (pa.array([0, 86_400_000 * 10**8, None]).cast(pa.date64()), "dates outside"),
    "timestamp": (pa.array([0, 10**18, None]).cast(pa.timestamp("us")), "dates outside"),
    "seconds": (pa.array([0, 10**12, None]).cast(pa.timestamp("s", "UTC")), "dates outside"),
    "struct": (pa.array([{"d": 0}, {"d": 10**12}, None], pa.struct([("d", pa.timestamp("s"))])),
               "dates outside"),
    "list": (pa.array([[0], [10**12], None], pa.list_(pa.timestamp("s"))), "dates outside"),
    "duration": (pa.array([0, 10**17, None]).cast(pa.duration("s")), "durations of more than"),
    "time": (pa.array([0, 1001, None]).cast(pa.time64("ns")), "times with nanoseconds"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAR)
def test_times_that_python_cannot_hold_name_the_column(name: str, path: Path):
    column, words = FAR[name]
    write(path, pa.table({"text": ["a", "b", "c"], name: column}))
    with pytest.raises(DataError, match=rf"^{path}: the column '{name}' holds {words}.*cast it to"):
        load_dataset_file(path)


def test_times_at_the_ends_are_kept(path: Path):
    days = [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None]
    times = [datetime.time(0, 0, 0, 1), datetime.time(23, 59, 59, 999_999), None]
    lengths = [datetime.timedelta(days=-3), datetime.timedelta(days=100_000), None]
    columns = {
        "day": pa.array(days, pa.date32()),
        "time": pa.array(times, pa.time64("ns")),
        "length": pa.array(lengths, pa.duration("us")),
    }
    write(path, pa.table({"text": ["a", "b", "c"], **columns}))
    dataset = load_dataset_file(path)
    assert [dataset[i]["day"] for i in range(N)] == days
    assert [dataset[i]["time"] for i in range(N)] == times
    assert [dataset[i]["length"] for i in range(N)] == lengths


def test_a_file_that_says_it_is_of_the_cache_is_read_as_it_is(path: Path):
    table = pa.table({"text": ["1", "{", "c"], "n": [[1], [2], None]})
    write(path, table.replace_schema_metadata({"synque_select.json_fields": '["text", "n"]'}))
    dataset = load_dataset_file(path)
    assert [dataset[i] for i in range(N)] == table.to_pylist()


def test_a_repeated_column_is_named(path: Path):
    arrays = [pa.array(["a", "b", "c"]), pa.array(range(N)), pa.array(range(N))]
    write(path, pa.Table.from_arrays(arrays, names=["text", "score", "score"]))
    with pytest.raises(DataError, match=rf"^{path}: 2 columns are named 'score'; names of columns"):
        load_dataset_file(path)


def test_a_text_that_is_not_utf8_names_the_column(path: Path):
    write(path, pa.table({"text": ["a", "b", "c"], "note": BAD_TEXT}))
    with pytest.raises(DataError, match=rf"^{path}: the column 'note' is broken: Invalid UTF8"):
        load_dataset_file(path)


@pytest.mark.parametrize(
    "metadata",
    [json.dumps({"info": {"features": {"text": {"_type": "Hologram"}}}}), "{", b"\xff"],
    ids=["newer", "cut", "bytes"],
)
def test_metadata_of_another_version(metadata: str | bytes, path: Path):
    table = pa.table({"text": ["a", "b", "c"]})
    write(path, table.replace_schema_metadata({"huggingface": metadata}))
    with pytest.raises(DataError, match=rf"^{path}: the metadata that `datasets` wrote"):
        load_dataset_file(path)


def test_a_cut_file(path: Path):
    write(path, pa.table({"text": ["a", "b", "c"]}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"^{path}: "):
        load_dataset_file(path)


def test_digits_and_types_are_kept(path: Path):
    ids = [1234567890123456789, 2**63 - 1, -1]
    write(path, pa.table({"text": ["a", "b", "c"], "id": ids, "x": pa.array([0.5, None, 1.0])}))
    dataset = load_dataset_file(path)
    assert [dataset[i]["id"] for i in range(N)] == ids
    assert [dataset[i]["x"] for i in range(N)] == [0.5, None, 1.0]
