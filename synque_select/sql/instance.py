"""A database with made-up rows, for comparing queries where the original one is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synque_select.sql.parsing import ParsedQuery, parsed_query
from synque_select.sql.text import Schema, create_tables, quoted_name
from synque_select.utils.atomic import atomic_path

if TYPE_CHECKING:
    from synque_select.sql.parse_worker import Column, Value

__all__ = ["write_made_up_database"]

_MAX_QUERIES = 300  # rows of a table; a join of three tables must stay quick
_WORDS = ("alpha", "beta", "gamma", "delta")  # of columns that no query compares with anything


def write_made_up_database(
    path: Path, schema: Schema, queries: Sequence[str], *, seed: int
) -> Path:
    """Write a SQLite file with these tables, and for each query rows that meet its conditions.

    Queries that return the same rows from an empty database (none, or a count of 0) usually differ
    on this one: every query adds one row to each of its tables, in which the columns that it
    compares with a value have such a value, columns that it joins are equal, and all other columns
    have values that other queries compare them with. Two queries that differ may still return the
    same rows: agreement on one database is necessary, not sufficient.

    Args:
        path: Path of the new file; an existing file is replaced and missing folders are created.
        schema: The columns of each table, in lower case.
        queries: Queries of the candidates; 300 evenly spaced ones are used if there are more.
        seed: Random seed of the values.

    Returns:
        The path.

    Raises:
        DependencyError: The package sqlglot is not installed.

    Source:
        Zhong, Yu and Klein, "Semantic evaluation for text-to-SQL with distilled test suites", EMNLP
        2020, who fuzz many databases; here there is one.

    Example:
        >>> import tempfile
        >>> query = "SELECT COUNT(*) FROM t WHERE x > 3 AND y = 'a'"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "made-up.sqlite")
        ...     _ = write_made_up_database(path, {"t": ["x", "y"]}, [query], seed=0)
        ...     sqlite3.connect(path).execute(query).fetchall()
        [(1,)]
    """
    chosen = [queries[i] for i in _spaced(len(queries), _MAX_QUERIES)]
    parsed = list(filter(None, map(parsed_query, chosen)))
    pools: dict[Column, list[Value]] = {}
    for query in parsed:
        for column, value in query.conditions.items():
            pools.setdefault(column, []).append(value)
    rng = np.random.default_rng(seed)
    # a process that is killed leaves no partial database
    with atomic_path(path) as part:
        create_tables(part, schema)
        with closing(sqlite3.connect(part)) as connection, connection:
            for query in parsed:
                for table, row in _rows(query, schema, pools, rng):
                    marks = ", ".join("?" * len(row))
                    connection.execute(f"INSERT INTO {quoted_name(table)} VALUES ({marks})", row)
    return path


def _rows(
    query: ParsedQuery, schema: Schema, pools: dict[Column, list[Value]], rng: np.random.Generator
) -> Iterator[tuple[str, list[Value]]]:
    """Yield a row for each table of a query."""
    row: dict[Column, Value] = {}
    tables = [table for table in query.tables if table in schema]
    for table in tables:
        for name in schema[table]:
            column = table, name
            pool = pools.get(column) or [*_WORDS, *range(1, 5)]
            row[column] = query.conditions.get(column, pool[int(rng.integers(len(pool)))])
    for left, right in query.joins:
        if left in row and right in row:
            # a value that a condition asks for is kept, on both sides
            row[left] = row[right] = row[right] if right in query.conditions else row[left]
    for table in tables:
        yield table, [row[table, name] for name in schema[table]]


def _spaced(n: int, most: int) -> list[int]:
    return [int(i) for i in np.linspace(0, n - 1, min(n, most))]
