"""SQLite files that may be damaged: what is wrong with one, and which rows can still be read."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.utils.checksums import set_aside
from synque_select.utils.text_files import check_regular, kind_of_path

__all__ = [
    "check_database_path",
    "damage_of",
    "has_application_id",
    "is_damage",
    "readable_rows",
    "set_aside_database",
]

# codes of errors that a sound file of the expected schema does not cause
_DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# what our files begin with, up to the number that each change increases; 1 is without a log
_HEADER = b"SQLite format 3\0\x10\x00%c%c\x00\x40\x20\x20"
_BESIDE = ("-wal", "-journal", "-shm")


def check_database_path(path: Path) -> None:
    """Refuse what is not a file where SQLite would open one: at a pipe, it waits for ever.

    Args:
        path: A database, which may be missing or a directory.

    Raises:
        RecordError: There is a pipe, a socket or a device, or one of these or a directory in place
            of a file that SQLite has beside the database; the message names it.
    """
    check_regular(path, error=RecordError)
    # they are beside the file itself, not beside a link to it
    path = path.resolve()
    for end in _BESIDE:
        beside = path.with_name(path.name + end)
        kind = kind_of_path(beside)
        if kind is not None:
            raise RecordError(
                f"{beside}: {kind}, where SQLite keeps a file of {path.name}; remove or rename it"
            )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error of a query that suits the schema means that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def damage_of(connection: sqlite3.Connection, *, quick: bool = False) -> str | None:
    """Return what is wrong with the structure of a database; None if nothing is.

    Args:
        connection: The database.
        quick: Whether to leave out the comparison of tables with their indexes.

    Raises:
        sqlite3.Error: The file cannot be read as a database.
    """
    check = "quick_check" if quick else "integrity_check"
    (answer,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    return None if text == "ok" else text.strip().splitlines()[-1]


def has_application_id(path: Path, application_id: int) -> bool:
    """Whether the header of a file has an application id at its place."""
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(72)[68:] == application_id.to_bytes(4, "big")
    return False


def readable_rows(path: Path, table: str, columns: str) -> list[tuple[object, ...]]:
    """Return the rows of a damaged database that can be read, from a copy of it.

    Texts are bytes, as the damaged ones among them may not be UTF-8.

    Args:
        path: The file, which is left as it is.
        table: Name of the table, which has row ids.
        columns: Its columns, separated by commas.
    """
    with tempfile.TemporaryDirectory() as folder, suppress(OSError):
        copy = Path(folder) / "copy.sqlite"
        shutil.copyfile(path, copy)
        log = path.with_name(f"{path.name}-wal")
        has_log = log.exists()
        if has_log:
            shutil.copyfile(log, copy.with_name(f"{copy.name}-wal"))
        with copy.open("rb+") as stream:
            stream.write(_HEADER % ((2, 2) if has_log else (1, 1)))
            stream.seek(28)
            n_bytes, size = 4096 * int.from_bytes(stream.read(4), "big"), path.stat().st_size
            if size < n_bytes <= 1000 * size:  # SQLite refuses a file that lacks its last pages
                stream.truncate(n_bytes)
        rows: dict[object, tuple[object, ...]] = {}
        for direction in ("ASC", "DESC"):  # up to the damaged page, and down to it
            with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = bytes
                query = (
                    f"SELECT rowid, {columns} FROM {table} NOT INDEXED ORDER BY rowid {direction}"
                )
                for number, *values in connection.execute(query):
                    rows[number] = tuple(values)
        return list(rows.values())
    return []


def set_aside_database(path: Path) -> Path:
    """Rename a damaged database and the files that SQLite has beside it; return its new path.

    Raises:
        OSError: It cannot be renamed.
    """
    target = set_aside(path)
    for end in _BESIDE:
        with suppress(OSError):
            path.with_name(path.name + end).rename(target.with_name(target.name + end))
    return target
