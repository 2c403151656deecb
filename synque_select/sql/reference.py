"""Reference queries: which results of other queries are right."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING

from synque_select.sql.outline import QueryOutline, with_inner_order, with_window_order
from synque_select.sql.results import (
    RELATIVE_TOLERANCE,
    QueryResult,
    Row,
    are_among,
    same_result,
    without_traces,
)
from synque_select.sql.runner import QueryRunner

if TYPE_CHECKING:
    from synque_select.sql.worker import SqlValue

__all__ = ["ReferenceAnswer"]

# rows that are read beyond those needed, and how many times as many if a tie goes on
_READ_AHEAD = 100
# how many rows are looked for among others, and in one query: SQLite nests 1,000 conditions
_MOST_WANTED, _WANTED_AT_ONCE = 1000, 100
# terms of ORDER BY that put tied rows in their order, in the reverse one, and in none of both
_ROW = "ROW_NUMBER() OVER ()"
_TIE_BREAKS = (_ROW, f"{_ROW} DESC", f"{_ROW} * 7919 % 10007")


@dataclass(frozen=True)
class ReferenceAnswer:
    """The result of a reference query, and the order in which it asks for the rows.

    Without ORDER BY, rows may come in any order. With it, rows that are tied may, and where a
    LIMIT or OFFSET cuts through tied rows, any of them are right: without ORDER BY, any rows at
    all. What ties is found by SQLite, not by reading the query: it runs it twice, with its columns
    in ascending and in descending order as last terms of ORDER BY.

    More may be left to SQLite: which rows the LIMIT of a subquery cuts off, which of tied rows
    ROW_NUMBER counts first, from which row of a group a column comes that is neither grouped nor
    aggregated, or in which order group_concat joins values. So the query is run with such rows and
    all tables in other orders, too; if it then returns anything else, its right results are
    unknown. A query of row numbers (rowid) is not run with tables in other orders, and one that
    exceeds a limit with them is taken for known.

    Args:
        result: What the query returned.
        ordered: Whether it has ORDER BY.
        tied: All rows in their order without LIMIT and OFFSET, up to the last that is needed: a
            tuple for each group of tied ones. None if they are not known, or do not matter; the
            order of a query with ORDER BY then matters for all rows.
        offset: How many of these rows the query skips.
        is_limited: Whether it has LIMIT.
        is_arbitrary: Whether it returned other rows where SQLite chose otherwise.
        rows_of: Where to look for rows of a query with LIMIT and without ORDER BY, if it has too
            many of them to be read: the database, and the query without LIMIT.

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
    is_limited: bool = False
    is_arbitrary: bool = False
    rows_of: tuple[QueryRunner, str] | None = field(default=None, repr=False, compare=False)

    @property
    def ties_are_unknown(self) -> bool:
        """Whether other results may be right, but which ones is unknown: then they are refused.

        Too many rows tie, for example, the query calls `random` or returns something else each
        time, or the result depends on which rows a LIMIT in a subquery cuts off, or from which row
        of a group a column comes. Leave such a query out of an accuracy, and count it.
        """
        may_tie = self.ordered or self.is_limited
        is_unknown = may_tie and self.tied is None and self.rows_of is None
        return bool(self.result.rows) and (is_unknown or self.is_arbitrary)

    @classmethod
    def of(cls, runner: QueryRunner, query: str) -> ReferenceAnswer:
        """Run a reference query, and if rows of it may tie, find out which do.

        Args:
            runner: The database.
            query: One SQL statement.
        """
        outline = QueryOutline.of(query)
        answer = cls._with_ties(runner, outline, runner.run(query))
        if not answer.result.rows or answer.ties_are_unknown:
            return answer
        if outline.is_random:  # of few rows, any number of runs may agree by chance
            return replace(answer, is_arbitrary=True)
        varied = (with_inner_order(query, term) for term in _TIE_BREAKS)
        windows = (
            with_window_order(query, f"synque_tie_break({i})") for i in range(len(_TIE_BREAKS))
        )
        # a window with a frame of its own may not take another term, and tables in another order
        # have no rowid and no index
        may_fail = chain(
            map(runner.run, filter(None, windows)),
            (runner.run(query, order=order) for order in range(1, len(_TIE_BREAKS))),
        )
        others = chain(
            [runner.run(query, backwards=True)],
            map(runner.run, filter(None, varied)),
            filter(lambda other: other.ran, may_fail),
        )
        is_arbitrary = not all(map(answer.accepts, others))
        return replace(answer, is_arbitrary=is_arbitrary)

    @classmethod
    def _with_ties(
        cls, runner: QueryRunner, outline: QueryOutline, result: QueryResult
    ) -> ReferenceAnswer:
        is_limited = outline.limit is not None
        answer = cls(result, outline.is_ordered, is_limited=is_limited)
        if not result.rows or not (outline.is_ordered or is_limited):
            return answer
        offset = _number_of(runner, outline.offset)
        if offset is None:
            return answer
        tied = _tied_rows(runner, outline, offset + len(result.rows), len(result.rows[0]))
        with_ties = replace(answer, tied=tied, offset=offset)
        if tied is None and not outline.is_ordered:
            with_rows = replace(answer, rows_of=(runner, outline.unlimited))
            return with_rows if with_rows._has(result.rows) else answer
        # a query may return something else each time: then nothing is known of ties
        return with_ties if with_ties.accepts(result) else answer

    def accepts(self, actual: QueryResult) -> bool:
        """Whether a result is right; values are compared as in `same_result`.

        Args:
            actual: The result of the query under test.
        """
        if not actual.ran or (self.tied is None and self.rows_of is None):
            return same_result(self.result, actual, ordered=self.ordered)
        columns = {self.result.n_columns, actual.n_columns} - {None}
        if len(columns) > 1 or len(actual.rows) != len(self.result.rows):
            return False
        if self.tied is None:
            return self._has(actual.rows)
        every = chain.from_iterable(self.tied)
        rows = without_traces(actual.rows, self.result.rows, every)
        return _in_order(rows, self.tied, self.offset)

    def _has(self, rows: Sequence[Row]) -> bool:
        """Whether the query without its LIMIT returns these rows, found by SQLite."""
        if self.rows_of is None:
            return False
        runner, unlimited = self.rows_of
        names = ", ".join(f"synque_{i}" for i in range(len(self.result.rows[0])))
        binary = ", ".join(f"{name} COLLATE BINARY" for name in names.split(", "))
        wanted = list(dict.fromkeys(map(_condition, without_traces(rows, self.result.rows))))
        if len(wanted) > _MOST_WANTED:
            return False
        others: list[Row] = []
        for start in range(0, len(wanted), _WANTED_AT_ONCE):
            # equal rows as one with their number: there may be many
            answer = runner.run(
                f"WITH synque_rows({names}) AS ({unlimited}\n) SELECT {names}, COUNT(*) "
                f"FROM synque_rows WHERE {' OR '.join(wanted[start : start + _WANTED_AT_ONCE])} "
                f"GROUP BY {binary}"
            )
            for *row, n in answer.rows:
                others += [tuple(row)] * min(int(n or 0), len(rows))
        return are_among(rows, others)


def _condition(row: Row) -> str:
    return "(" + " AND ".join(_equals(f"synque_{i}", v) for i, v in enumerate(row)) + ")"


def _equals(name: str, value: SqlValue) -> str:
    """Return the condition that a column may equal a value, in SQL."""
    if value is None:
        return f"{name} IS NULL"
    if isinstance(value, int | float):
        margin = 0.0 if math.isinf(value) else 2 * RELATIVE_TOLERANCE * abs(value)
        low, high = _literal(value - margin), _literal(value + margin)
        return f"({name} BETWEEN {low} AND {high} AND typeof({name}) IN ('integer', 'real'))"
    kind = "text" if isinstance(value, str) else "blob"
    data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return f"(CAST({name} AS BLOB) = x'{data.hex()}' AND typeof({name}) = '{kind}')"


def _literal(value: float) -> str:
    # SQL has no word for infinity, but reads this one so
    return repr(value).replace("inf", "9e999")


def _number_of(runner: QueryRunner, expression: str | None) -> int | None:
    """Return the number of rows that OFFSET skips; None if SQLite cannot say it."""
    if expression is None:
        return 0
    # OFFSET takes '1' and 1.0, too; with any other value, the query has failed
    rows = runner.run(f"SELECT CAST(CAST(({expression}\n) AS NUMERIC) AS INTEGER)").rows
    value = rows[0][0] if rows else None
    return max(value, 0) if isinstance(value, int) else None


def _tied_rows(
    runner: QueryRunner, outline: QueryOutline, n: int, n_columns: int
) -> tuple[tuple[Row, ...], ...] | None:
    """Return the groups of tied rows up to the one that holds the n-th; None if unknown."""
    if not outline.is_ordered:
        every = runner.run(outline.unlimited).rows
        return (every,) if every else None
    # numbers of columns, because names may mean something else than the column
    up = ", ".join(f"{i + 1} COLLATE BINARY" for i in range(n_columns))
    down = up.replace("BINARY", "BINARY DESC")
    n_read = min(n + _READ_AHEAD, runner.max_rows)
    while True:
        ends = f"LIMIT {n_read}"
        rising, falling = (
            runner.run(f"{outline.unlimited}, {terms} {ends}").rows for terms in (up, down)
        )
        groups = _groups(rising, falling)
        if sum(map(len, groups)) >= n:
            n_before = accumulate(map(len, groups), initial=0)
            return tuple(group for group, k in zip(groups, n_before, strict=False) if k < n)
        if min(len(rising), len(falling)) < n_read or n_read == runner.max_rows:
            return None
        n_read = min(n_read * _READ_AHEAD, runner.max_rows)


def _groups(rising: Sequence[Row], falling: Sequence[Row]) -> tuple[tuple[Row, ...], ...]:
    """Divide rows in two orders, in each of which only tied rows stand differently.

    Within a group, one order is the reverse of the other. So the first rows of both are the same
    ones at the end of a group, and inside it only where its rows are equal.
    """
    groups: list[tuple[Row, ...]] = []
    surplus: defaultdict[Row, int] = defaultdict(int)
    start = 0
    for i, pair in enumerate(zip(rising, falling, strict=False)):
        for row, step in zip(pair, (1, -1), strict=True):
            surplus[row] += step
            if not surplus[row]:
                del surplus[row]
        if not surplus:
            groups.append(tuple(rising[start : i + 1]))
            start = i + 1
    return tuple(groups)


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
