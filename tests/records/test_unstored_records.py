"""Records that the run store cannot take: kept in a file, and taken in once when it can."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.records import store as store_module
from synque_select.records.store import RunStore
from synque_select.records.unstored_records import UNSTORED
from tests.records.records_data import make_record


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a store, as a process that hangs in a transaction does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(store_module, "_BUSY_TIMEOUT_OF_UNSTORED_S", 0.1)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "store" / "records.sqlite", run_dir=tmp_path / "runs" / "m" / "one")
    store.write(make_record("a", 0.1))
    return store


def test_a_locked_store_costs_no_record(store: RunStore, tmp_path: Path):
    record = make_record("b", 0.2, metrics={"val_acc": 0.2, "val_loss": math.inf})
    with locked(store.path):
        message = store.write_or_keep(record)
        (file,) = (tmp_path / "runs" / "m" / "one" / UNSTORED).iterdir()
        assert message is not None
        assert "database is locked" in message
        assert str(file) in message
        # correlations of this run have it, although the store does not
        assert [r.unit for r in store.read()] == ["a", "b"]
        assert file.exists()
    other = RunStore(store.path, run_dir=tmp_path / "runs" / "m" / "two")  # the next run
    assert other.read()[-1].metrics == record.metrics
    assert not file.parent.exists()
    assert [r.unit for r in RunStore(store.path).read()] == ["a", "b"]


def test_a_command_in_the_same_directory_takes_it_in(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with locked(store.path):
        store.write_or_keep(make_record("b", 0.2))
    monkeypatch.chdir(tmp_path)
    assert [r.unit for r in RunStore(store.path).read()] == ["a", "b"]
    assert not list(tmp_path.rglob("*.json"))


def test_without_a_directory_of_a_run_it_is_kept_beside_the_store(store: RunStore):
    with locked(store.path):
        assert RunStore(store.path).write_or_keep(make_record("b", 0.2)) is not None
    assert (store.path.parent / UNSTORED).is_dir()
    assert [r.unit for r in RunStore(store.path).read()] == ["a", "b"]
    assert not (store.path.parent / UNSTORED).exists()


def test_a_record_of_another_store_stays(store: RunStore, tmp_path: Path):
    with locked(store.path):
        store.write_or_keep(make_record("b", 0.2))
    assert RunStore(tmp_path / "other.sqlite", run_dir=store.run_dir).read() == []
    assert len(store.read()) == 2


def test_a_newer_record_of_the_same_run_is_not_replaced(store: RunStore):
    with locked(store.path):
        store.write_or_keep(make_record("b", 0.2, created="2026-01-01T00:00:00+00:00"))
    store.write(make_record("b", 0.3, created="2026-01-02T00:00:00+00:00"))
    assert [r.metrics["val_acc"] for r in store.read()] == [0.1, 0.3]
    assert [r.metrics["val_acc"] for r in RunStore(store.path).read()] == [0.1, 0.3]


def test_nothing_can_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    store = RunStore(tmp_path / "file" / "records.sqlite")
    message = store.write_or_keep(make_record("a", 0.1))
    assert message is not None
    assert "Nor could it be kept" in message
    assert "missing from correlations" in message


def test_a_damaged_file_is_named(store: RunStore):
    assert store.run_dir is not None
    file = store.run_dir / UNSTORED / "x.json"
    file.parent.mkdir(parents=True)
    for content in ("{", "[]", "{}", json.dumps({"version": 9}), '{"version": 1}'):
        file.write_text(content)
        with pytest.raises(RecordError, match=r"x\.json, a record that waits .* Remove it"):
            store.read()


def test_names_that_are_not_unicode(tmp_path: Path):
    """A path of a hyper-parameter, or of the run, whose bytes are not UTF-8."""
    store = RunStore(tmp_path / "caf\udce9" / "records.sqlite", run_dir=tmp_path / "r\udce9")
    record = make_record("a", 0.1, key={"hyper_parameters": {"data": "caf\udce9.csv"}})
    store.write(record)
    assert store.read() == [record]
    with locked(store.path):
        assert store.write_or_keep(make_record("b", 0.2)) is not None
    assert [r.unit for r in store.read()] == ["a", "b"]


def test_a_moved_project_takes_its_records_in(tmp_path: Path):
    project = tmp_path / "project"
    store = RunStore(project / "runs" / "records.sqlite", run_dir=project / "runs" / "m" / "one")
    store.write(make_record("a", 0.1))
    with locked(store.path):
        store.write_or_keep(make_record("b", 0.2))
    moved = project.rename(tmp_path / "moved")
    assert [r.unit for r in RunStore(moved / "runs" / "records.sqlite").read()] == ["a", "b"]
    assert not list(moved.rglob("*.json"))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_run_may_be_deeper_in_runs(depth: int, tmp_path: Path):
    runs = tmp_path / "runs"
    store = RunStore(runs / "records.sqlite", run_dir=runs.joinpath(*"abcd"[:depth]))
    store.write(make_record("a", 0.1))
    with locked(store.path):
        message = store.write_or_keep(make_record("b", 0.2))
    assert message is not None
    assert "the next read of this store takes it in" in message
    assert [r.unit for r in RunStore(store.path).read()] == ["a", "b"]


def test_a_record_of_a_run_elsewhere_can_be_moved_beside_the_store(tmp_path: Path):
    store = RunStore(tmp_path / "store" / "records.sqlite", run_dir=tmp_path / "out" / "x" / "one")
    store.write(make_record("a", 0.1))
    with locked(store.path):
        message = store.write_or_keep(make_record("b", 0.2))
    assert message is not None
    beside = store.path.parent.resolve() / UNSTORED
    assert f"of a run in {(tmp_path / 'out' / 'x').resolve()} takes it in" in message
    assert f"move the file into {beside}" in message
    assert [r.unit for r in RunStore(store.path).read()] == ["a"]
    beside.mkdir()
    (file,) = (tmp_path / "out").rglob("*.json")
    file.rename(beside / file.name)
    assert [r.unit for r in RunStore(store.path).read()] == ["a", "b"]


@pytest.mark.parametrize("run_id", ["x/y", "../../out", "a" * 300, "nul\0", "\ud800"])
def test_a_run_id_need_not_be_the_name_of_a_file(run_id: str, store: RunStore, tmp_path: Path):
    record = dataclasses.replace(make_record("b", 0.2), run_id=run_id)
    with locked(store.path):
        assert store.write_or_keep(record) is not None
    (file,) = tmp_path.rglob("*.json")
    assert file.parent == tmp_path / "runs" / "m" / "one" / UNSTORED
    assert sorted(r.unit for r in store.read()) == ["a", "b"]
