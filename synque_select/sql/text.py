"""Analysis of SQL text without running it: a normal form, and the schema that queries use."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import DataError, DependencyError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

__all__ = [
    "Column",
    "Schema",
    "columns_in",
    "infer_schema",
    "normalised",
    "parsed_query",
    "write_empty_database",
]

Schema = dict[str, list[str]]
Column = tuple[str, str]
"""A table and the name of its column, in lower case."""


def normalised(query: str) -> str:
    """Return a query with its layout and the case of its keywords and names normalized.

    Two queries with the same normal form differ only in layout, comments, quotes around names and
    case. A query that cannot be parsed is returned as its lower-case words.

    Args:
        query: One SQL statement in SQLite's dialect.

    Raises:
        DependencyError: The package sqlglot is not installed.

    Example:
        >>> normalised("select  A from t where b='X'")
        "SELECT a FROM t WHERE b = 'X'"
    """
    parsed = parsed_query(query)
    if parsed is None:
        return " ".join(query.lower().split())
    from sqlglot import exp

    for name in parsed.find_all(exp.Identifier):
        name.set("this", name.this.lower())
        name.set("quoted", False)
    return str(parsed.sql(dialect="sqlite", comments=False))


def infer_schema(parts: Iterable[Sequence[str]]) -> Schema:
    """Return the tables and columns on which several sets of queries agree.

    A column belongs to the table that qualifies it, by name or alias, or to the only table of the
    query. A column is kept if it occurs in at least half of the sets, which drops the columns that
    a single generator made up.

    Args:
        parts: Sets of queries, one per candidate.

    Returns:
        The columns of each table; all names in lower case and sorted.

    Raises:
        DataError: No column occurs in at least half of the sets.
        DependencyError: The package sqlglot is not installed.

    Example:
        >>> infer_schema([["SELECT a FROM t"], ["SELECT T1.a FROM t AS T1"], ["SELECT x FROM t"]])
        {'t': ['a']}
    """
    used = [_columns_of(queries) for queries in parts]
    counts = Counter(column for columns in used for column in columns)
    schema: Schema = {}
    for table, column in sorted(c for c, n in counts.items() if 2 * n >= len(used)):
        schema.setdefault(table, []).append(column)
    if not schema:
        raise DataError(
            "no schema can be inferred: no column of a table occurs in the SQL of at least half of "
            "the candidates"
        )
    return schema


def write_empty_database(path: Path, schema: Schema) -> Path:
    """Write a SQLite file with these tables, whose columns have no types, and without rows.

    Args:
        path: Path of the new file; an existing file is replaced and missing folders are created.
        schema: The columns of each table.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_empty_database(Path(folder, "a.sqlite"), {"t": ["x", "y"]}).name
        'a.sqlite'
    """
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


def parsed_query(query: str) -> Expr | None:
    """Parse one query of SQLite; return None if that fails.

    Raises:
        DependencyError: The package sqlglot is not installed.
    """
    try:
        import sqlglot
    except ImportError as error:
        purpose = "comparing the text of SQL"
        raise DependencyError("sqlglot", extra="text2sql", purpose=purpose) from error
    try:
        return sqlglot.parse_one(query, read="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None


def columns_in(query: Expr) -> dict[int, Column]:
    """Return the column that each column expression of a query refers to, by the id of the latter.

    A column belongs to the table that qualifies it, by name or alias, or to the only table of the
    query; others are left out.
    """
    from sqlglot import exp

    tables = {t.alias_or_name.lower(): t.name.lower() for t in query.find_all(exp.Table)}
    known = set(tables.values())
    tables |= {name: name for name in known}
    referred: dict[int, Column] = {}
    for column in query.find_all(exp.Column):
        name, qualifier = column.name.lower(), column.table.lower()
        table = tables.get(qualifier, "") if qualifier else ""
        if not qualifier and len(known) == 1:
            table = next(iter(known))
        if table and name:
            referred[id(column)] = table, name
    return referred


def _columns_of(queries: Sequence[str]) -> set[Column]:
    parsed = filter(None, map(parsed_query, queries))
    return {column for query in parsed for column in columns_in(query).values()}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
