"""Cache of the answers of language models, so that a killed run asks only for the rest."""

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


def answer_key(model: str, prompt: str, decoding: Mapping[str, object]) -> str:
    """Return the cache key of an answer: a hash of the model, the prompt and the decoding options.

    Nothing else is part of the key: no rank, no candidate name and no version of this library, so
    answers are reused across runs, machines and releases.

    Args:
        model: Id and revision of the model (`BaseLLM.key`).
        prompt: Text of the prompt.
        decoding: Options that change the answer, such as the temperature.

    Example:
        >>> answer_key("m", "p", {"seed": 0}) == answer_key("m", "p", {"seed": 1})
        False
    """
    body = json.dumps([model, prompt, dict(decoding)], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


class AnswerCache:
    """Answers in one SQLite file that several processes may share.

    An answer is handed to the operating system before `put` returns, so a kill loses only the
    answers in flight. The object holds nothing but a path and can be sent to other processes.

    Args:
        path: The file, created on first use; None for `default_answers_path()`.

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
        """Open the file for several calls of `get` and `put`.

        Raises:
            RecordError: The file cannot be read or written, or is not an answer cache.
        """
        try:
            with closing(self._connect()) as connection:
                yield AnswerSession(connection)
        except (sqlite3.Error, OSError) as error:
            raise RecordError(f"the answer cache {self.path} cannot be used: {error}") from error

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers in the cache, by key; raises the errors of `session`."""
        with self.session() as session:
            return session.get(keys)

    def put(self, answers: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
        """Store JSON values by key; raises the errors of `session`."""
        with self.session() as session:
            session.put(answers)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            if application_id != _APPLICATION_ID:
                self._create(connection, application_id)
            # in this mode a killed process loses nothing; only a power failure may
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection, application_id: int) -> None:
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # another process may have created it since the first look
        id_now = connection.execute("PRAGMA application_id").fetchone()[0]
        if (application_id or n_tables) and id_now != _APPLICATION_ID:
            raise RecordError(
                f"{self.path} is a SQLite file of another program: choose another path for answers"
            )
        with suppress(sqlite3.OperationalError):  # in use by another process: slower, still right
            connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


class AnswerSession:
    """The answer cache while its file is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers in the cache, by key."""
        answers: dict[str, Any] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = tuple(keys[start : start + _MAX_VARIABLES])
            places = ",".join("?" * len(part))
            query = f"SELECT key, answer FROM answers WHERE key IN ({places})"
            rows = self._connection.execute(query, part).fetchall()
            answers.update((key, json.loads(answer)) for key, answer in rows)
        return answers

    def put(self, answers: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
        """Store JSON values by key."""
        rows = [(key, json.dumps(answer)) for key, answer in dict(answers).items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
