"""Parquet and Arrow files that cannot be read: one error that names the file and the column."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
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
