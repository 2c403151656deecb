"""Any bytes in a data file: either examples or one DataError that names the file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.data import load_candidates
from synque_select.errors import SynqueError
from tests.reliability.counts import record_counts

RECORDS = [{"text": f"text {i}", "n": i, "x": 0.5, "call": {"a": [i]}} for i in range(3)]
NAMES = ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.arrow", "s.arrow", "a.jsonl.gz",
         "a.csv.zst", "a.zip"]  # fmt: skip


def valid(name: str, folder: Path) -> bytes:
    """Return a file of the format that can be read."""
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
    if name.endswith((".jsonl", ".gz")):
        return gzip.compress(lines) if name.endswith(".gz") else lines
    if name == "a.json":
        return json.dumps(RECORDS, indent=1).encode()
    if name.endswith((".csv", ".tsv")):
        cells = [["text", "n", "note"], ["a", "1", '"x ""y"""'], ["b", "", "z"]]
        return "\n".join(("\t" if "tsv" in name else ",").join(row) for row in cells).encode()
    if name.endswith((".zst", ".zip")):
        return b"(\xb5/\xfd" if name.endswith(".zst") else b"PK\x03\x04"
    table, path = pa.Table.from_pylist(RECORDS), folder / "valid"
    if name == "a.parquet":
        pq.write_table(table, path)
    else:
        opener = pa.ipc.new_stream if name == "s.arrow" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table)
    return path.read_bytes()


_PIECES = [*'{}[]",:\t\n\r \\', '{"text": ', '"text"', '"a"', "null", "NaN", "1e999", "-", "0.10"]
_PIECES += ["9" * 25, "\\ud83d", '{"text": "a"}\n', '{"a": 1, "a": 2}', "[" * 400, "\ufeff", "\0"]
_PIECES += ["sep=;\n", "Infinity", "e\u0301", "\u200d", "1e400", ";", "\r"]
_PIECES += ["text\tn\n", "text,n\n", "a\t1\n", 'a,"1"\n', '""', "true", "é", "\x85", "日"]
TEXTS = st.lists(st.sampled_from(_PIECES), max_size=30).map(lambda parts: "".join(parts).encode())
DAMAGES = st.tuples(st.integers(0, 10**6), st.binary(max_size=8), st.booleans())
CONTENTS = st.one_of(TEXTS, st.binary(max_size=200), st.lists(DAMAGES, min_size=1, max_size=3))


def content_of(drawn: Any, name: str, folder: Path) -> bytes:
    return drawn if isinstance(drawn, bytes) else damaged(valid(name, folder), drawn)


def damaged(content: bytes, damages: Sequence[tuple[int, bytes, bool]]) -> bytes:
    """Return a content with bytes overwritten, or the rest cut off, at some places."""
    for place, part, is_cut in damages:
        at = place % (len(content) + 1)
        content = content[:at] + part + (b"" if is_cut else content[at + len(part) :])
    return content


def check(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    try:
        (candidate,) = load_candidates({"a": path}, view="text")
        assert len(list(candidate.views)) == len(candidate)
        assert all(isinstance(view, str) for view in candidate.views)
    except SynqueError as error:
        assert str(path) in str(error)  # noqa: PT017 - some contents are valid
        record_counts("fuzz", {"clean error": 1})
    else:
        record_counts("fuzz", {"read": 1})


@settings(max_examples=50, deadline=None, derandomize=True)
@given(name=st.sampled_from(NAMES), drawn=CONTENTS)
def test_any_content_is_read_or_is_one_error(name: str, drawn: Any, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    check(name, content_of(drawn, name, folder), folder)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(name=st.sampled_from(NAMES), drawn=CONTENTS)
def test_any_content_is_read_or_is_one_error_at_length(name: str, drawn: Any, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    check(name, content_of(drawn, name, folder), folder)
