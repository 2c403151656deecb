"""Results of queries, and when two are the same."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, starmap, zip_longest
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from synque_select.sql.worker import SqlValue

    _Numbers: TypeAlias = tuple[int | float, ...]
    _Key: TypeAlias = tuple[tuple[bool, str | bytes | None], ...]

__all__ = [
    "RELATIVE_TOLERANCE",
    "QueryResult",
    "Row",
    "are_among",
    "same_result",
    "without_traces",
]

Row: TypeAlias = "tuple[SqlValue, ...]"

RELATIVE_TOLERANCE = 1e-9
"""The order of summation, which SQLite leaves open, changes the last digits of a float sum."""
# where the terms of a sum cancel, some fifty roundings of them may be left
_TRACE = 1e-14
# floats up to here hold every whole number exactly
_EXACT = 2**53
_MOST_TRIED = 1_000_000
# roundings of one number in a column that are compared with each other
_MOST_PAIRED = 64


@dataclass(frozen=True)
class QueryResult:
    """The rows that a query returned, or the error with which it failed.

    Args:
        rows: The rows of the result; empty if the query failed. A blob is bytes; a byte of a text
            that is not UTF-8 is half of a surrogate pair, as with `errors="surrogateescape"`.
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
    multisets unless `ordered` is True. Whole numbers are compared exactly, and 1 equals 1.0; floats
    with decimals, or from 2^53 on, may differ by 1e-9 of the larger one. So 0 equals 0 only; but
    where 0 is expected, a float of up to 1e-14 of the largest number expected in its column counts
    as 0, because a sum whose terms cancel leaves such traces. If the column is expected to hold
    numbers as small as that, such as p-values, none counts as 0. NULL equals NULL and nothing else,
    and a blob equals no text. A failed query equals nothing, not even another failed query.

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
    rows = without_traces(actual.rows, expected.rows)
    if ordered:
        return all(map(_same_row, expected.rows, rows))
    return _same_in_any_order(expected.rows, rows)


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


def without_traces(
    rows: Sequence[Row], expected: Sequence[Row], others: Iterable[Row] = ()
) -> list[Row]:
    """Return rows in which traces of rounding are 0.

    Args:
        rows: Rows of the result under test. A float of up to 1e-14 of the largest finite number
            expected in its column becomes 0, unless numbers as small as that are expected in it.
        expected: The rows of the reference query.
        others: More rows that are right, from which no size is taken.

    Example:
        >>> without_traces([(0.1 + 0.2 - 0.3, 1e-20)], [(0, 3e-20), (2.5, 1)])
        [(0.0, 1e-20)]
    """
    limits: defaultdict[int, float] = defaultdict(float)
    for row in expected:
        for column, value in enumerate(row):
            if isinstance(value, int | float) and math.isfinite(value):
                limits[column] = max(limits[column], _TRACE * abs(value))

    def is_small(column: int, value: SqlValue) -> bool:
        return isinstance(value, float) and 0 < abs(value) <= limits[column]

    # the terms of a sum are not known: only a 0 that is expected shows a trace
    for row in chain(expected, others):
        for column, value in enumerate(row):
            if is_small(column, value):
                limits[column] = 0.0

    def plain(column: int, value: SqlValue) -> SqlValue:
        return 0.0 if is_small(column, value) else value

    return [tuple(starmap(plain, enumerate(row))) for row in rows]


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


def _key(value: SqlValue) -> tuple[bool, str | bytes | None]:
    """Return what tells NULL, texts, blobs and numbers apart, and one text from another."""
    return value is None, value if isinstance(value, str | bytes) else None


def _same_numbers(left: Sequence[_Numbers], right: Sequence[_Numbers]) -> bool:
    if len(left) != len(right):
        return False
    if all(map(_same_row, sorted(left), sorted(right))):
        return True
    # rounding may have changed the order of two rows
    return _matched_with_rounding(left, right)


def _matched_with_rounding(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether each row has one of its own among the others that is equal up to rounding."""
    rest = list((Counter(others) - Counter(rows)).elements())
    missing = list((Counter(rows) - Counter(others)).elements())
    # rows that may be equal at all: their numbers are in the same groups of close numbers
    groups = _groups_of_numbers([*missing, *rest])
    pools: defaultdict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rest:
        pools[_group_of(row, groups)].append(row)
    wanted: defaultdict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in missing:
        wanted[_group_of(row, groups)].append(row)
    return all(_are_matched(part, pools[key]) for key, part in wanted.items())


def _are_matched(rows: Sequence[Row], pool: list[Row]) -> bool:
    if len(rows) > len(pool):
        return False
    columns = [list(set(column)) for column in zip(*rows, *pool, strict=True)]
    if all(
        len(values) <= _MOST_PAIRED and all(_same_value(a, b) for a in values for b in values)
        for values in columns
    ):
        return True  # any row equals any other
    if len(rows) * len(pool) > _MOST_TRIED:
        return False
    left = list(pool)
    for row in rows:
        at = next((i for i, other in enumerate(left) if _same_row(row, other)), None)
        if at is None:
            return False
        del left[at]
    return True


def _groups_of_numbers(rows: Sequence[Row]) -> list[dict[SqlValue, int]]:
    """For each column, put numbers into one group that are close to the next larger one."""
    groups: list[dict[SqlValue, int]] = []
    for column in zip_longest(*rows):
        numbers = sorted({value for value in column if isinstance(value, int | float)})
        group = 0
        of: dict[SqlValue, int] = {}
        for i, number in enumerate(numbers):
            group += i > 0 and not math.isclose(number, numbers[i - 1], rel_tol=RELATIVE_TOLERANCE)
            of[number] = group
        groups.append(of)
    return groups


def _group_of(row: Row, groups: Sequence[Mapping[SqlValue, int]]) -> tuple[object, ...]:
    return tuple(
        (of[value],) if isinstance(value, int | float) else value
        for value, of in zip(row, groups, strict=False)
    )


def _same_row(left: Row, right: Row) -> bool:
    return len(left) == len(right) and all(map(_same_value, left, right))


def _same_value(left: SqlValue, right: SqlValue) -> bool:
    if left == right or not isinstance(left, int | float) or not isinstance(right, int | float):
        return left == right
    is_exact = isinstance(left, int) or isinstance(right, int)
    is_exact = is_exact or max(abs(left), abs(right)) < _EXACT
    if is_exact and float(left).is_integer() and float(right).is_integer():
        return False
    return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE)
