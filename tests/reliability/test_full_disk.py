"""A cache on a full disk: everything is computed all the same, with a note that names the cache."""

from __future__ import annotations

import errno
import io
import logging
import os
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synque_select.data import tables
from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.encoders import BaseEncoder, embed
from synque_select.errors import DataError, EncoderError
from synque_select.lens.cache import AnswerCache
from synque_select.selection.scorer import Scorer
from synque_select.utils import atomic, cache_dir
from tests.training.tiny import LetterEncoder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache; no file in it can be flushed to its disk, which is full."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SYNQUE_CACHE", str(folder))
    cache_dir._note_once.cache_clear()
    flush = atomic._flush_to_disk

    def flush_elsewhere(path: Path) -> None:
        if path.is_relative_to(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    monkeypatch.setattr(atomic, "_flush_to_disk", flush_elsewhere)
    return folder


def files(folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.parent.name != ".in-use"]
    return [path.name for path in paths if path.is_file()]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_large_file_is_read(cache: Path, tmp_path: Path, monkeypatch, caplog, kind: str):
    monkeypatch.setattr(tables, "SMALL_BYTES", 100)
    texts = [f"text number {i}" for i in range(3000)]
    path = tmp_path / f"big.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    with caplog.at_level(logging.WARNING):
        (candidate,) = load_candidates([str(path)], view="text")
    assert [*candidate.views] == texts
    assert f"{cache / 'tables'} cannot be written (No space left on device)" in caplog.text
    assert not files(cache / "tables")


def test_an_arrow_file_is_not_called_broken_if_the_disk_is_full(cache: Path, tmp_path: Path):
    """The write itself fails here, in the middle of the file."""
    batch = pa.record_batch({"text": ["a"] * 10})

    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "no space")

    sink = pa.PythonFile(Full(), "w")
    with pytest.raises(OSError, match="no space") as caught:
        tables._write_batches(tmp_path / "big.parquet", lambda _: iter([batch]), sink)
    assert caught.value.errno == errno.ENOSPC

    def broken(sink: object) -> bool:
        raise OSError(errno.EIO, "Input/output error", "big.parquet")

    with pytest.raises(DataError, match=r"cannot read the data: .*big\.parquet"):
        tables.write_table(tmp_path / "t.arrow", broken)


class Counting(BaseEncoder):
    id, modality, revision = "full-disk", "text", "1"
    n = 0

    def encode(self, views):
        self.n += len(views)
        return torch.tensor([[float(len(view)), 1.0] for view in views])


def test_embeddings_and_rankings_are_computed(cache: Path, caplog):
    encoder = Counting()
    words = Candidate("c", ["a", "bb", "ccc"])
    for _ in range(2):  # the second time, from the temporary folder
        rows = embed(encoder, words, cache_dir=cache).embeddings
        assert rows.tolist() == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    assert encoder.n == 3
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), cache_dir=cache, progress=False)
    candidates = [Candidate("near", ["abc", "abd"] * 5), Candidate("far", ["xyz", "xyy"] * 5)]
    real = scorer_real()
    ranking = scorer.cached_ranking(candidates, real)
    assert [row.name for row in ranking] == ["near", "far"]
    again, folder = scorer.cached_selection(candidates, real)
    assert [row.name for row in again] == ["near", "far"]
    assert (folder / "gaps.json").is_file()
    assert not folder.is_relative_to(cache)
    notes = [r.getMessage() for r in caplog.records if "cannot be written" in r.getMessage()]
    assert notes
    assert all(str(cache) in note and "No space left" in note for note in notes)
    assert all(name == "encoder.json" for name in files(cache))


def scorer_real():
    from synque_select.data.candidate import RealSample

    return RealSample("real", ["abc", "abe"] * 10)


def test_parts_of_the_cache_outlive_a_shard_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    flush, flushed = atomic._flush_to_disk, []

    def full_after_the_part(path: Path) -> None:
        if path.is_relative_to(tmp_path) and path.is_file():
            flushed.append(path)
            if len(flushed) > 2:  # encoder.json, and the part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    monkeypatch.setattr(atomic, "_flush_to_disk", full_after_the_part)
    embed(Counting(), Candidate("c", ["a", "bb"]))
    left = [name for name in files(tmp_path / "cache") if name.endswith(".safetensors")]
    assert len(left) == 1


def test_a_path_of_the_cache_that_is_too_long(tmp_path: Path):
    folder = tmp_path / ("x" * 300)
    with pytest.raises(EncoderError, match=r"cannot be used: .*File name too long"):
        embed(Counting(), Candidate("c", ["a", "bb"]), cache_dir=folder)


def test_answers_that_cannot_be_stored_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    cache_dir._note_once.cache_clear()
    connect = AnswerCache._connect

    def almost_full(self: AnswerCache, path: Path) -> sqlite3.Connection:
        connection = connect(self, path)
        connection.execute("PRAGMA max_page_count = 8")  # then SQLITE_FULL
        return connection

    monkeypatch.setattr(AnswerCache, "_connect", almost_full)
    answers = {f"key {i}": ["x" * 500, i] for i in range(100)}
    with caplog.at_level(logging.WARNING), AnswerCache(tmp_path / "a.sqlite").session() as session:
        for key, answer in answers.items():
            session.put({key: answer})
    assert AnswerCache(tmp_path / "a.sqlite").get([*answers, "other"]) == answers
    (note,) = [r.getMessage() for r in caplog.records if "cannot be written" in r.getMessage()]
    assert "a.sqlite cannot be written (No space left on device)" in note


def test_answers_are_used_where_their_disk_is_too_full_to_open_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = AnswerCache(tmp_path / "a.sqlite")
    cache.put({"early": 1})
    connect = AnswerCache._connect

    def full(self: AnswerCache, path: Path) -> sqlite3.Connection:
        if path == cache.path:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error
        return connect(self, path)

    monkeypatch.setattr(AnswerCache, "_connect", full)
    cache.put({"late": 2})
    assert cache.get(["early", "late"]) == {"early": 1, "late": 2}
