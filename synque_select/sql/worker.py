"""Answers SQL queries on one database, each in a process of its own; run as a script.

Started by `synque_select.sql.runner` with `python -I -S`, so that it imports the standard library
alone and a fork of it costs a millisecond. Reads one JSON line a query, writes one JSON line an
answer: {"rows": …} or {"error": …}.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sqlite3
import sys
import time
from typing import Any

__all__ = ["main"]

_READS = frozenset(
    (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        getattr(sqlite3, "SQLITE_RECURSIVE", 33),
    )
)
_FORBIDDEN_FUNCTIONS = frozenset(("load_extension", "fts3_tokenizer", "readfile", "writefile"))
_MEBIBYTE = 2**20
_MAX_VALUE_BYTES = _MEBIBYTE
_MAX_SQL_BYTES = 100_000
_OPCODES_BETWEEN_LOOKS = 10_000


def main() -> None:
    """Serve until the input ends."""
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        print(_in_child(json.loads(line), options), flush=True)


def _in_child(query: str, options: dict[str, Any]) -> str:
    """Fork, let the child answer, and end it when its time is over."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(query, options, writing)
    os.close(writing)
    answer, in_time = _read_until(reading, time.monotonic() + options["time_limit_s"] + 0.5)
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not in_time:
        return _error(f"time limit of {options['time_limit_s']:g} s")
    if answer.endswith(b"\n"):
        return answer.decode().rstrip("\n")
    return _error(_ended(status))


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the process ended by signal {os.WTERMSIG(status)}"
    return "the process ended without an answer"


def _read_until(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """Read to the end of the pipe; whether the end came before the deadline."""
    chunks: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            chunk = os.read(pipe, _MEBIBYTE)
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
    return b"", False


def _answer(query: str, options: dict[str, Any], pipe: int) -> None:
    """Write the answer and leave the process at once; runs in the child."""
    status = 1
    try:
        _limit(options)
        if not isinstance(query, str):
            raise ValueError(f"a query is a text; found {type(query).__name__}")
        answer = json.dumps({"rows": _rows(query, options)})
    except MemoryError:
        answer = _error(f"memory limit of {options['memory_limit_mb']} MB")
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        answer = _error(_reason(error, options))
    try:
        data = answer.encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]
        status = 0
    finally:
        os._exit(status)


def _reason(error: Exception, options: dict[str, Any]) -> str:
    text = str(error)
    if text == "interrupted":
        return f"time limit of {options['time_limit_s']:g} s"
    if text == "out of memory":
        return f"memory limit of {options['memory_limit_mb']} MB"
    return text or type(error).__name__


def _limit(options: dict[str, Any]) -> None:
    memory = options["memory_limit_mb"] * _MEBIBYTE
    seconds = int(options["time_limit_s"]) + 2
    limits = {
        # the interpreter's own mappings come on top of what a query may take
        resource.RLIMIT_AS: memory + 128 * _MEBIBYTE,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def _rows(query: str, options: dict[str, Any]) -> list[list[Any]]:
    connection = _open(options)
    cursor = connection.execute(query)
    if cursor.description is None:
        raise ValueError("the query gives no result")
    rows: list[list[Any]] = []
    n_bytes = 0
    for row in cursor:
        plain = [_plain(value) for value in row]
        n_bytes += sum(len(v) if isinstance(v, str) else 8 for v in plain)
        if len(rows) >= options["max_rows"] or n_bytes > options["max_result_bytes"]:
            raise ValueError(
                f"result limit of {options['max_rows']} rows, {options['max_result_bytes']} bytes"
            )
        rows.append(plain)
    return rows


def _open(options: dict[str, Any]) -> sqlite3.Connection:
    connection = sqlite3.connect(options["uri"], uri=True, isolation_level=None)
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA hard_heap_limit={options['memory_limit_mb'] * _MEBIBYTE}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorize)
    deadline = time.monotonic() + options["time_limit_s"]
    connection.set_progress_handler(
        lambda: int(time.monotonic() > deadline), _OPCODES_BETWEEN_LOOKS
    )
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _READS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _plain(value: Any) -> Any:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


def _error(text: str) -> str:
    return json.dumps({"error": text})


if __name__ == "__main__":
    main()
