"""Results of queries: when two are the same, and which order of the rows a query asks for."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from synque_select.sql.worker import SqlValue

    _Numbers: TypeAlias = tuple[int | float, ...]
    _Key: TypeAlias = tuple[tuple[bool, str | None], ...]

__all__ = ["QueryResult", "Row", "are_among", "is_ordered", "same_result"]

Row: TypeAlias = "tuple[SqlValue, ...]"

# the order of summation, which SQLite leaves open, changes the last digits of a float sum, and
# leaves a trace of the terms where they cancel
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
# floats up to here hold every whole number exactly
_EXACT = 2**53
_MOST_TRIED = 1000
# a doubled quote inside a literal is scanned as two adjacent literals, which is harmless here; a
# literal without an end reaches to that of the query, so that each character is scanned once
_TOKENS = re.compile(
    r"""('[^']*(?:'|$)|"[^"]*(?:"|$)|`[^`]*(?:`|$)|\[[^\]]*(?:\]|$)|--[^\n]*|/\*.*?(?:\*/|$)|[()])""",
    re.DOTALL,
)


@dataclass(frozen=True)
class QueryResult:
    r"""The rows that a query returned, or the error with which it failed.

    Args:
        rows: The rows of the result; empty if the query failed. A blob is returned as its SQL
            literal, such as "x'00ff'"; a byte of a text that is not UTF-8 as "\xff".
        error: Why the query failed, in one line; None if it succeeded.
        n_columns: The number of columns, also of a result without rows; None if it is not known.

    Example:
        >>> QueryResult(((1, "a"),)).ran, QueryResult(error="no such table: t").ran
        (True, False)
    """

    rows: tuple[tuple[SqlValue, ...], ...] = ()
    error: str | None = None
    n_columns: int | None = None

    @property
    def ran(self) -> bool:
        """Whether the query finished within the limits."""
        return self.error is None


def same_result(expected: QueryResult, actual: QueryResult, *, ordered: bool) -> bool:
    """Whether two results have the same rows, in the same order or in any order.

    The names of the columns are ignored, but their number and order matter. Rows are compared as
    multisets unless `ordered` is True. Whole numbers are compared exactly, and 1 equals 1.0; other
    floats may differ by 1e-9 of the larger one. NULL equals NULL and nothing else. A failed query
    equals nothing, not even another failed query.

    Args:
        expected: The result of the reference query.
        actual: The result of the query under test.
        ordered: Whether the order of the rows matters. `ReferenceAnswer` also knows which rows are
            tied under the ORDER BY of the reference query.

    Example:
        >>> a, b = QueryResult(((1,), (2,))), QueryResult(((2.0,), (1,)))
        >>> same_result(a, b, ordered=False), same_result(a, b, ordered=True)
        (True, False)
    """
    if not (expected.ran and actual.ran) or len(expected.rows) != len(actual.rows):
        return False
    columns = {expected.n_columns, actual.n_columns} - {None}
    if len(columns) > 1:
        return False
    left, right = expected.rows, actual.rows
    if ordered:
        return all(map(_same_row, left, right))
    return _same_in_any_order(left, right)


def are_among(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether each row has a row of its own among the others, which may be more.

    Args:
        rows: Rows, compared as in `same_result`.
        others: The rows to look among.

    Example:
        >>> are_among([(2,)], [(1,), (2,)]), are_among([(2,), (2,)], [(1,), (2,)])
        (True, False)
    """
    if len(rows) == len(others):
        return _same_in_any_order(rows, others)
    return _matched_with_rounding(rows, others)


def is_ordered(query: str) -> bool:
    """Whether a query sorts its result, that is, has ORDER BY outside all parentheses.

    Args:
        query: One SQL statement; it is scanned, not parsed, so that invalid SQL is accepted.

    Example:
        >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)")
        False
        >>> is_ordered("select a from t order  by a")
        True
    """
    outer, depth = [], 0
    for part in _TOKENS.split(query):
        if part in ("(", ")"):
            depth += 1 if part == "(" else -1
            outer.append(" ")
        elif part.startswith(("--", "/*")):
            outer.append(" ")
        elif depth == 0 and not part.startswith(("'", '"', "`", "[")):
            outer.append(part)
    return re.search(r"\border\s+by\b", "".join(outer), re.IGNORECASE) is not None


def _same_in_any_order(left: Sequence[Row], right: Sequence[Row]) -> bool:
    # numbers that are equal up to rounding have no common key, all else has
    parts: tuple[defaultdict[_Key, list[_Numbers]], ...] = defaultdict(list), defaultdict(list)
    for rows, part in zip((left, right), parts, strict=True):
        for row in rows:
            part[tuple(map(_key, row))].append(
                tuple(value for value in row if isinstance(value, int | float))
            )
    return parts[0].keys() == parts[1].keys() and all(
        _same_numbers(rows, parts[1][key]) for key, rows in parts[0].items()
    )


def _key(value: SqlValue) -> tuple[bool, str | None]:
    """Return what tells NULL, texts and numbers apart, and one text from another."""
    return value is None, value if isinstance(value, str) else None


def _same_numbers(left: Sequence[_Numbers], right: Sequence[_Numbers]) -> bool:
    if len(left) != len(right):
        return False
    if all(map(_same_row, sorted(left), sorted(right))):
        return True
    # rounding may have changed the order of two rows
    return _matched_with_rounding(left, right)


def _matched_with_rounding(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    rest = list((Counter(others) - Counter(rows)).elements())
    missing = list((Counter(rows) - Counter(others)).elements())
    if missing and len(rest) > _MOST_TRIED:
        return False
    for row in missing:
        at = next((i for i, other in enumerate(rest) if _same_row(row, other)), None)
        if at is None:
            return False
        del rest[at]
    return True


def _same_row(left: Row, right: Row) -> bool:
    return len(left) == len(right) and all(map(_same_value, left, right))


def _same_value(left: SqlValue, right: SqlValue) -> bool:
    if left == right or not isinstance(left, int | float) or not isinstance(right, int | float):
        return left == right
    if all(isinstance(v, int) or (v.is_integer() and abs(v) < _EXACT) for v in (left, right)):
        return False
    return math.isclose(left, right, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
