"""Answers that machines share: each has a database of its own, and none asks twice."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from synque_select.lens import answer_exchange, cache
from synque_select.lens.cache import AnswerCache
from synque_select.utils.remote_cache import remote_of
from tests.utils.stores import FlakyStore, forget, reset

URL = "flaky://bucket/cache"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that changes to the machine of a name, with a disk of its own."""
    reset()
    monkeypatch.setenv("SYNQUE_CACHE", URL)

    def use(name: str) -> AnswerCache:
        monkeypatch.setenv("SYNQUE_CACHE_LOCAL", str(tmp_path / name))
        forget()
        monkeypatch.setattr(cache, "_CHECKED", set())
        return AnswerCache()

    yield use
    reset()


def segments() -> list[str]:
    return sorted(path for path in FlakyStore.store if "/answers/" in path)


def test_answers_of_one_machine_are_those_of_all(machine):
    one = machine("one")
    one.put({"a": [0.5, 0.5], "b": "likely"})
    assert segments() == []
    one.send()
    assert len(segments()) == 1
    two = machine("two")
    assert two.get(["a", "b", "c"]) == {"a": [0.5, 0.5], "b": "likely"}
    two.put({"c": 3})
    two.send()
    assert len(segments()) == 2  # the answers of the first are not sent again
    assert machine("three").get(["a", "b", "c"]) == {"a": [0.5, 0.5], "b": "likely", "c": 3}
    assert machine("one").get(["c"]) == {"c": 3}
    assert len(segments()) == 2


def test_nothing_new_sends_nothing(machine):
    answers = machine("one")
    answers.put({"a": 1})
    answers.send()
    answers.send()
    answers = machine("one")
    answers.get(["a"])
    answers.send()
    assert len(segments()) == 1


def test_what_a_killed_process_did_not_send_is_sent_by_the_next(machine):
    machine("one").put({"a": 1})
    assert segments() == []
    machine("one").get(["a"])
    assert len(segments()) == 1
    assert machine("two").get(["a"]) == {"a": 1}


def test_answers_are_sent_while_a_session_is_open(machine, monkeypatch):
    monkeypatch.setattr(answer_exchange, "_EVERY_S", 0.0)
    with machine("one").session() as session:
        session.put({"a": 1})
        assert len(segments()) == 1
        session.put({"b": 2})
        assert len(segments()) == 2
    assert machine("two").get(["a", "b"]) == {"a": 1, "b": 2}


def test_a_store_that_cannot_be_reached_gets_the_answers_later(machine, caplog):
    answers = machine("one")
    answers.put({"a": 1})
    FlakyStore.failing["put_file"] = OSError("timed out")
    with caplog.at_level(logging.WARNING):
        answers.send()
    assert segments() == []
    assert "cannot be reached" in caplog.text
    FlakyStore.failing.clear()
    machine("one").get(["a"])
    assert len(segments()) == 1
    assert machine("two").get(["a"]) == {"a": 1}


def test_damaged_answers_are_not_taken(machine, caplog):
    answers = machine("one")
    answers.put({"a": 1})
    answers.send()
    (name,) = segments()
    content = bytearray(FlakyStore.store[name].getvalue())
    content[len(content) // 2] ^= 1
    FlakyStore().pipe_file(name, bytes(content))
    assert machine("two").get(["a"]) == {}
    assert "is damaged" in caplog.text
    assert segments() == []


def test_the_database_stays_local_and_the_copies_are_removed(machine, tmp_path):
    answers = machine("one")
    answers.put({"a": 1})
    answers.send()
    machine("two").get(["a"])
    assert not any("sqlite" in path for path in FlakyStore.store)
    assert not list(tmp_path.rglob("*.jsonl"))
    with sqlite3.connect(next((tmp_path / "two").rglob("answers.sqlite"))) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (1,)


def test_a_file_of_the_users_own_is_not_shared(machine, tmp_path):
    machine("one")
    answers = AnswerCache(tmp_path / "mine.sqlite")
    answers.put({"a": 1})
    answers.send()
    assert segments() == []
    assert remote_of(tmp_path) is None


def test_a_damaged_database_is_filled_from_the_store(machine, tmp_path):
    answers = machine("one")
    answers.put({f"key {i}": i for i in range(50)})
    answers.send()
    path = next((tmp_path / "one").rglob("answers.sqlite"))
    for beside in path.parent.glob("answers.sqlite*"):
        beside.unlink()
    path.write_bytes(b"not a database" * 100)
    assert len(machine("one").get([f"key {i}" for i in range(50)])) == 50
