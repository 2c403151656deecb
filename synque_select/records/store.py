"""The run store: run records in one SQLite file that several runs and processes share."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from synque_select.errors import RecordError
from synque_select.records.run_folder import to_jsonable
from synque_select.types import Mixture, RunKind, RunRecord
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json

__all__ = ["RunStore", "default_store_path"]

_APPLICATION_ID = 0x53514553  # "SQES", so that another SQLite file is not taken for a run store
_SCHEMA_VERSION = 1
_KINDS: tuple[RunKind, ...] = ("probe", "mixture", "trial")
_MODES: tuple[Literal["max", "min"], ...] = ("max", "min")
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
    closes its own connection. Writers wait for each other; readers see complete records.

    Args:
        path: The SQLite file, created by the first `write`; None for `default_store_path()`.

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
        """Write a record; one with the same `run_id` is replaced.

        Raises:
            RecordError: The store cannot be written, or a value has no form in JSON.
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
        """Return the records, oldest first; none if the file does not exist.

        Args:
            kind: Return only records of this kind; None for all.
            key_hash: Return only records of this comparability key; None for all.

        Raises:
            RecordError: The file is not a run store, is newer than this library, or is damaged.
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
            return _record_of(
                JsonFields(parse_json(text, f"the record {run_id!r}", error=RecordError))
            )
        except (ValueError, KeyError, TypeError, RecordError) as error:
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
        # the write lock decides which of several processes creates the schema
        with _transaction(connection, "IMMEDIATE"):
            if self._is_ready(connection):
                return
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        # with a write-ahead log, readers need not wait for writers. SQLite refuses the change at
        # once if another process has the file open; without it everything works, only slower
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    def _is_ready(self, connection: sqlite3.Connection) -> bool:
        """Return whether the schema exists; called in a transaction, so that it sees one state."""
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
            raise RecordError(
                f"{self.path} is a SQLite file but not a run store: give another path"
            )
        return False


def _record_of(fields: JsonFields) -> RunRecord:
    is_old = "monitor" not in fields  # version 0.1 had other names
    return RunRecord(
        run_id=fields.text("run_id"),
        kind=fields.choice("kind", _KINDS),
        key=fields.object("key").content,
        unit=fields.text("unit"),
        mixture=Mixture.from_dict(fields.object("mixture").content),
        scores=fields.numbers("scores"),
        orientation=fields.flags("orientation"),
        metrics=fields.numbers("metrics"),
        monitor=fields.text("primary" if is_old else "monitor"),
        mode=fields.choice("primary_mode" if is_old else "mode", _MODES),
        seed=fields.integer("seed"),
        created=fields.text("created"),
        details=fields.object("details").content if "details" in fields else {},
    )


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
    return int(connection.execute(query).fetchone()[0])
