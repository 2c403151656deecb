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
    UNSTORED,
    UnstoredRecord,
    keep_record,
    unstored_records,
)
from synque_select.types import RunKind, RunRecord
from synque_select.utils.atomic import create_once
from synque_select.utils.checksums import DamagedFileError, checked_text, text_with_checksum
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.sqlite_files import (
    check_database_path,
    damage_of,
    has_application_id,
    is_damage,
    readable_rows,
    set_aside_database,
)
from synque_select.utils.wording import counted

__all__ = ["RunStore", "default_store_path"]

_APPLICATION_ID = 0x53514553  # "SQES", so that another SQLite file is not taken for a run store
_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 60.0
_BUSY_TIMEOUT_OF_UNSTORED_S = 1.0  # they can also be stored another time
_MAX_LEVELS = 4  # of directories below runs/ that are searched for kept records
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
        of the store's. The next `read` that looks there takes it into the store.

        Returns:
            None if the record is in the store, else a message: why it is not, where the record is,
            and what to do.
        """
        try:
            self.write(record)
            return None
        except (RecordError, ValueError) as error:  # also a run_id that is not Unicode
            reason = str(error)
        problems = []
        for folder in dict.fromkeys([self.run_dir or self.path.parent, self.path.parent]):
            try:
                file = keep_record(record, folder, self.path)
            except (RecordError, ValueError) as error:
                problems.append(str(error))
                continue
            known = {path.resolve() for path in RunStore(self.path)._folders()}
            is_searched = folder.resolve() in known
            where = "" if is_searched else f" of a run in {folder.parent.resolve()}"
            beside = (self.path.parent / UNSTORED).resolve()
            move = "" if is_searched else f", or move the file into {beside}"
            return (
                f"a run record could not be stored: {reason}. It is kept in {file}, and the next "
                f"read of this store{where} takes it in: free the disk, or end what "
                f"locks the store{move}"
            )
        return (
            f"a run record could not be stored: {reason}. Nor could it be kept in a file: "
            f"{'; '.join(problems)}. This run is missing from correlations"
        )

    def read(self, kind: RunKind | None = None, key_hash: str | None = None) -> list[RunRecord]:
        """Return the records, oldest first; none if the file does not exist.

        Records that `write_or_keep` has kept in files are among them, and are taken into the store
        if it can be written now. Files are looked for in `run_dir` and the other directories beside
        it, in the directory of the store, and in `runs` up to four levels deep. A file elsewhere
        can be moved into `unstored_records/` beside the store.

        Args:
            kind: Return only records of this kind; None for all.
            key_hash: Return only records of this comparability key; None for all.

        Raises:
            RecordError: The file is not a run store, is newer than this library, or is damaged; or
                a file of a kept record is.
        """
        waiting = self._take_in(list(unstored_records(self._folders(), self.path)))
        rows: list[RunRecord] = []
        if self.path.exists():
            rows = self._rows()
        return _sorted([*rows, *waiting], kind, key_hash)

    def read_or_explain(self, kind: RunKind | None = None) -> tuple[list[RunRecord], str | None]:
        """Return the records that can be read now, for work that is not worth ending for the rest.

        Args:
            kind: Return only records of this kind; None for all.

        Returns:
            The records as from `read`, and None; or those that are kept in files, and a message:
            why the others cannot be read, and what to do.
        """
        try:
            return self.read(kind), None
        except RecordError as error:
            reason = str(error)
        try:
            waiting = [one.record for one in unstored_records(self._folders(), self.path)]
        except RecordError:  # the reason is that one of them is damaged
            waiting = []
        return _sorted(waiting, kind, None), f"run records cannot be read: {reason}"

    def _rows(self) -> list[RunRecord]:
        """Read all records and check each: a damaged index or column must not hide one."""
        with self._connected() as connection, _transaction(connection, "DEFERRED"):
            connection.text_factory = bytes
            if problem := damage_of(connection):
                raise DamagedFileError(problem)
            query = "SELECT run_id, record FROM runs NOT INDEXED"
            return [self._record(*row) for row in connection.execute(query)]

    def _folders(self) -> Iterator[Path]:
        """Return the directories that may have records that are not in the store yet."""
        yield self.path.parent
        roots = {Path("runs").resolve(), self.path.parent.resolve()}
        if self.run_dir is not None:
            yield from self.run_dir.parent.glob("*")
            roots.add(self.run_dir.parent.parent.resolve())
        for root in roots:
            if root.name == "runs":  # runs/<recipe>/<run>; other directories may be large
                for level in range(1, _MAX_LEVELS + 1):
                    yield from root.glob("/".join("*" * level))

    def _take_in(self, unstored: Sequence[UnstoredRecord]) -> list[RunRecord]:
        """Write kept records into the store, and return those that it cannot take yet."""
        waiting = []
        for one in unstored:
            try:
                known = self._created(one.record.run_id)
                # a run that was resumed has written a newer one
                if known is None or known < one.record.created:
                    self._write(one.record, _BUSY_TIMEOUT_OF_UNSTORED_S)
            except (RecordError, ValueError):
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
        text = text_with_checksum(record.run_id, body)
        row = (record.run_id, record.kind, key_hash, record.created, text)
        with self._connected(timeout_s) as connection, _transaction(connection, "IMMEDIATE"):
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)

    def _record(self, run_id: object, stored: object) -> RunRecord:
        name = run_id.decode(errors="replace") if isinstance(run_id, bytes) else str(run_id)
        try:
            text = checked_text(name, stored)
            record = record_from_fields(
                JsonFields(parse_json(text, f"the record {name!r}", error=RecordError))
            )
        except (ValueError, KeyError, TypeError, RecordError) as error:
            raise DamagedFileError(f"the record {name!r} is damaged: {error}") from error
        if record.run_id != name:
            raise DamagedFileError(f"the record {name!r} is that of {record.run_id!r}")
        return record

    @contextmanager
    def _connected(self, timeout_s: float | None = None) -> Iterator[sqlite3.Connection]:
        timeout_s = _BUSY_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            check_database_path(self.path)
            create_once(self.path, _create_schema)
            if self.path.is_dir():
                raise RecordError(
                    f"the run store {self.path} is a directory: give another path, or move it away"
                )
            opened = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None)
            with closing(opened) as connection:
                with _transaction(connection, "DEFERRED"):
                    self._check_schema(connection)
                yield connection
        except DamagedFileError as error:
            raise self._salvage(error) from error
        except sqlite3.Error as error:
            if is_damage(error):
                raise self._salvage(error) from error
            raise RecordError(f"the run store {self.path}: {error}") from error
        except OSError as error:
            raise RecordError(f"the run store {self.path}: {error}") from error

    def _salvage(self, reason: Exception) -> RecordError:
        """Put the records that can be read into a new store, and return what to raise.

        Going on without a word would give correlations over fewer runs.
        """
        records = []
        for row in readable_rows(self.path, "runs", "run_id, record"):
            with suppress(DamagedFileError):
                records.append(self._record(*row))
        if not (records or has_application_id(self.path, _APPLICATION_ID)):
            return RecordError(
                f"{self.path}: {reason}. It is not a run store, or it is damaged beyond reading: "
                "give another path, restore a backup, or move the file away to begin a new store"
            )
        try:
            aside = set_aside_database(self.path)
            for record in records:
                self._write(record, _BUSY_TIMEOUT_S)
        except OSError as error:
            return RecordError(f"{self.path}: {reason}. It cannot be renamed either: {error}")
        return RecordError(
            f"{self.path}: {reason}. {counted(len(records), 'record')} of this run store could be "
            f"read and are in a new one at its path; the damaged file is kept as {aside}. Restore "
            "a backup, or run the command again to go on with these records"
        )

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        """Check that this is a run store; called in a transaction, so that it sees one state."""
        n_tables = _value(connection, "SELECT count(*) FROM sqlite_master")
        application = _value(connection, "PRAGMA application_id")
        version = _value(connection, "PRAGMA user_version")
        if application == _APPLICATION_ID and version == _SCHEMA_VERSION:
            return
        if application == _APPLICATION_ID and version > _SCHEMA_VERSION:
            raise RecordError(
                f"the run store {self.path} has schema version {version}, made by a newer "
                f"synque-select; this one reads up to {_SCHEMA_VERSION}"
            )
        columns = (
            "SELECT count(*) FROM pragma_table_info('runs') WHERE name IN ('run_id', 'record')"
        )
        if application == _APPLICATION_ID or _value(connection, columns) == 2:
            raise DamagedFileError("its version or application id is damaged")
        if not n_tables:
            raise DamagedFileError("the file is empty")
        raise RecordError(f"{self.path} is a SQLite file but not a run store: give another path")


def _sorted(
    records: Sequence[RunRecord], kind: RunKind | None, key_hash: str | None
) -> list[RunRecord]:
    """Return the newest record of each run, oldest run first."""
    chosen = (
        record
        for record in {record.run_id: record for record in records}.values()
        if kind in (None, record.kind) and key_hash in (None, record.key_hash)
    )
    return sorted(chosen, key=lambda record: (record.created, record.run_id))


def _create_schema(path: Path) -> None:
    # without a write-ahead log: losing its file beside the store would lose records unnoticed
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


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
