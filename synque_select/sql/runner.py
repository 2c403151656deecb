"""Run untrusted SQL queries read-only, each in a separate process with limits.

Queries from candidates and from models may be wrong or hostile. Each one runs in a process forked
from a small interpreter, on a database that is opened read-only and immutable, under an authorizer
that permits only reading, and with limits on time, memory, open files, and the size of values and
results. Whatever a query does wrong is returned as the error of that query.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from synque_select.errors import ConfigError, DataError
from synque_select.sql.outline import is_ordered
from synque_select.sql.process import LineProcess, resource_limits
from synque_select.sql.results import QueryResult, same_result

if TYPE_CHECKING:
    from synque_select.sql.worker import Question, SqlValue, WorkerOptions

__all__ = [
    "QueryResult",
    "QueryRunner",
    "compact_schema",
    "is_ordered",
    "same_result",
]

_WORKER = Path(__file__).with_name("worker.py")
_MAX_SQL_CHARS = 100_000
# the worker stops a query at its limit; one that does not stop itself is killed this much later
_GRACE_S = 30.0
# JSON writes a character as up to 12 bytes; brackets and commas are bounded by the memory limit
_MAX_GROWTH, _FRAME_BYTES = 12, 2**26


class QueryRunner:
    """Runs queries on one SQLite database, each in a separate process; a context manager.

    The file is opened as immutable, so nothing else may write to it in the meantime. Queries can
    only read: writing, ATTACH, PRAGMA, transactions and loadable extensions are refused.

    Args:
        database: Path of the SQLite file.
        time_limit_s: Wall-clock limit per query, in seconds.
        memory_limit_mb: Memory limit per query, in MiB.
        max_rows: Maximum number of rows of a result; a query that returns more fails.
        max_result_bytes: Maximum size of all values of a result; a query that returns more fails.

    Raises:
        ConfigError: A limit is not a finite number above 0.
        DataError: The file cannot be read, is not a SQLite database, or changes are left beside it.

    Example:
        >>> import sqlite3, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "small.sqlite"
        >>> connection = sqlite3.connect(path)
        >>> _ = connection.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)")
        >>> connection.close()
        >>> with QueryRunner(path) as runner:
        ...     runner.run("SELECT SUM(x) FROM t").rows, runner.run("DELETE FROM t").error
        (((3,),), 'not authorized')
        >>> folder.cleanup()
    """

    def __init__(
        self,
        database: str | Path,
        *,
        time_limit_s: float = 5.0,
        memory_limit_mb: int = 256,
        max_rows: int = 100_000,
        max_result_bytes: int = 16_000_000,
    ) -> None:
        limits = {
            "time_limit_s": time_limit_s,
            "memory_limit_mb": memory_limit_mb,
            "max_rows": max_rows,
            "max_result_bytes": max_result_bytes,
        }
        for name, value in limits.items():
            if not value > 0 or not math.isfinite(value):
                raise ConfigError(f"{name}={value!r}: allowed is a finite number above 0")
        self.database = _checked_path(Path(database))
        self.max_rows = max_rows
        self._options: WorkerOptions = {
            "time_limit_s": time_limit_s,
            "memory_limit_mb": memory_limit_mb,
            "max_rows": max_rows,
            "max_result_bytes": max_result_bytes,
            "uri": f"{self.database.as_uri()}?mode=ro&immutable=1",
            # the interpreter's own mappings come on top of the memory that a query may use
            "limits": resource_limits(memory_mb=memory_limit_mb + 128, cpu_s=int(time_limit_s) + 2),
        }
        self._process = LineProcess(
            _WORKER, self._options, max_answer_bytes=_MAX_GROWTH * max_result_bytes + _FRAME_BYTES
        )

    def run(self, query: str, *, backwards: bool = False, order: int | None = None) -> QueryResult:
        """Run one query and return its rows, or the reason why it failed.

        Args:
            query: One SQL statement.
            backwards: Whether SQLite reads tables backwards where the order is left to it. A
                query that then returns other rows leaves open which ones are right.
            order: 0, 1 or 2: the rows of all tables as they are, reversed or mixed, also where
                SQLite sorts them first; a query that names a rowid then fails. None for the
                database as it is.

        Returns:
            The result; a query that fails or exceeds a limit never raises.

        Raises:
            DataError: Another program has begun to write to the database.
        """
        _refuse_changes(self.database)
        if isinstance(query, str) and len(query) > _MAX_SQL_CHARS:
            return QueryResult(error=f"the query is longer than {_MAX_SQL_CHARS} characters")
        question: Question = {"query": query, "backwards": backwards, "order": order}
        line = self._process.ask(question, wait_s=self._options["time_limit_s"] + _GRACE_S)
        if line is None:
            return QueryResult(error="the process that runs the queries ended unexpectedly")
        answer = json.loads(line)
        if "error" in answer:
            return QueryResult(error=" ".join(str(answer["error"]).split()))
        rows = tuple(tuple(map(_value, row)) for row in answer["rows"])
        return QueryResult(rows, n_columns=answer["n_columns"])

    def close(self) -> None:
        """Stop the process; the next query starts a new one."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _value(written: SqlValue | Mapping[str, str]) -> SqlValue:
    return bytes.fromhex(written["blob"]) if isinstance(written, Mapping) else written


def compact_schema(database: str | Path) -> str:
    """Return the tables and columns of a database for a prompt, one line per table.

    Args:
        database: Path of the SQLite file.

    Returns:
        Lines such as "apps(name, rating)", separated by newlines.

    Raises:
        DataError: The file is not a SQLite database, is damaged, or changes are left beside it.

    Example:
        >>> import tempfile
        >>> from synque_select.sql.text import write_empty_database
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_empty_database(Path(folder, "a.sqlite"), {"apps": ["name", "rating"]})
        ...     compact_schema(path)
        'apps(name, rating)'
    """
    path = _checked_path(Path(database))
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        listing = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = [name for (name,) in connection.execute(listing)]
        columns = "SELECT name FROM pragma_table_info(?)"
        schema = {t: [name for (name,) in connection.execute(columns, [t])] for t in tables}
    except sqlite3.Error as error:
        raise DataError(f"{path}: the database is damaged: {error}") from error
    finally:
        connection.close()
    return "\n".join(f"{table}({', '.join(columns)})" for table, columns in schema.items())


def _checked_path(path: Path) -> Path:
    # before opening it: opening a named pipe blocks until somebody writes to it
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file: give the path of a SQLite database")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise DataError(f"{path}: the database cannot be read: {error.strerror}") from error
    if start != b"SQLite format 3\0":
        raise DataError(
            f"{path} is not a SQLite database: it does not begin with 'SQLite format 3'"
        )
    # SQLite keeps the logs beside the file itself, not beside a link to it
    path = path.resolve()
    _refuse_changes(path)
    return path


def _refuse_changes(path: Path) -> None:
    for end, what in (("-wal", "write-ahead log"), ("-journal", "rollback journal")):
        rest, left = path.with_name(path.name + end), 0
        # an immutable file is read without it: rows that were committed would be missing
        with suppress(OSError):  # the other program has just removed it
            left = rest.stat().st_size if rest.is_file() else 0
        if left:
            raise DataError(
                f"{path}: changes are left in its {what} {rest.name}; close the program that "
                f"writes the database, or open and close it once with sqlite3, and try again"
            )
