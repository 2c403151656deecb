"""Answers of language models, kept as they arrive: a killed run asks only for the rest."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from synque_select.errors import RecordError
from synque_select.utils.cache_dir import default_cache_dir

__all__ = ["AnswerCache", "AnswerSession", "answer_key", "default_answers_path"]

_APPLICATION_ID = 0x5351414E  # "SQAN"
_BUSY_TIMEOUT_S = 60.0
_MAX_VARIABLES = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


def default_answers_path() -> Path:
    """Return `answers.sqlite` in the default cache folder."""
    return default_cache_dir() / "answers.sqlite"


def answer_key(model: str, prompt: str, decoding: Mapping[str, Any]) -> str:
    """Return what an answer is kept by: model and revision, text of the prompt, decoding.

    Nothing else enters: no rank, no name of a candidate, no version of this library.

    Example:
        >>> answer_key("m", "p", {"seed": 0}) == answer_key("m", "p", {"seed": 1})
        False
    """
    body = json.dumps([model, prompt, dict(decoding)], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


class AnswerCache:
    """Answers in one SQLite file that several processes may share.

    Every `put` is with the operating system when it returns, so that a kill loses what is in
    flight and no more. The object holds only a path and can be copied to other processes.

    Args:
        path: The file, made by the first use; None for `default_answers_path()`.

    Example:
        >>> import tempfile
        >>> cache = AnswerCache(Path(tempfile.mkdtemp()) / "answers.sqlite")
        >>> cache.put({"k": [0.25, 0.75]})
        >>> cache.get(["k", "other"])
        {'k': [0.25, 0.75]}
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_answers_path() if path is None else Path(path)

    @contextmanager
    def session(self) -> Iterator[AnswerSession]:
        """Open the file for a number of `get` and `put`.

        Raises:
            RecordError: The file cannot be read or written, or is something else.
        """
        try:
            with closing(self._connect()) as connection:
                yield AnswerSession(connection)
        except (sqlite3.Error, OSError) as error:
            raise RecordError(f"the kept answers {self.path}: {error}") from error

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers that are there, by key; the errors are those of `session`."""
        with self.session() as session:
            return session.get(keys)

    def put(self, answers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Keep answers, plain values by key; the errors are those of `session`."""
        with self.session() as session:
            session.put(answers)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            if found != _APPLICATION_ID:
                self._make(connection, found)
            # a kill loses nothing in this mode, only a loss of power may
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection, found: int) -> None:
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        made_meanwhile = connection.execute("PRAGMA application_id").fetchone()[0]
        if (found or n_tables) and made_meanwhile != _APPLICATION_ID:
            raise RecordError(f"{self.path} is a SQLite file, but holds no answers: give another")
        with suppress(sqlite3.OperationalError):  # another process has it open: only slower
            connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


class AnswerSession:
    """The answers while their file is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers that are there, by key."""
        found: dict[str, Any] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = tuple(keys[start : start + _MAX_VARIABLES])
            places = ",".join("?" * len(part))
            query = f"SELECT key, answer FROM answers WHERE key IN ({places})"
            rows = self._connection.execute(query, part).fetchall()
            found.update((key, json.loads(answer)) for key, answer in rows)
        return found

    def put(self, answers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Keep answers, plain values by key."""
        rows = [(key, json.dumps(answer)) for key, answer in dict(answers).items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
