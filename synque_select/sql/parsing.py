"""Analysis of the text of untrusted SQL, in a separate process with limits.

A parser takes time that grows exponentially with some queries, and a small language model in a loop
writes exactly these. One process parses query after query; what it cannot read within the limits,
or dies of, counts as not parsed.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import DataError, DependencyError
from synque_select.sql.process import LineProcess, resource_limits

if TYPE_CHECKING:
    from synque_select.sql.parse_worker import Column, ParserOptions, QueryFacts, Value

__all__ = ["MAX_QUERY_CHARS", "ParsedQuery", "parsed_query"]

MAX_QUERY_CHARS = 10_000
_WORKER = Path(__file__).with_name("parse_worker.py")
# of the processor, per query: ordinary queries take a few thousandths of it
_TIME_LIMIT_S = 1.0
_MEMORY_LIMIT_MB = 256
# a process that does not stop itself is killed this much later
_GRACE_S = 30.0
_START_S = 120.0
_MAX_ANSWER_BYTES = 2**22


@dataclass(frozen=True)
class ParsedQuery:
    """What the text of a query says; tables and columns are in lower case.

    Args:
        normal: The query with its layout and the case of its keywords and names normalized.
        tables: The tables that it names, sorted.
        columns: The columns that belong to one of these tables: to the one that qualifies it, by
            name or alias, or to the only table of the query.
        conditions: A value for each column that the query compares with a literal, which meets the
            comparison.
        joins: Pairs of columns that must be equal.
    """

    normal: str
    tables: tuple[str, ...]
    columns: frozenset[Column]
    conditions: dict[Column, Value]
    joins: tuple[tuple[Column, Column], ...]


def parsed_query(query: str) -> ParsedQuery | None:
    """Parse one query of SQLite; return None if that fails or exceeds a limit.

    The limits are 10,000 characters, 1 s of processor time and 256 MiB of memory.

    Args:
        query: One SQL statement.

    Raises:
        DependencyError: The package sqlglot is not installed.
        DataError: The process cannot be started.

    Example:
        >>> sorted(parsed_query("SELECT a FROM t WHERE b > 3").columns)
        [('t', 'a'), ('t', 'b')]
        >>> parsed_query("SELECT 1 FROM t" + " JOIN t" * 22) is None
        True
    """
    if len(query) > MAX_QUERY_CHARS:
        return None
    try:
        return _parsed(query.encode("utf-8", "replace").decode())
    except _EndedError:
        return None


class _EndedError(Exception):
    """Raised if the process ended, which may have other reasons than the query: not cached."""


# the schema, made-up rows and their count are all read from the same queries
@lru_cache(maxsize=4096)
def _parsed(query: str) -> ParsedQuery | None:
    answer = _process().ask(query, wait_s=_TIME_LIMIT_S + _GRACE_S)
    if answer is None:
        raise _EndedError
    facts: QueryFacts | None = json.loads(answer)
    if facts is None:
        return None
    return ParsedQuery(
        facts["normal"],
        tuple(facts["tables"]),
        frozenset((table, name) for table, name in facts["columns"]),
        {(table, name): value for table, name, value in facts["conditions"]},
        tuple(((a, b), (c, d)) for (a, b), (c, d) in facts["joins"]),
    )


@lru_cache(maxsize=1)
def _process() -> LineProcess:
    package = importlib.util.find_spec("sqlglot")
    if package is None or package.origin is None:
        raise DependencyError("sqlglot", extra="text2sql", purpose="comparing the text of SQL")
    options: ParserOptions = {
        "folder": str(Path(package.origin).parent.parent),
        "time_limit_s": _TIME_LIMIT_S,
        "limits": resource_limits(memory_mb=_MEMORY_LIMIT_MB),
    }
    process = LineProcess(_WORKER, options, max_answer_bytes=_MAX_ANSWER_BYTES)
    if process.ask("SELECT 1", wait_s=_START_S) in (None, "null\n"):
        process.close()
        raise DataError(
            "the process that parses SQL does not work: check that `import sqlglot` does, and "
            f"that {_MEMORY_LIMIT_MB} MiB of memory are free"
        )
    return process
