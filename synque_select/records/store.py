"""The run store: run records in one SQLite file that several runs and processes share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from synque_select.errors import RecordError
from synque_select.records.run_record_json import record_from_fields, record_to_json
from synque_select.records.unstored_records import (
    UnstoredRecord,
    keep_record,
    unstored_records,
)
from synque_select.types import RunKind, RunRecord
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json

__all__ = ["RunStore", "default_store_path"]

_APPLICATION_ID = 0x53514553  # "SQES", so that another SQLite file is not taken for a run store
_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 60.0
_BUSY_TIMEOUT_OF_UNSTORED_S = 1.0  # they can also be stored another time
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

    The object holds only paths: it can be copied to other processes, and every call opens and
    closes its own connection. Writers wait for each other; readers see complete records.

    Args:
        path: The SQLite file, created by the first `write`; None for `default_store_path()`.
        run_dir: Directory of the run, where `write_or_keep` keeps a record that the store cannot
            take; None for the directory of the store.

    Example:
        >>> import tempfile
        >>> store = RunStore(Path(tempfile.mkdtemp()) / "records.sqlite")
        >>> store.read()
        []
    """

    def __init__(self, path: str | Path | None = None, *, run_dir: Path | None = None) -> None:
        self.path = default_store_path() if path is None else Path(path)
        self.run_dir = run_dir

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def write(self, record: RunRecord) -> None:
        """Write a record; one with the same `run_id` is replaced.

        Raises:
            RecordError: The store cannot be written, or a value has no form in JSON.
        """
        self._write(record, _BUSY_TIMEOUT_S)

    def write_or_keep(self, record: RunRecord) -> str | None:
        """Write a record; if the store cannot take it, keep it in a file until the store can.

        The file is in `unstored_records/` of the run's directory, or, if that cannot be written,
        of the store's. The next `read` takes it into the store.

        Returns:
            None if the record is in the store, else a message: why it is not, where the record is,
            and what to do.
        """
        try:
            self.write(record)
            return None
        except RecordError as error:
            reason = str(error)
        problems = []
        for folder in dict.fromkeys([self.run_dir or self.path.parent, self.path.parent]):
            try:
                file = keep_record(record, folder, self.path)
            except RecordError as error:
                problems.append(str(error))
                continue
            return (
                f"a run record could not be stored: {reason}. It is kept in {file}, and the next "
                "run or command that reads this store takes it in: free the disk, or end what "
                "locks the store"
            )
        return (
            f"a run record could not be stored: {reason}. Nor could it be kept in a file: "
            f"{'; '.join(problems)}. This run is missing from correlations"
        )

    def read(self, kind: RunKind | None = None, key_hash: str | None = None) -> list[RunRecord]:
        """Return the records, oldest first; none if the file does not exist.

        Records that `write_or_keep` has kept in files are among them, and are taken into the store
        if it can be written now. Files are looked for in `run_dir` and the other directories beside
        it, in the directory of the store, and in the directories of runs there.

        Args:
            kind: Return only records of this kind; None for all.
            key_hash: Return only records of this comparability key; None for all.

        Raises:
            RecordError: The file is not a run store, is newer than this library, or is damaged; or
                a file of a kept record is.
        """
        waiting = self._take_in(list(unstored_records(self._folders(), self.path)))
        rows: list[tuple[str, str]] = []
        if self.path.exists():
            wanted = {"kind": kind, "key_hash": key_hash}
            used = {column: value for column, value in wanted.items() if value is not None}
            where = " AND ".join(f"{column} = ?" for column in used) or "1"
            query = f"SELECT run_id, record FROM runs WHERE {where} ORDER BY created, run_id"
            with self._connected() as connection:
                rows = connection.execute(query, tuple(used.values())).fetchall()
        records = {run_id: self._record(run_id, text) for run_id, text in rows}
        for record in waiting:
            if kind in (None, record.kind) and key_hash in (None, record.key_hash):
                records[record.run_id] = record
        if not waiting:
            return list(records.values())
        return sorted(records.values(), key=lambda record: (record.created, record.run_id))

    def _folders(self) -> Iterator[Path]:
        """Return the directories that may have records that are not in the store yet."""
        yield self.path.parent
        roots = {Path("runs").resolve(), self.path.parent.resolve()}
        if self.run_dir is not None:
            yield from self.run_dir.parent.glob("*")
            roots.add(self.run_dir.parent.parent.resolve())
        for root in roots:
            if root.name == "runs":  # runs/<recipe>/<run>; other directories may be large
                yield from root.glob("*/*")

    def _take_in(self, unstored: Sequence[UnstoredRecord]) -> list[RunRecord]:
        """Write kept records into the store, and return those that it cannot take yet."""
        waiting = []
        for one in unstored:
            try:
                known = self._created(one.record.run_id)
                # a run that was resumed has written a newer one
                if known is None or known < one.record.created:
                    self._write(one.record, _BUSY_TIMEOUT_OF_UNSTORED_S)
            except RecordError:
                waiting.append(one.record)
            else:
                one.remove()
        return waiting

    def _created(self, run_id: str) -> str | None:
        with self._connected(_BUSY_TIMEOUT_OF_UNSTORED_S) as connection:
            query = "SELECT created FROM runs WHERE run_id = ?"
            row = connection.execute(query, (run_id,)).fetchone()
        return None if row is None else str(row[0])

    def _write(self, record: RunRecord, timeout_s: float) -> None:
        body = record_to_json(record)
        try:
            key_hash = record.key_hash
        except TypeError as error:
            raise RecordError(f"run record {record.run_id!r}.key: {error}") from error
        row = (record.run_id, record.kind, key_hash, record.created, body)
        with self._connected(timeout_s) as connection, _transaction(connection, "IMMEDIATE"):
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)

    def _record(self, run_id: str, text: str) -> RunRecord:
        try:
            return record_from_fields(
                JsonFields(parse_json(text, f"the record {run_id!r}", error=RecordError))
            )
        except (ValueError, KeyError, TypeError, RecordError) as error:
            raise RecordError(f"{self.path}: the record {run_id!r} is damaged: {error}") from error

    @contextmanager
    def _connected(self, timeout_s: float = _BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None)
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
