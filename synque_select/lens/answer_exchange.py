"""Answers of several machines, exchanged as files of a store: their databases stay local.

New answers are written to a file of the store every minute and at the end of a run. Before its
first question, a process reads the files that its database does not have yet.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from contextlib import suppress
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.utils.cache_dir import note_not_written
from synque_select.utils.checksums import (
    DamagedFileError,
    checked_text,
    checksummed_file,
    read_checked,
)
from synque_select.utils.json_files import parse_json
from synque_select.utils.remote_cache import RemoteCache, remote_of

__all__ = ["AnswerExchange", "exchange_of"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS exchange (name TEXT PRIMARY KEY, last INTEGER)"
_SUFFIX = ".jsonl"
_EVERY_S = 60.0
_TRIES = 3


class AnswerExchange:
    """The exchange of the answers of one database.

    Args:
        remote: The store of the cache that the database is in.
    """

    def __init__(self, remote: RemoteCache) -> None:
        self.remote = remote
        self._folder = remote.local / "answers"
        self._sent_at = time.monotonic()
        self._pid: int | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """Take in the answers of others, once per process.

        Raises:
            sqlite3.Error: The database cannot be read or written.
        """
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        with connection:
            connection.execute(_SCHEMA)
        self.send(connection)
        known = {str(_text(name)) for (name,) in connection.execute("SELECT name FROM exchange")}
        for name in self.remote.names(self._folder):
            if name.endswith(_SUFFIX) and name not in known:
                self._receive(connection, name)

    def send_if_due(self, connection: sqlite3.Connection) -> None:
        """Send new answers if the last ones were sent a minute ago."""
        if time.monotonic() - self._sent_at >= _EVERY_S:
            self.send(connection)

    def send(self, connection: sqlite3.Connection) -> None:
        """Write the answers that are in no file of the store to a new one.

        Raises:
            sqlite3.Error: The database cannot be read or written.
        """
        self._sent_at = time.monotonic()
        rows = connection.execute(
            "SELECT rowid, key, answer FROM answers WHERE rowid > ? ORDER BY rowid",
            (_last(connection),),
        ).fetchall()
        if not rows:
            return
        path = self._folder / f"{uuid.uuid4().hex}{_SUFFIX}"
        try:
            with checksummed_file(path) as stream:
                for _, key, answer in rows:
                    stream.write(json.dumps([_text(key), _text(answer)]).encode() + b"\n")
        except OSError as error:
            note_not_written(path.parent, error)
            return
        # after a kill before this, the same answers are sent once more, which does no harm
        with connection:
            _note(connection, path.name)
            _note(connection, "", max(_last(connection), rows[-1][0]))
        if not self.remote.is_unsent(path):
            with suppress(OSError):
                path.unlink()

    def _receive(self, connection: sqlite3.Connection, name: str) -> None:
        path = self._folder / name
        try:
            rows = _rows(read_checked(path))
        except (
            OSError,
            ValueError,
            RecordError,
        ):  # it was removed, or is damaged: then these are asked again
            return
        for _ in range(_TRIES):
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                (newest,) = connection.execute("SELECT max(rowid) FROM answers").fetchone()
                is_all_sent = (newest or 0) <= _last(connection)
                if is_all_sent:  # or those of others would be sent as answers of this machine
                    connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
                    (newest,) = connection.execute("SELECT max(rowid) FROM answers").fetchone()
                    _note(connection, "", newest or 0)
                    _note(connection, name)
            if is_all_sent:
                break
            self.send(connection)
        with suppress(OSError):
            path.unlink()


def _last(connection: sqlite3.Connection) -> int:
    """Return the number of the last row that is in a file of the store."""
    row = connection.execute("SELECT last FROM exchange WHERE name = ''").fetchone()
    return 0 if row is None else int(row[0])


def _note(connection: sqlite3.Connection, name: str, last: int = 0) -> None:
    connection.execute("INSERT OR REPLACE INTO exchange VALUES (?, ?)", (name, last))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _rows(content: bytes) -> list[tuple[str, str]]:
    """Return the answers in a file, without those whose checksum does not match.

    Raises:
        ValueError, RecordError: It is not a file of answers.
    """
    rows = []
    for line in content.decode().splitlines():
        row = parse_json(line, "a file of answers", error=RecordError)
        if not isinstance(row, list) or len(row) != 2 or not all(isinstance(x, str) for x in row):
            raise DamagedFileError("it is not a list of answers")
        key, stored = str(row[0]), str(row[1])
        with suppress(DamagedFileError):
            if checked_text(key, stored) != stored:
                rows.append((key, stored))
    return rows


_EXCHANGES: dict[Path, AnswerExchange] = {}


def exchange_of(path: Path) -> AnswerExchange | None:
    """Return the exchange of a database of answers; None for one that is only local.

    Args:
        path: The database.
    """
    remote = remote_of(path.parent)
    if remote is None or path.parent != remote.local:
        return None
    exchange = _EXCHANGES.get(path)
    if exchange is None or exchange.remote is not remote:
        exchange = _EXCHANGES[path] = AnswerExchange(remote)
    return exchange
