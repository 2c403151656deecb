"""What the text of SQL says without running it: a normal form, the schema that queries use."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from synque_select.errors import DataError, DependencyError

__all__ = ["infer_schema", "normalised", "write_empty_database"]

Schema = dict[str, list[str]]


def normalised(query: str) -> str:
    """Return a query with its layout, its keywords' case and its names' case made equal.

    What cannot be parsed is compared by its words.

    Example:
        >>> normalised("select  A from t where b='X'")
        "SELECT a FROM t WHERE b = 'X'"
    """
    parsed = _parsed(query)
    if parsed is None:
        return " ".join(query.lower().split())
    from sqlglot import exp

    for name in parsed.find_all(exp.Identifier):
        name.set("this", name.this.lower())
        name.set("quoted", False)
    return str(parsed.sql(dialect="sqlite", comments=False))


def infer_schema(parts: Iterable[Sequence[str]]) -> Schema:
    """Return the tables and columns that several sets of queries agree on.

    A column is that of the table that the query gives it, by name or alias, or of the only table.
    Kept is what occurs in at least half of the sets: a column that one generator made up is not.

    Args:
        parts: Sets of queries, one a candidate.

    Returns:
        Table to columns, in lower case, sorted.

    Raises:
        DataError: No table is in half of the sets.

    Example:
        >>> infer_schema([["SELECT a FROM t"], ["SELECT T1.a FROM t AS T1"], ["SELECT x FROM t"]])
        {'t': ['a']}
    """
    found = [_columns_of(queries) for queries in parts]
    counts = Counter(column for columns in found for column in columns)
    schema: Schema = {}
    for table, column in sorted(c for c, n in counts.items() if 2 * n >= len(found)):
        schema.setdefault(table, []).append(column)
    if not schema:
        raise DataError("no table and column is in the SQL of half of the candidates")
    return schema


def write_empty_database(path: Path, schema: Schema) -> Path:
    """Write a SQLite file that has the tables, without a type or a row, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        with connection:
            for table, columns in schema.items():
                names = ", ".join(map(_quoted, columns))
                connection.execute(f"CREATE TABLE {_quoted(table)} ({names})")
    finally:
        connection.close()
    return path


def _parsed(query: str) -> Any:
    """Parse one query of SQLite; None where that fails."""
    try:
        import sqlglot
    except ImportError as error:
        purpose = "comparing the text of SQL"
        raise DependencyError("sqlglot", extra="text2sql", purpose=purpose) from error
    try:
        return sqlglot.parse_one(query, read="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None


def _columns_of(queries: Sequence[str]) -> set[tuple[str, str]]:
    from sqlglot import exp

    found: set[tuple[str, str]] = set()
    for query in queries:
        parsed = _parsed(query)
        if parsed is None:
            continue
        tables = {t.alias_or_name.lower(): t.name.lower() for t in parsed.find_all(exp.Table)}
        known = set(tables.values())
        tables |= {name: name for name in known}
        for column in parsed.find_all(exp.Column):
            table = column.table.lower()
            name = column.name.lower()
            if table in tables:
                found.add((tables[table], name))
            elif not table and len(known) == 1:
                found.add((next(iter(known)), name))
    return {(table, column) for table, column in found if table and column}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
