"""A database with made-up rows, for comparing queries where the original one is missing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synque_select.sql.text import Column, Schema, columns_in, parsed_query, write_empty_database

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

__all__ = ["write_made_up_database"]

Value = str | int | float | None

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
    parsed = [expression for query in chosen if (expression := parsed_query(query)) is not None]
    conditions = [_conditions(expression) for expression in parsed]
    pools: dict[Column, list[Value]] = {}
    for of_query in conditions:
        for column, value in of_query.items():
            pools.setdefault(column, []).append(value)
    rng = np.random.default_rng(seed)
    # a process that is killed leaves no partial database
    partial = write_empty_database(path.with_name(f"{path.name}.{os.getpid()}.partial"), schema)
    connection = sqlite3.connect(partial)
    try:
        with connection:
            for expression, values in zip(parsed, conditions, strict=True):
                for table, row in _rows(expression, values, schema, pools, rng):
                    marks, name = ", ".join("?" * len(row)), table.replace('"', '""')
                    connection.execute(f'INSERT INTO "{name}" VALUES ({marks})', row)
    finally:
        connection.close()
    return partial.replace(path)


def _rows(
    query: Expr,
    values: dict[Column, Value],
    schema: Schema,
    pools: dict[Column, list[Value]],
    rng: np.random.Generator,
) -> Iterator[tuple[str, list[Value]]]:
    """Yield a row for each table of a query."""
    from sqlglot import exp

    row: dict[Column, Value] = {}
    tables = sorted({t.name.lower() for t in query.find_all(exp.Table)} & set(schema))
    for table in tables:
        for name in schema[table]:
            column = table, name
            pool = pools.get(column) or [*_WORDS, *range(1, 5)]
            row[column] = values.get(column, pool[int(rng.integers(len(pool)))])
    for left, right in _joins(query):
        if left in row and right in row:
            # a value that a condition asks for is kept, on both sides
            row[left] = row[right] = row[right] if right in values else row[left]
    for table in tables:
        yield table, [row[table, name] for name in schema[table]]


def _joins(query: Expr) -> Iterator[tuple[Column, Column]]:
    from sqlglot import exp

    columns = columns_in(query)
    for equal in query.find_all(exp.EQ):
        left, right = columns.get(id(equal.this)), columns.get(id(equal.expression))
        if left is not None and right is not None:
            yield left, right


def _conditions(query: Expr) -> dict[Column, Value]:
    """Return a value for each column that a query compares with a literal."""
    from sqlglot import exp

    columns, values = columns_in(query), {}
    kinds = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.In, exp.Between)
    for condition in query.find_all(*kinds):
        column = columns.get(id(condition.this))
        if column is None:
            continue
        if isinstance(condition, exp.In):
            given = next(iter(condition.expressions), None)
        else:
            given = condition.args.get("low") or condition.expression
        value = _literal(given)
        if value is not None:
            values[column] = _met(condition, value)
    return values


def _met(condition: Expr, value: str | int | float) -> Value:
    """Return a value that meets a comparison with this one."""
    from sqlglot import exp

    if isinstance(condition, exp.Like):
        return str(value).replace("%", "").replace("_", "x")
    if isinstance(condition, exp.GT | exp.NEQ):
        return f"{value}~" if isinstance(value, str) else value + 1
    if isinstance(condition, exp.LT):
        return "" if isinstance(value, str) else value - 1
    return value


def _literal(given: Expr | None) -> str | int | float | None:
    from sqlglot import exp

    sign = 1
    if isinstance(given, exp.Neg):
        sign, given = -1, given.this
    if not isinstance(given, exp.Literal):
        return None
    if given.is_string:
        return str(given.this)
    number = float(given.this)
    return sign * (int(number) if number.is_integer() else number)


def _spaced(n: int, most: int) -> list[int]:
    return [int(i) for i in np.linspace(0, n - 1, min(n, most))]
