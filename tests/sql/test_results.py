"""Results are compared value by value, as multisets or in order."""

from __future__ import annotations

import math
import time

import pytest

from synque_select.sql.outline import is_ordered
from synque_select.sql.results import QueryResult, are_among, same_result


@pytest.mark.parametrize(
    ("left", "right", "ordered", "same"),
    [
        (((1,), (2,)), ((2,), (1,)), False, True),
        (((1,), (2,)), ((2,), (1,)), True, False),
        (((1,), (1,), (2,)), ((1,), (2,), (2,)), False, False),
        (((1,), (1,)), ((1,),), False, False),
        (((1, "a"),), (("a", 1),), False, False),
        (((0.1 + 0.2,),), ((0.3,),), True, True),
        (((1,),), ((1.0,),), True, True),
        ((("1",),), ((1,),), True, False),
        (((None,),), ((0,),), True, False),
        ((), (), True, True),
        (((2**62,),), ((2**62 + 1,),), True, False),
        (((3_100_000_000_010,),), ((3_100_000_000_010.0,),), False, True),
        (((1234567891.0,),), ((1234567892.0,),), False, False),
        (((1234567891.0,),), ((1234567891.0000002,),), False, True),
        (((2**53 + 1,),), ((2.0**53,),), False, False),
        (((2**53,),), ((2.0**53,),), False, True),
        (((2.0**60,),), ((2.0**60 * (1 + 1e-12),),), False, True),
        (((2**60,),), ((2.0**60 * (1 + 1e-12),),), False, False),
        (((3,),), ((2.9999999999,),), False, True),
        # 0 is 0 only, also where all values are tiny
        (((1e-13,),), ((0,),), False, False),
        (((1.6e-19,),), ((9.1e-31,),), False, False),
        (((1.6e-19,),), ((1.6e-19 * (1 + 1e-12),),), False, True),
        (((1e-300,),), ((0.0,),), True, False),
        # but not what is left where terms of the size of the other values cancel
        (((7.5,), (0,)), ((0.1 + 0.2 - 0.3,), (7.5,)), False, True),
        (((0,), (7.5,)), ((0.1 + 0.2 - 0.3,), (7.5,)), True, True),
        (((0,), (7.5,)), ((-5e-14,), (7.5,)), False, True),
        (((0,), (0.5,)), ((1e-13,), (0.5,)), False, False),
        (((0,), (0.5,)), ((1e-13,), (1e9,)), False, False),
        # where small numbers are expected, none is taken for a trace
        (((0.1 + 0.2 - 0.3,), (7.5,)), ((0,), (7.5,)), True, False),
        (((1e-30,), (0.5,)), ((3e-30,), (0.5,)), True, False),
        (((1e-30,), (0.5,)), ((1e-30 * (1 + 1e-12),), (0.5,)), True, True),
        (((0,), (1e-30,), (0.5,)), ((1e-30,), (1e-30,), (0.5,)), False, False),
        (((1e-20, 7.5),), ((0, 7.5),), False, False),
        (((math.inf,),), ((math.inf,),), False, True),
        (((math.inf,),), ((-math.inf,),), False, False),
        (((math.inf,),), ((2**62,),), False, False),
        (((math.inf,), (1e-30,)), ((math.inf,), (0,)), False, False),
        (((0.0,),), ((-0.0,),), False, True),
        ((("x'ff'",),), ((b"\xff",),), False, False),
        (((b"\xff",),), ((b"\xff",),), False, True),
        (((b"a",), ("a",)), (("a",), (b"a",)), False, True),
        ((("\udcff",),), (("\\xff",),), False, False),
        (((1,),), ((True,),), False, True),
        (((1, 2),), ((1,),), True, False),
        (((1, 2),), ((1,),), False, False),
        # rounding changes which of two rows comes first
        (((0.3, 1), (0.1 + 0.2, 2)), ((0.1 + 0.2, 1), (0.3, 2)), False, True),
        (((0.3, 1), (0.1 + 0.2, 2)), ((0.1 + 0.2, 1), (0.3, 3)), False, False),
        (((None, 1.5), ("a", 1.5)), (("a", 1.5), (None, 1.5)), False, True),
    ],
)
def test_results_are_compared_as_multisets_or_in_order(left, right, ordered: bool, same: bool):
    assert same_result(QueryResult(left), QueryResult(right), ordered=ordered) is same


def test_a_failed_query_does_not_even_equal_itself():
    failed = QueryResult(error="no such table")
    assert not same_result(failed, failed, ordered=False)
    assert not same_result(QueryResult(), failed, ordered=False)


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n by a limit 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT ROW_NUMBER() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'order by' FROM t", False),
        ("SELECT a FROM t WHERE b = 'it''s (' ORDER BY a", True),
        ('SELECT "order by" FROM t -- ORDER BY a', False),
        ("SELECT a FROM t /* ( */ ORDER /* by */ BY a", True),
        ("SELECT a FROM t /* ORDER BY a */", False),
        ("SELECT [order by] FROM t", False),
        ("SELECT [it's] FROM t ORDER BY [it's]", True),
        ("SELECT [a FROM t ORDER BY b", False),
    ],
)
def test_only_the_outermost_order_by_makes_a_query_ordered(query: str, ordered: bool):
    assert is_ordered(query) is ordered


def test_empty_results_differ_by_their_number_of_columns():
    one, two = QueryResult(n_columns=1), QueryResult(n_columns=2)
    assert same_result(one, one, ordered=False)
    assert not same_result(one, two, ordered=False)


@pytest.mark.parametrize(
    ("rows", "among"),
    [
        ([], True),
        ([(1,)], True),
        ([(1.0,), (None,)], True),
        ([(0.3,)], True),
        ([(1,), (1,)], False),
        ([(None,), (None,)], False),
        ([("1",)], False),
    ],
)
def test_each_row_needs_a_row_of_its_own(rows, among: bool):
    assert are_among(rows, [(1,), (0.1 + 0.2,), (None,), ("a",)]) is among


def test_thousands_of_rows_whose_sums_were_rounded_otherwise_are_the_same():
    one, two = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert one != two
    n = 20_000
    left = [(one if i % 2 else two, i) for i in range(n)]
    right = [(two if i % 2 else one, i) for i in reversed(range(n))]
    assert same_result(QueryResult(tuple(left)), QueryResult(tuple(right)), ordered=False)
    right[7] = (right[7][0], right[8][1])
    assert not same_result(QueryResult(tuple(left)), QueryResult(tuple(right)), ordered=False)
    # whole numbers within the tolerance are not the same
    large = [(10**12 + i % 2, i) for i in range(3000)]
    other = [(10**12 + (i + 1) % 2, i) for i in range(3000)]
    assert not same_result(QueryResult(tuple(large)), QueryResult(tuple(other)), ordered=False)


def test_a_few_rounded_rows_are_found_among_many():
    many = [(i * 0.37,) for i in range(5000)]
    rows = [(value * (1 + 1e-12),) for (value,) in many[1:4]]
    assert are_among(rows, many)
    assert not are_among([*rows, (0.5,)], many)


@pytest.mark.parametrize("part", ["[", "'", '"', "`", "(", "--", "/*", "['", "ORDER BY ("])
def test_scanning_a_long_query_takes_time_in_proportion(part: str):
    started = time.process_time()
    is_ordered(part * 50_000)
    assert time.process_time() - started < 1
