"""The run store: run records in one SQLite file that several runs and processes share."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, cast

from synque_select.errors import ConfigError, RecordError
from synque_select.records.run_folder import to_jsonable
from synque_select.types import Mixture, RunKind, RunRecord

__all__ = ["RunStore", "default_store_path"]

_APPLICATION_ID = 0x53514553  # "SQES", so that no other SQLite file is taken for a run store
_SCHEMA_VERSION = 1
# names of a record's fields in stores that version 0.1 wrote
_NAMES_OF_0_1 = {"primary": "monitor", "primary_mode": "mode"}
_BUSY_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    created TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX runs_by_key ON runs (key_hash, kind);
"""


def default_store_path() -> Path:
    """Return `$SYNQUE_STORE`, or `runs/records.sqlite` in the working directory."""
    return Path(os.environ.get("SYNQUE_STORE") or Path("runs") / "records.sqlite")


class RunStore:
    """Run records that outlive a run.

    The object holds only a path: it can be copied to other processes, and every call opens and
    closes its own connection. Writers wait for each other; a reader sees whole records.

    Args:
        path: The SQLite file, made by the first `write`; None for `default_store_path()`.

    Example:
        >>> import tempfile
        >>> store = RunStore(Path(tempfile.mkdtemp()) / "records.sqlite")
        >>> store.read()
        []
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_store_path() if path is None else Path(path)

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def write(self, record: RunRecord) -> None:
        """Keep a record; one with the same `run_id` is replaced.

        Raises:
            RecordError: The store cannot be written, or the record holds what JSON does not.
        """
        where = f"run record {record.run_id!r}"
        state = vars(record) | {"mixture": record.mixture.to_dict()}
        body = to_jsonable(state, undefined=math.nan, where=where)
        try:
            key_hash = record.key_hash
        except TypeError as error:
            raise RecordError(f"{where}.key: {error}") from error
        row = (record.run_id, record.kind, key_hash, record.created, json.dumps(body))
        with self._connected() as connection, _transaction(connection, "IMMEDIATE"):
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)

    def read(self, kind: RunKind | None = None, key_hash: str | None = None) -> list[RunRecord]:
        """Return records, the oldest first; none where the file does not exist.

        Args:
            kind: Only this kind; None for all.
            key_hash: Only this comparability key; None for all.

        Raises:
            RecordError: The file is no run store, is newer than this library, or is damaged.
        """
        if not self.path.exists():
            return []
        wanted = {"kind": kind, "key_hash": key_hash}
        used = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in used) or "1"
        query = f"SELECT run_id, record FROM runs WHERE {where} ORDER BY created, run_id"
        with self._connected() as connection:
            rows = connection.execute(query, tuple(used.values())).fetchall()
        return [self._record(run_id, text) for run_id, text in rows]

    def _record(self, run_id: str, text: str) -> RunRecord:
        try:
            state: dict[str, Any] = json.loads(text)
            fields = {_NAMES_OF_0_1.get(name, name): value for name, value in state.items()}
            return RunRecord(**{**fields, "mixture": Mixture.from_dict(state["mixture"])})
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RecordError(f"{self.path}: the record {run_id!r} is damaged: {error}") from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            with closing(opened) as connection:
                self._prepare(connection)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise RecordError(f"the run store {self.path}: {error}") from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection, "DEFERRED"):
            if self._is_ready(connection):
                return
        # a write lock: of several processes that find no schema, one makes it
        with _transaction(connection, "IMMEDIATE"):
            if self._is_ready(connection):
                return
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        # readers need not wait for a writer then; SQLite refuses the change without waiting where
        # another process has the file open, and without it all is as right, only slower
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    def _is_ready(self, connection: sqlite3.Connection) -> bool:
        """Whether the schema stands; called in a transaction, so that it sees one state."""
        n_tables = _value(connection, "SELECT count(*) FROM sqlite_master")
        application = _value(connection, "PRAGMA application_id")
        version = _value(connection, "PRAGMA user_version")
        if application == _APPLICATION_ID and version == _SCHEMA_VERSION:
            return True
        if application == _APPLICATION_ID and version > _SCHEMA_VERSION:
            raise RecordError(
                f"the run store {self.path} has schema version {version}, made by a newer "
                f"synque-select; this one reads up to {_SCHEMA_VERSION}"
            )
        if application or n_tables:
            raise RecordError(f"{self.path} is a SQLite file, but no run store: give another path")
        return False


@contextmanager
def _transaction(
    connection: sqlite3.Connection, lock: Literal["DEFERRED", "IMMEDIATE"]
) -> Iterator[None]:
    connection.execute(f"BEGIN {lock}")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _value(connection: sqlite3.Connection, query: str) -> int:
    return cast(int, connection.execute(query).fetchone()[0])
