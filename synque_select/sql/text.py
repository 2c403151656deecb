"""Analysis of SQL text without running it: a normal form, and the schema that queries use."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from synque_select.errors import DataError
from synque_select.sql.parsing import parsed_query
from synque_select.utils.atomic import atomic_path
from synque_select.utils.wording import one_line

if TYPE_CHECKING:
    from synque_select.sql.parse_worker import Column

__all__ = [
    "Schema",
    "create_tables",
    "infer_schema",
    "normalised",
    "quoted_name",
    "write_empty_database",
]

Schema: TypeAlias = dict[str, list[str]]
_SHOWN = 100


def normalised(query: str) -> str:
    """Return a query with its layout and the case of its keywords and names normalized.

    Two queries with the same normal form differ only in layout, comments, quotes around names and
    case. A query that cannot be parsed within the limits of `parsed_query` is returned as its
    lower-case words.

    Args:
        query: One SQL statement in SQLite's dialect.

    Raises:
        DependencyError: The package sqlglot is not installed.

    Example:
        >>> normalised("select  A from t where b='X'")
        "SELECT a FROM t WHERE b = 'X'"
    """
    parsed = parsed_query(query)
    return " ".join(query.lower().split()) if parsed is None else parsed.normal


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

    Raises:
        DataError: SQLite does not allow such a table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_empty_database(Path(folder, "a.sqlite"), {"t": ["x", "y"]}).name
        'a.sqlite'
    """
    with atomic_path(path) as part:
        create_tables(part, schema)
    return path


def create_tables(path: Path, schema: Schema) -> None:
    """Create the tables in a SQLite file, which is made if it is missing.

    Args:
        path: Path of the file.
        schema: The columns of each table.

    Raises:
        DataError: SQLite does not allow such a table: its name begins with "sqlite_", or it has
            more than 2,000 columns.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in schema.items():
            names = ", ".join(map(quoted_name, columns))
            try:
                connection.execute(f"CREATE TABLE {quoted_name(table)} ({names})")
            except (sqlite3.Error, ValueError) as error:
                shown = one_line(table, _SHOWN)
                raise DataError(f"the table {shown!r} cannot be created: {error}") from error


def _columns_of(queries: Sequence[str]) -> set[Column]:
    parsed = filter(None, map(parsed_query, queries))
    return {column for query in parsed for column in query.columns if _is_allowed(column)}


def _is_allowed(column: Column) -> bool:
    """Whether SQLite creates a table and a column of these names."""
    return "\0" not in "".join(column) and not column[0].startswith("sqlite_")


def quoted_name(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'
