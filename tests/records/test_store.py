"""The run store: shared by processes, idempotent, and clear about what it cannot read."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.records.store import RunStore, default_store_path
from synque_select.types import Mixture
from tests.records.records_data import make_record

WRITER = """
import sys
from synque_select.records.store import RunStore
from tests.records.records_data import make_record

store = RunStore(sys.argv[1])
for i in range(25):
    store.write(make_record(f"p{sys.argv[2]}-{i}", i / 25))
    assert any(r.unit == f"p{sys.argv[2]}-{i}" for r in store.read())
"""


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "deep" / "records.sqlite")


def test_a_record_comes_back_as_it_was(store: RunStore):
    record = make_record(
        "a",
        0.5,
        mixture=Mixture({"a": 0.25, "b": 0.75}, "top 2"),
        metrics={"val_acc": 0.5, "val_loss": math.inf},
        scores={"pad": math.nan, "mdm": 0.1},
        key={"task": "t", "hyper_parameters": {"lr": 0.1, "clip": math.inf, "betas": (0.9, 0.99)}},
        details={"startup": True, "note": "日本"},
    )
    store.write(record)
    (result,) = store.read()
    assert result.key_hash == record.key_hash
    assert result.metrics == record.metrics
    assert math.isnan(result.scores["pad"])
    assert result.details == record.details
    assert result.mixture == record.mixture


def test_writing_twice_replaces(store: RunStore):
    store.write(make_record("a", 0.1))
    store.write(make_record("a", 0.2))
    (record,) = store.read()
    assert record.metrics["val_acc"] == 0.2


def test_kind_and_key_select(store: RunStore):
    probe = make_record("a", 0.1)
    mixture = make_record("b", 0.2, kind="mixture")
    other = make_record("c", 0.3, key={"task": "other"})
    for record in (probe, mixture, other):
        store.write(record)
    assert [r.unit for r in store.read(kind="probe")] == ["a", "c"]
    assert [r.unit for r in store.read(key_hash=probe.key_hash)] == ["a", "b"]
    assert [r.unit for r in store.read("mixture", probe.key_hash)] == ["b"]
    assert store.read(key_hash="' OR 1 --") == []


def test_the_oldest_comes_first(store: RunStore):
    store.write(make_record("late", created="2026-02-01T00:00:00+00:00"))
    store.write(make_record("early", created="2026-01-01T00:00:00+00:00"))
    assert [record.unit for record in store.read()] == ["early", "late"]


def test_reading_makes_no_file(store: RunStore):
    assert store.read() == []
    assert not store.path.exists()


def test_four_processes_write_at_once(store: RunStore):
    command = [sys.executable, "-c", WRITER, str(store.path)]
    processes = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE) for i in range(4)]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert len({record.unit for record in store.read()}) == 100


def _write_to_new_store(path: Path) -> None:
    store = RunStore(path)
    store.write(make_record())
    store.read()


def test_several_processes_make_the_store_at_once(tmp_path: Path):
    """One makes the schema, and none takes the half-made file for somebody else's."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for i in range(30):
            pool.map(_write_to_new_store, [tmp_path / f"{i}.sqlite"] * 4, chunksize=1)


def test_a_store_travels_to_other_processes(store: RunStore):
    store.write(make_record("a"))
    assert [r.unit for r in pickle.loads(pickle.dumps(store)).read()] == ["a"]


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path):
    path = tmp_path / "records.sqlite"
    path.write_text("not a database, however long it may be" * 30)
    before = path.read_bytes()
    for use in (RunStore(path).read, lambda: RunStore(path).write(make_record())):
        with pytest.raises(RecordError, match=r"records\.sqlite.*not a database"):
            use()
    assert path.read_bytes() == before


def test_a_database_of_somebody_else_is_named_and_kept(tmp_path: Path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (a)")
        connection.commit()
    for use in (RunStore(path).read, lambda: RunStore(path).write(make_record())):
        with pytest.raises(RecordError, match=r"other\.sqlite.*not a run store"):
            use()


def test_a_store_of_a_newer_version_is_refused(store: RunStore):
    store.write(make_record())
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    for use in (store.read, lambda: store.write(make_record())):
        with pytest.raises(RecordError, match="schema version 2, made by a newer synque-select"):
            use()


@pytest.mark.parametrize("text", ["{", "{}", '{"mixture": {"weights": {}}}', "[]", "null"])
def test_a_damaged_record_is_named(store: RunStore, text: str):
    store.write(make_record("a"))
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE runs SET record = ?", (text,))
        connection.commit()
    with pytest.raises(RecordError, match=r"records\.sqlite: the record 'a-0' is damaged"):
        store.read()


def test_a_damaged_file_is_named(store: RunStore):
    for i in range(40):
        store.write(make_record(f"u{i}"))
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(store.path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    store.path.write_bytes(bytes(content))
    with pytest.raises(RecordError, match=r"records\.sqlite"):
        store.read()


@pytest.mark.parametrize("key", [{"model": object()}, {1: "a", "b": 2}])
def test_a_key_that_json_cannot_hash_is_named(store: RunStore, key):
    with pytest.raises(RecordError, match=r"run record 'x-0'\.key"):
        store.write(make_record("x", key=key))
    assert store.read() == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="file"):
        RunStore(tmp_path / "file" / "records.sqlite").write(make_record())


def test_the_default_stands_beside_the_run_folders(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SYNQUE_STORE", raising=False)
    assert default_store_path() == Path("runs") / "records.sqlite"
    monkeypatch.setenv("SYNQUE_STORE", "/somewhere/else.sqlite")
    assert RunStore().path == Path("/somewhere/else.sqlite")
