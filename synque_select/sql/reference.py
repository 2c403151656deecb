"""Reference queries: which results of other queries are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from synque_select.sql.parsing import parsed_query
from synque_select.sql.results import QueryResult, Row, are_among, is_ordered, same_result
from synque_select.sql.runner import QueryRunner

__all__ = ["ReferenceAnswer"]


@dataclass(frozen=True)
class ReferenceAnswer:
    """The result of a reference query, and the order in which it asks for the rows.

    Without ORDER BY, rows may come in any order. With it, rows that are tied may, and where a
    LIMIT or OFFSET cuts through tied rows, any of them are right.

    Args:
        result: What the query returned.
        ordered: Whether it has ORDER BY.
        tied: All rows in their order without LIMIT and OFFSET, up to the last that is needed: a
            tuple for each group of tied ones. None if they are not known; the order of a query
            with ORDER BY then matters for all rows.
        offset: How many of these rows the query skips.

    Example:
        >>> import sqlite3, tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "small.sqlite"
        >>> connection = sqlite3.connect(path)
        >>> _ = connection.executescript(
        ...     "CREATE TABLE t (x, y); INSERT INTO t VALUES (1, 'a'), (1, 'b'), (0, 'c')"
        ... )
        >>> connection.close()
        >>> with QueryRunner(path) as runner:
        ...     reference = ReferenceAnswer.of(runner, "SELECT y FROM t ORDER BY x")
        >>> reference.accepts(QueryResult((("c",), ("b",), ("a",))))
        True
        >>> reference.accepts(QueryResult((("b",), ("c",), ("a",))))
        False
        >>> folder.cleanup()
    """

    result: QueryResult
    ordered: bool
    tied: tuple[tuple[Row, ...], ...] | None = None
    offset: int = 0

    @classmethod
    def of(cls, runner: QueryRunner, query: str) -> ReferenceAnswer:
        """Run a reference query, and if it has an order, a second one that says which rows tie.

        Args:
            runner: The database.
            query: One SQL statement.

        Raises:
            DependencyError: The package sqlglot is not installed.
        """
        result = runner.run(query)
        if not result.rows or not is_ordered(query):
            return cls(result, is_ordered(query))
        parsed = parsed_query(query)
        if parsed is None or parsed.ranked is None:
            return cls(result, ordered=True)
        last = parsed.offset + len(result.rows)
        rank = f"SELECT * FROM ({parsed.ranked}) WHERE synque_rank <= {last} ORDER BY synque_rank"
        ranked = runner.run(rank).rows
        groups = groupby(ranked, key=lambda row: row[-1])
        tied = tuple(tuple(row[:-1] for row in rows) for _, rows in groups)
        answer = cls(result, True, tied, parsed.offset)
        # the second query is written from the parsed first one: where it does not say the same,
        # nothing is known of ties
        return answer if answer.accepts(result) else cls(result, ordered=True)

    def accepts(self, actual: QueryResult) -> bool:
        """Whether a result is right; values are compared as in `same_result`.

        Args:
            actual: The result of the query under test.
        """
        if self.tied is None or not actual.ran:
            return same_result(self.result, actual, ordered=self.ordered)
        columns = {self.result.n_columns, actual.n_columns} - {None}
        if len(columns) > 1 or len(actual.rows) != len(self.result.rows):
            return False
        return _in_order(actual.rows, self.tied, self.offset)


def _in_order(rows: Sequence[Row], tied: Sequence[Sequence[Row]], offset: int) -> bool:
    """Whether rows from an offset on come from one group of tied rows after the other."""
    start = -offset
    for group in tied:
        part = rows[max(start, 0) : max(start + len(group), 0)]
        if not are_among(part, group):
            return False
        start += len(group)
        if start >= len(rows):
            return True
    return False
