"""Script that answers SQL queries on one database, each in a separate process.

`synque_select.sql.runner` starts it with `python -I -S`, so that it imports only the standard
library and forking it takes about a millisecond. It reads one line of JSON per query from the
standard input, {"query": …, "backwards": …, "order": …}, and writes one line of JSON per answer:
{"rows": …, "n_columns": …} or {"error": …}.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import TypeAlias, TypedDict

__all__ = ["Question", "SqlValue", "WorkerOptions", "main"]

SqlValue: TypeAlias = str | bytes | int | float | None
"""A value of a result."""
# JSON has no bytes: a blob is written as an object
_Written: TypeAlias = str | int | float | dict[str, str] | None


class WorkerOptions(TypedDict):
    """The database and the limits of each query, passed as the script's JSON argument."""

    uri: str
    time_limit_s: float
    memory_limit_mb: int
    max_rows: int
    max_result_bytes: int
    limits: dict[str, int]


class Question(TypedDict):
    """A query, whether SQLite reads backwards where it may choose, and the order of all rows."""

    query: str
    backwards: bool
    order: int | None


_READS = frozenset(
    (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        getattr(sqlite3, "SQLITE_RECURSIVE", 33),
    )
)
_FORBIDDEN_FUNCTIONS = frozenset(("load_extension", "fts3_tokenizer", "readfile", "writefile"))
_EXPLAIN = re.compile(
    r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*explain\b", re.IGNORECASE | re.DOTALL
)
# the rows of a table as they are, reversed and mixed, without sorting them: a million may be many;
# SQLite would leave out the ORDER BY of a view without LIMIT
_BY_ROW_NUMBER = (
    "SELECT * FROM {0} ORDER BY rowid LIMIT -1",
    "SELECT * FROM {0} ORDER BY rowid DESC LIMIT -1",
    "SELECT * FROM {0} WHERE rowid % 2 IS NOT 0 "
    "UNION ALL SELECT * FROM {0} WHERE rowid % 2 IS 0 LIMIT -1",
)
_BY_FUNCTION = "SELECT * FROM {0} ORDER BY synque_tie_break({1}) LIMIT -1"
_MEBIBYTE = 2**20
_MAX_VALUE_BYTES = _MEBIBYTE
_MAX_SQL_BYTES = 100_000
_OPCODES_BETWEEN_CHECKS = 10_000
# SQLite itself stops at the time limit; a process that does not is killed this much later
_GRACE_S = 0.5


def main() -> None:
    """Answer queries until the input ends."""
    options: WorkerOptions = json.loads(sys.argv[1])
    # Ctrl+C goes to the whole process group; the runner decides when this process ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        print(_in_child(json.loads(line), options), flush=True)


def _in_child(question: Question, options: WorkerOptions) -> str:
    """Fork, let the child answer, and kill it when its time is up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(question, options, writing)
    os.close(writing)
    answer, in_time = _read_until(reading, time.monotonic() + options["time_limit_s"] + _GRACE_S)
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not in_time:
        return _error(_time_limit(options))
    # without the line end, the child died while it was writing
    if answer.endswith(b"\n"):
        return answer.decode().rstrip("\n")
    return _error(_death(status))


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the query's process was killed by signal {os.WTERMSIG(status)}"
    return "the query's process ended without an answer"


def _read_until(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """Read to the end of the pipe; return the bytes and whether it ended before the deadline."""
    chunks: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            chunk = os.read(pipe, _MEBIBYTE)
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
    return b"", False


def _answer(question: Question, options: WorkerOptions, pipe: int) -> None:
    """Write the answer and exit immediately; runs in the child."""
    status = 1
    try:
        _limit_resources(options)
        query: object = question["query"]
        if not isinstance(query, str):
            raise ValueError(f"a query must be a string; found {type(query).__name__}")
        if _EXPLAIN.match(query):
            raise ValueError("EXPLAIN is not allowed: it describes a query instead of running it")
        answer = json.dumps(_result(query, options, question))
    except MemoryError:
        answer = _error(_memory_limit(options))
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        answer = _error(_reason(error, options))
    try:
        data = answer.encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]
        status = 0
    finally:
        # not sys.exit: the parent's buffers must not be flushed a second time
        os._exit(status)


def _reason(error: Exception, options: WorkerOptions) -> str:
    text = str(error)
    if text == "interrupted":
        return _time_limit(options)
    if text == "out of memory":
        return _memory_limit(options)
    return text or type(error).__name__


def _time_limit(options: WorkerOptions) -> str:
    return f"stopped at the time limit of {options['time_limit_s']:g} s"


def _memory_limit(options: WorkerOptions) -> str:
    return f"stopped at the memory limit of {options['memory_limit_mb']} MiB"


def _limit_resources(options: WorkerOptions) -> None:
    for name, value in options["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _result(query: str, options: WorkerOptions, question: Question) -> dict[str, object]:
    connection = _open(options, question)
    cursor = connection.execute(query)
    if cursor.description is None:
        raise ValueError("the query returns no result: it is empty or not a SELECT")
    rows: list[list[_Written]] = []
    n_bytes = 0
    for row in cursor:
        n_bytes += sum(len(v) if isinstance(v, str | bytes) else 8 for v in row)
        if len(rows) >= options["max_rows"] or n_bytes > options["max_result_bytes"]:
            raise ValueError(
                f"the result exceeds the result limit of {options['max_rows']} rows or "
                f"{options['max_result_bytes']} bytes"
            )
        rows.append([_written(value) for value in row])
    return {"rows": rows, "n_columns": len(cursor.description)}


def _open(options: WorkerOptions, question: Question) -> sqlite3.Connection:
    connection = sqlite3.connect(options["uri"], uri=True, isolation_level=None)
    connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA reverse_unordered_selects={int(question['backwards'])}")
    connection.execute(f"PRAGMA hard_heap_limit={options['memory_limit_mb'] * _MEBIBYTE}")
    connection.create_function("synque_tie_break", 1, _tie_break())
    if question["order"] is not None:
        _put_in_order(connection, question["order"])
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorize if question["order"] is None else _authorize_in_order)
    deadline = time.monotonic() + options["time_limit_s"]
    connection.set_progress_handler(
        lambda: int(time.monotonic() > deadline), _OPCODES_BETWEEN_CHECKS
    )
    return connection


def _put_in_order(connection: sqlite3.Connection, order: int) -> None:
    """Let queries see all tables with their rows in another order."""
    listing = "SELECT name, type FROM main.sqlite_master WHERE type IN ('table', 'view')"
    for name, kind in connection.execute(listing).fetchall():
        if name.startswith("sqlite_"):
            continue
        quoted = '"' + name.replace('"', '""') + '"'
        is_counted = kind == "table" and _has_row_numbers(connection, quoted)
        rows = _BY_ROW_NUMBER[order] if is_counted else _BY_FUNCTION.replace("{1}", str(order))
        connection.execute(f"CREATE TEMP VIEW {quoted} AS {rows.replace('{0}', 'main.' + quoted)}")


def _has_row_numbers(connection: sqlite3.Connection, quoted: str) -> bool:
    try:
        connection.execute(f"SELECT rowid FROM main.{quoted} LIMIT 0")
    except sqlite3.Error:
        return False
    return True


def _tie_break() -> Callable[[int], int]:
    """Return the function by which `ReferenceAnswer` puts rows in three orders."""
    count = itertools.count(1)

    def place(order: int) -> int:
        number = next(count)
        return (number, -number, number * 7919 % 10007)[order]

    return place


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _READS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _authorize_in_order(
    action: int, first: str | None, second: str | None, schema: str | None, *_: str | None
) -> int:
    # a view has no row numbers: depending on how SQLite was built, they are an error or NULL
    if action == sqlite3.SQLITE_READ and second == "ROWID" and schema == "temp":
        return sqlite3.SQLITE_DENY
    return _authorize(action, first, second)


def _written(value: SqlValue) -> _Written:
    return {"blob": value.hex()} if isinstance(value, bytes) else value


def _error(text: str) -> str:
    return json.dumps({"error": text})


if __name__ == "__main__":
    main()
