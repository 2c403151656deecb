"""Run untrusted SQL queries read-only, each in a separate process with limits.

Queries from candidates and from models may be wrong or hostile. Each one runs in a process forked
from a small interpreter, on a database that is opened read-only and immutable, under an authorizer
that permits only reading, and with limits on time, memory, open files, and the size of values and
results. Whatever a query does wrong is returned as the error of that query.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TypeAlias, cast

from synque_select.errors import ConfigError, DataError

if TYPE_CHECKING:
    from synque_select.sql.worker import SqlValue, WorkerOptions

    _Row: TypeAlias = tuple[SqlValue, ...]
    _Numbers: TypeAlias = tuple[int | float, ...]
    _Key: TypeAlias = tuple[tuple[bool, str | None], ...]

__all__ = [
    "QueryResult",
    "QueryRunner",
    "compact_schema",
    "is_ordered",
    "same_result",
]

_WORKER = Path(__file__).with_name("worker.py")
# the order of summation, which SQLite leaves open, changes the last digits of a float sum, and
# leaves a trace of the terms where they cancel
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
# floats up to here hold every whole number exactly
_EXACT = 2**53
_MOST_TRIED = 1000


@dataclass(frozen=True)
class QueryResult:
    """The rows that a query returned, or the error with which it failed.

    Args:
        rows: The rows of the result; empty if the query failed. A blob is returned as its SQL
            literal, such as "x'00ff'".
        error: Why the query failed, in one line; None if it succeeded.

    Example:
        >>> QueryResult(((1, "a"),)).ran, QueryResult(error="no such table: t").ran
        (True, False)
    """

    rows: tuple[tuple[SqlValue, ...], ...] = ()
    error: str | None = None

    @property
    def ran(self) -> bool:
        """Whether the query finished within the limits."""
        return self.error is None


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
        DataError: The file cannot be read or is not a SQLite database.

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

    _process: subprocess.Popen[str] | None = None

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
        self._options: WorkerOptions = {
            "time_limit_s": time_limit_s,
            "memory_limit_mb": memory_limit_mb,
            "max_rows": max_rows,
            "max_result_bytes": max_result_bytes,
            "uri": f"{self.database.as_uri()}?mode=ro&immutable=1",
        }

    def run(self, query: str) -> QueryResult:
        """Run one query and return its rows, or the reason why it failed.

        Args:
            query: One SQL statement.

        Returns:
            The result; a query that fails or exceeds a limit never raises.
        """
        process = self._running_process()
        # Popen types its pipes as optional; _running_process always opens them
        stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            stdin.write(json.dumps(query) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            return QueryResult(error="the process that runs the queries ended unexpectedly")
        answer = json.loads(line)
        if "error" in answer:
            return QueryResult(error=" ".join(str(answer["error"]).split()))
        return QueryResult(rows=tuple(tuple(row) for row in answer["rows"]))

    def close(self) -> None:
        """Stop the process; the next query starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is None:
            # a process that runs untrusted SQL gets neither environment variables nor site packages
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_WORKER), json.dumps(self._options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                text=True,
                encoding="utf-8",
            )
        return self._process


def compact_schema(database: str | Path) -> str:
    """Return the tables and columns of a database for a prompt, one line per table.

    Args:
        database: Path of the SQLite file.

    Returns:
        Lines such as "apps(name, rating)", separated by newlines.

    Raises:
        DataError: The file is not a SQLite database, or is damaged.

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
        schema = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")]
            for table in tables
        }
    except sqlite3.Error as error:
        raise DataError(f"{path}: the database is damaged: {error}") from error
    finally:
        connection.close()
    return "\n".join(f"{table}({', '.join(columns)})" for table, columns in schema.items())


def same_result(expected: QueryResult, actual: QueryResult, *, ordered: bool) -> bool:
    """Whether two results have the same rows, in the same order or in any order.

    The names of the columns are ignored, but their order matters. Rows are compared as multisets
    unless `ordered` is True. Whole numbers are compared exactly, and 1 equals 1.0; other floats may
    differ by 1e-9 of the larger one. A failed query equals nothing, not even another failed query.

    Args:
        expected: The result of the reference query.
        actual: The result of the query under test.
        ordered: Whether the order of the rows matters; usually `is_ordered(reference_query)`.

    Example:
        >>> a, b = QueryResult(((1,), (2,))), QueryResult(((2.0,), (1,)))
        >>> same_result(a, b, ordered=False), same_result(a, b, ordered=True)
        (True, False)
    """
    if not (expected.ran and actual.ran) or len(expected.rows) != len(actual.rows):
        return False
    left, right = expected.rows, actual.rows
    if ordered:
        return all(map(_same_row, left, right))
    return _same_in_any_order(left, right)


def is_ordered(query: str) -> bool:
    """Whether a query sorts its result, that is, has ORDER BY outside all parentheses.

    Args:
        query: One SQL statement; it is scanned, not parsed, so that invalid SQL is accepted.

    Example:
        >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)")
        False
        >>> is_ordered("select a from t order  by a")
        True
    """
    outer, depth = [], 0
    # a doubled quote inside a literal is scanned as two adjacent literals, which is harmless here
    tokens = r"""('[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)|[()])"""
    for part in re.split(tokens, query, flags=re.DOTALL):
        if part in ("(", ")"):
            depth += 1 if part == "(" else -1
            outer.append(" ")
        elif part.startswith(("--", "/*")):
            outer.append(" ")
        elif depth == 0 and not part.startswith(("'", '"', "`", "[")):
            outer.append(part)
    return re.search(r"\border\s+by\b", "".join(outer), re.IGNORECASE) is not None


def _same_in_any_order(left: Sequence[_Row], right: Sequence[_Row]) -> bool:
    # numbers that are equal up to rounding have no common key, all else has
    parts: tuple[defaultdict[_Key, list[_Numbers]], ...] = defaultdict(list), defaultdict(list)
    for rows, part in zip((left, right), parts, strict=True):
        for row in rows:
            part[tuple(map(_key, row))].append(
                tuple(value for value in row if isinstance(value, int | float))
            )
    return parts[0].keys() == parts[1].keys() and all(
        _same_numbers(rows, parts[1][key]) for key, rows in parts[0].items()
    )


def _key(value: SqlValue) -> tuple[bool, str | None]:
    """Return what tells NULL, texts and numbers apart, and one text from another."""
    return value is None, value if isinstance(value, str) else None


def _same_numbers(left: Sequence[_Numbers], right: Sequence[_Numbers]) -> bool:
    if len(left) != len(right):
        return False
    if all(map(_same_row, sorted(left), sorted(right))):
        return True
    # rounding may have changed the order of two rows
    rest = list((Counter(right) - Counter(left)).elements())
    missing = list((Counter(left) - Counter(right)).elements())
    if len(rest) > _MOST_TRIED:
        return False
    for row in missing:
        at = next((i for i, other in enumerate(rest) if _same_row(row, other)), None)
        if at is None:
            return False
        del rest[at]
    return True


def _same_row(left: _Row, right: _Row) -> bool:
    return len(left) == len(right) and all(map(_same_value, left, right))


def _same_value(left: SqlValue, right: SqlValue) -> bool:
    if left == right or not isinstance(left, int | float) or not isinstance(right, int | float):
        return left == right
    if all(isinstance(v, int) or (v.is_integer() and abs(v) < _EXACT) for v in (left, right)):
        return False
    return math.isclose(left, right, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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
    for end, what in (("-wal", "write-ahead log"), ("-journal", "rollback journal")):
        rest = path.with_name(path.name + end)
        # an immutable file is read without it: rows that were committed would be missing
        if rest.exists() and rest.stat().st_size:
            raise DataError(
                f"{path}: changes are left in its {what} {rest.name}; close the program that "
                f"writes the database, or open and close it once with sqlite3, and try again"
            )
    return path.resolve()
