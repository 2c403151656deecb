"""SQL that nobody has read is run here: read-only, in a process of its own, within limits.

Queries of candidates and of models may be wrong or hostile. Each runs in a forked process of a
small interpreter, on a database that is opened read-only and immutable, under an authorizer that
allows nothing but reading, with limits on time, memory, files, values and results. What a query
does wrong comes back as an error of that query.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from synque_select.errors import ConfigError, DataError

__all__ = [
    "QueryResult",
    "QueryRunner",
    "compact_schema",
    "is_ordered",
    "same_result",
]

_WORKER = Path(__file__).with_name("worker.py")
_SIGNIFICANT_DIGITS = 9


@dataclass(frozen=True)
class QueryResult:
    """What a query gave.

    Args:
        rows: Its rows; empty where it failed.
        error: Why it failed, in one line; None where it ran.
    """

    rows: tuple[tuple[Any, ...], ...] = ()
    error: str | None = None

    @property
    def ran(self) -> bool:
        """Whether the query ran to its end within the limits."""
        return self.error is None


class QueryRunner:
    """Runs queries on one SQLite database, each in a process of its own; a context manager.

    The file is opened as immutable: nothing else may write to it meanwhile. Only reading is
    allowed; writing, ATTACH, PRAGMA, transactions and loadable extensions are refused.

    Args:
        database: A SQLite file.
        time_limit_s: Of one query, in seconds of wall time.
        memory_limit_mb: Of one query, in MiB.
        max_rows: A result with more rows is an error.
        max_result_bytes: So is a result whose values take more.

    Raises:
        ConfigError: A limit is not above zero.
        DataError: The file is no SQLite database.

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
                raise ConfigError(f"{name}={value!r}: allowed is a number above 0")
        self.database = _checked(Path(database))
        self._options = {**limits, "uri": f"{self.database.as_uri()}?mode=ro&immutable=1"}

    def run(self, query: str) -> QueryResult:
        """Run one query and return its rows, or why it failed."""
        process = self._started()
        # both are pipes: _started asks for them
        stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            stdin.write(json.dumps(query) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            return QueryResult(error="the process that runs queries ended")
        answer = json.loads(line)
        if "error" in answer:
            return QueryResult(error=" ".join(str(answer["error"]).split()))
        return QueryResult(rows=tuple(tuple(row) for row in answer["rows"]))

    def close(self) -> None:
        """End the process; the next query starts another one."""
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

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
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
    """Return a database's tables and columns, one table a line, for a prompt.

    Raises:
        DataError: The file is no SQLite database, or damaged.
    """
    path = _checked(Path(database))
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        listing = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = [name for (name,) in connection.execute(listing)]
        columns = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")]
            for table in tables
        }
    except sqlite3.Error as error:
        raise DataError(f"{path}: the database is damaged: {error}") from error
    finally:
        connection.close()
    return "\n".join(f"{table}({', '.join(found)})" for table, found in columns.items())


def same_result(expected: QueryResult, found: QueryResult, *, ordered: bool) -> bool:
    """Whether two results hold the same rows, as multisets or in the same order.

    Names of columns do not count, their order does. Numbers are compared to nine significant
    digits, and 1 equals 1.0. A query that failed equals nothing.

    Args:
        expected: Of the right query.
        found: Of the query that is judged.
        ordered: Whether the order of the rows counts: where the right query orders.

    Example:
        >>> a, b = QueryResult(((1,), (2,))), QueryResult(((2.0,), (1,)))
        >>> same_result(a, b, ordered=False), same_result(a, b, ordered=True)
        (True, False)
    """
    if not (expected.ran and found.ran) or len(expected.rows) != len(found.rows):
        return False
    left, right = ([_comparable(row) for row in part.rows] for part in (expected, found))
    return left == right if ordered else Counter(left) == Counter(right)


def is_ordered(query: str) -> bool:
    """Whether a query orders its result, that is, says ORDER BY outside of all parentheses.

    Example:
        >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)")
        False
        >>> is_ordered("select a from t order  by a")
        True
    """
    outer, depth = [], 0
    # a quote inside a literal is doubled, so it reads as two literals side by side
    for part in re.split(r"('[^']*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|[()])", query):
        if part in ("(", ")"):
            depth += 1 if part == "(" else -1
            outer.append(" ")
        elif depth == 0 and not part.startswith(("'", '"', "`", "--")):
            outer.append(part)
    return re.search(r"\border\s+by\b", "".join(outer), re.IGNORECASE) is not None


def _comparable(row: Sequence[Any]) -> tuple[Hashable, ...]:
    return tuple(
        float(f"{value:.{_SIGNIFICANT_DIGITS - 1}e}") if isinstance(value, float) else value
        for value in (_as_float(value) for value in row)
    )


def _as_float(value: Any) -> Any:
    """Turn an integer that a float holds exactly into one; larger ones stay as they are."""
    if isinstance(value, int) and abs(value) < 10**_SIGNIFICANT_DIGITS:
        return float(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _checked(path: Path) -> Path:
    if path.exists() and not path.is_file():  # opening a pipe waits for who writes to it
        raise DataError(f"{path}: this is no file; allowed is a SQLite database")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise DataError(f"{path}: the database cannot be read: {error.strerror}") from error
    if start != b"SQLite format 3\0":
        raise DataError(f"{path}: this is no SQLite database")
    return path.resolve()
