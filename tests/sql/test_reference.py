"""Which results are right: rows that tie under the reference order may come in any order."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from synque_select.sql.reference import ReferenceAnswer
from synque_select.sql.results import QueryResult
from synque_select.sql.runner import QueryRunner

ROWS = [("Ada", 3, "x"), ("Bo", 1, "X"), ("Cy", 3, "y"), ("Di", None, None), ("Ed", 1, "x")]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory):
    path: Path = tmp_path_factory.mktemp("sql") / "games.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE g (name, points, team)")
        connection.executemany("INSERT INTO g VALUES (?, ?, ?)", ROWS)
        connection.execute("CREATE TABLE folded (label COLLATE NOCASE)")
        connection.executemany("INSERT INTO folded VALUES (?)", [("b",), ("A",), ("a",), ("B",)])
    connection.close()
    with QueryRunner(path) as runner:
        yield runner


@pytest.mark.parametrize(
    ("reference", "other", "is_right"),
    [
        ("SELECT name FROM g ORDER BY points", "SELECT name FROM g ORDER BY points, name DESC", 1),
        ("SELECT name FROM g ORDER BY points", "SELECT name FROM g ORDER BY points DESC", 0),
        ("SELECT name FROM g ORDER BY points", "SELECT name FROM g ORDER BY name", 0),
        # NULLs tie with each other only, and stand first
        ("SELECT name FROM g ORDER BY points", "SELECT name FROM g ORDER BY points NULLS LAST", 0),
        ("SELECT name FROM g", "SELECT name FROM g ORDER BY name DESC", 1),
        # by number, alias, expression, hidden column, aggregate and collation
        ("SELECT name, points FROM g ORDER BY 2",
         "SELECT name, points FROM g ORDER BY 2, 1 DESC", 1),
        ("SELECT name, points AS p FROM g ORDER BY p DESC",
         "SELECT name, points FROM g ORDER BY points DESC, name DESC", 1),
        ("SELECT name FROM g ORDER BY -points",
         "SELECT name FROM g ORDER BY -points, name DESC", 1),
        ("SELECT team, COUNT(*) FROM g GROUP BY team ORDER BY COUNT(*)",
         "SELECT team, COUNT(*) FROM g GROUP BY team ORDER BY COUNT(*), team DESC", 1),
        ("SELECT team, COUNT(*) FROM g GROUP BY team ORDER BY COUNT(*)",
         "SELECT team, COUNT(*) FROM g GROUP BY team ORDER BY COUNT(*) DESC", 0),
        ("SELECT name FROM g ORDER BY team COLLATE NOCASE",
         "SELECT name FROM g ORDER BY team COLLATE NOCASE, name DESC", 1),
        ("SELECT name FROM g ORDER BY team", "SELECT name FROM g ORDER BY team COLLATE NOCASE", 0),
        # a limit that cuts through tied rows, and one that does not
        ("SELECT name FROM g ORDER BY points DESC LIMIT 1",
         "SELECT name FROM g ORDER BY points DESC, name DESC LIMIT 1", 1),
        ("SELECT name FROM g ORDER BY points DESC LIMIT 1", "SELECT 'Bo'", 0),
        ("SELECT name FROM g ORDER BY points DESC LIMIT 2",
         "SELECT 'Ada' UNION ALL SELECT 'Ada'", 0),
        ("SELECT name FROM g ORDER BY points DESC LIMIT 2 OFFSET 1",
         "SELECT 'Ada' UNION ALL SELECT 'Ed'", 1),
        ("SELECT name FROM g ORDER BY points DESC LIMIT 2 OFFSET 1",
         "SELECT 'Ed' UNION ALL SELECT 'Ada'", 0),
        # SQLite takes each of these for 1 or 2
        *((f"SELECT name FROM g ORDER BY points DESC LIMIT 1 OFFSET {offset}",
           f"SELECT '{name}'", is_right)
          for offset, right in [("'1'", "Ada"), ("1.0", "Ada"), ("'0'||1", "Ada"), ("'2e0'", "Bo")]
          for name, is_right in [(right, 1), ("Di", 0)]),
        ("SELECT DISTINCT points FROM g ORDER BY points DESC LIMIT 2",
         "SELECT 3 UNION ALL SELECT 1", 1),
        # compound queries, common table expressions
        ("SELECT name, 1 FROM g UNION SELECT team, 2 FROM g ORDER BY 2",
         "SELECT name, 1 FROM g UNION SELECT team, 2 FROM g ORDER BY 2, 1 DESC", 1),
        ("WITH c AS (SELECT * FROM g) SELECT name FROM c ORDER BY points",
         "SELECT name FROM g ORDER BY points, name DESC", 1),
        # columns are counted, names are not compared
        ("SELECT name FROM g ORDER BY points", "SELECT name, name FROM g ORDER BY points", 0),
        ("SELECT name FROM g ORDER BY points", "SELECT name AS n FROM g ORDER BY points", 1),
    ],
)  # fmt: skip
def test_tied_rows_may_stand_in_any_order(
    runner: QueryRunner, reference: str, other: str, is_right: bool
):
    answer = ReferenceAnswer.of(runner, reference)
    assert answer.accepts(answer.result)
    actual = runner.run(other)
    assert actual.ran
    assert answer.accepts(actual) is bool(is_right)


def both_orders(runner: QueryRunner, query: str) -> list[list[str]]:
    """The first column of the rows in the two orders of a query that differ in tied rows only."""
    answer = ReferenceAnswer.of(runner, query)
    assert answer.tied is not None
    return [sorted(str(row[0]) for row in group) for group in answer.tied]


@pytest.mark.parametrize(
    ("query", "groups"),
    [
        # a whole term is an alias before it is a column; in an expression it is the column
        ("SELECT name, -points AS points FROM g ORDER BY points",
         [["Di"], ["Ada", "Cy"], ["Bo", "Ed"]]),
        ("SELECT name, -points AS points FROM g ORDER BY points + 0",
         [["Di"], ["Bo", "Ed"], ["Ada", "Cy"]]),
        ("SELECT name, -points AS points FROM g ORDER BY (points) COLLATE NOCASE",
         [["Di"], ["Ada", "Cy"], ["Bo", "Ed"]]),
        ("SELECT name, -points AS p FROM g ORDER BY p + 0",
         [["Di"], ["Ada", "Cy"], ["Bo", "Ed"]]),
        ('SELECT name, -points AS p FROM g ORDER BY "p" + 0',
         [["Di"], ["Ada", "Cy"], ["Bo", "Ed"]]),
        ('SELECT name FROM g ORDER BY "nothing" LIMIT 5', [["Ada", "Bo", "Cy", "Di", "Ed"]]),
        ("SELECT name AS points, points AS name FROM g ORDER BY name",
         [["Di"], ["Bo", "Ed"], ["Ada", "Cy"]]),
        ("SELECT name, points AS x, -points AS x FROM g ORDER BY x",
         [["Di"], ["Bo", "Ed"], ["Ada", "Cy"]]),
        ("SELECT name, 0 AS synque_rank FROM g ORDER BY synque_rank, points",
         [["Di"], ["Bo", "Ed"], ["Ada", "Cy"]]),
        # aggregates whose alias is that of a column, and window functions
        ("SELECT team, SUM(points) points FROM g GROUP BY team ORDER BY points DESC",
         [["x"], ["y"], ["X"], ["None"]]),
        ("SELECT team, COUNT(*) n FROM g GROUP BY team ORDER BY -n",
         [["x"], ["None", "X", "y"]]),
        ("SELECT name, RANK() OVER (ORDER BY points DESC) AS r FROM g ORDER BY r",
         [["Ada", "Cy"], ["Bo", "Ed"], ["Di"]]),
        ("SELECT name FROM g ORDER BY DENSE_RANK() OVER (ORDER BY points) DESC",
         [["Ada", "Cy"], ["Bo", "Ed"], ["Di"]]),
        ("SELECT name, SUM(points) OVER (PARTITION BY team) s FROM g ORDER BY s DESC",
         [["Ada", "Ed"], ["Cy"], ["Bo"], ["Di"]]),
        # directions, NULLs, numbers, collations
        ("SELECT name FROM g ORDER BY points DESC NULLS FIRST",
         [["Di"], ["Ada", "Cy"], ["Bo", "Ed"]]),
        ("SELECT name FROM g ORDER BY points NULLS LAST", [["Bo", "Ed"], ["Ada", "Cy"], ["Di"]]),
        ("SELECT name, points FROM g ORDER BY (2) DESC", [["Ada", "Cy"], ["Bo", "Ed"], ["Di"]]),
        ("SELECT *, points AS p FROM g ORDER BY 4, team COLLATE NOCASE",
         [["Di"], ["Bo", "Ed"], ["Ada"], ["Cy"]]),
        ("SELECT label FROM folded ORDER BY label", [["A", "a"], ["B", "b"]]),
        ("SELECT name FROM g ORDER BY CASE WHEN points > 2 THEN 1 ELSE 2 END",
         [["Ada", "Cy"], ["Bo", "Di", "Ed"]]),
        # compound queries, subqueries with an order of their own, comments at the end
        ("SELECT name, 1 AS n FROM g UNION ALL SELECT team, 2 FROM g ORDER BY n",
         [["Ada", "Bo", "Cy", "Di", "Ed"], ["None", "X", "x", "x", "y"]]),
        ("SELECT name FROM (SELECT * FROM g ORDER BY name DESC LIMIT 3) ORDER BY points",
         [["Di"], ["Ed"], ["Cy"]]),
        ("WITH c AS (SELECT * FROM g ORDER BY name LIMIT 3) SELECT name FROM c ORDER BY points;",
         [["Bo"], ["Ada", "Cy"]]),
        ("SELECT name FROM g ORDER BY points -- then by nothing", [["Di"], ["Bo", "Ed"],
         ["Ada", "Cy"]]),
        ("SELECT name FROM g ORDER BY points /* no end", [["Di"], ["Bo", "Ed"], ["Ada", "Cy"]]),
        # which rows a limit may cut
        ("SELECT name FROM g ORDER BY points LIMIT 1 + 1 OFFSET (SELECT 1)",
         [["Di"], ["Bo", "Ed"]]),
        ("SELECT name FROM g ORDER BY points LIMIT 1, 2", [["Di"], ["Bo", "Ed"]]),
        ("SELECT name FROM g LIMIT 2", [["Ada", "Bo", "Cy", "Di", "Ed"]]),
    ],
)  # fmt: skip
def test_rows_tie_where_sqlite_says_so(runner: QueryRunner, query: str, groups: list[list[str]]):
    assert both_orders(runner, query) == groups
    answer = ReferenceAnswer.of(runner, query)
    assert answer.accepts(answer.result)


def test_a_tie_that_goes_on_beyond_the_limit(tmp_path: Path):
    path = tmp_path / "long.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE t (x, y)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i // 500, i) for i in range(2000)])
    connection.close()
    with QueryRunner(path) as runner:
        answer = ReferenceAnswer.of(runner, "SELECT y FROM t ORDER BY x LIMIT 1 OFFSET 1")
        assert answer.tied is not None
        assert answer.accepts(QueryResult(((499,),)))
        assert not answer.accepts(QueryResult(((500,),)))
        last = ReferenceAnswer.of(runner, "SELECT y FROM t ORDER BY x DESC LIMIT -1 OFFSET 1999")
        assert last.accepts(QueryResult(((0,),)))
        assert not last.accepts(QueryResult(((500,),)))
    # more rows than are allowed: only the order that was seen is known to be right
    with QueryRunner(path, max_rows=300) as runner:
        answer = ReferenceAnswer.of(runner, "SELECT y FROM t ORDER BY x LIMIT 2")
        assert answer.tied is None
        assert answer.ties_are_unknown
        assert answer.accepts(answer.result)
        assert not answer.accepts(QueryResult(answer.result.rows[::-1]))
        assert not ReferenceAnswer.of(runner, "SELECT y FROM t LIMIT 2").ties_are_unknown
        assert not ReferenceAnswer.of(runner, "SELECT y FROM t WHERE y < 9").ties_are_unknown
    # the first group ends before that number of rows
    with QueryRunner(path, max_rows=600) as runner:
        answer = ReferenceAnswer.of(runner, "SELECT y FROM t ORDER BY x LIMIT 2")
        assert not answer.ties_are_unknown
        assert answer.accepts(QueryResult(((499,), (7,))))
        assert not answer.accepts(QueryResult(((500,), (7,))))


@pytest.mark.parametrize(
    ("reference", "other", "is_right"),
    [
        ("SELECT gene, p FROM s ORDER BY p LIMIT 5",
         "SELECT gene, p * 3 FROM s ORDER BY p LIMIT 5", False),
        ("SELECT gene, p FROM s ORDER BY p LIMIT 5", "SELECT gene, 0 FROM s LIMIT 5", False),
        ("SELECT gene, p FROM s ORDER BY p LIMIT 5", "SELECT gene, p / 3 * 3 FROM s LIMIT 5", True),
        # the largest number of the column is not in the result
        ("SELECT p - p FROM s ORDER BY p DESC LIMIT 1", "SELECT 1e-20", False),
        ("SELECT p - 0.1 FROM s WHERE p > 0.005 ORDER BY p DESC LIMIT 2",
         "SELECT 1e-17 UNION ALL SELECT -0.09", True),
    ],
)  # fmt: skip
def test_small_numbers_do_not_count_as_0(
    tmp_path: Path, reference: str, other: str, is_right: bool
):
    path = tmp_path / "genes.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE s (gene, p REAL)")
        connection.executemany(
            "INSERT INTO s VALUES (?, ?)", [(f"g{i}", float(f"1e{i - 40}")) for i in range(40)]
        )
    connection.close()
    with QueryRunner(path) as runner:
        answer = ReferenceAnswer.of(runner, reference)
        assert answer.tied is not None
        assert answer.accepts(runner.run(other)) is is_right


def test_without_an_order_a_limit_may_return_any_rows(runner: QueryRunner):
    answer = ReferenceAnswer.of(runner, "SELECT name FROM g LIMIT 2")
    assert answer.accepts(runner.run("SELECT name FROM g ORDER BY name DESC LIMIT 2"))
    assert not answer.accepts(runner.run("SELECT name FROM g"))
    assert not answer.accepts(runner.run("SELECT 'Ada' UNION ALL SELECT 'Ada'"))
    assert not answer.accepts(runner.run("SELECT name FROM g WHERE name = 'Ada'"))


def test_a_query_that_returns_something_else_each_time_has_no_known_ties(runner: QueryRunner):
    answer = ReferenceAnswer.of(runner, "SELECT random() FROM g ORDER BY 1")
    assert answer.tied is None
    assert answer.accepts(answer.result)


def test_nothing_accepts_a_failed_query(runner: QueryRunner):
    for query in ("SELECT name FROM g ORDER BY points", "SELECT name FROM g", "no SQL"):
        assert not ReferenceAnswer.of(runner, query).accepts(runner.run("no SQL"))


@pytest.mark.parametrize(
    ("query", "is_unknown"),
    [
        ("SELECT MAX(points) FROM (SELECT points FROM g LIMIT 2)", True),
        ("WITH c AS (SELECT points FROM g LIMIT 2) SELECT SUM(points) FROM c", True),
        ("SELECT COUNT(*) FROM (SELECT points FROM g LIMIT 2)", False),
        ("SELECT MAX(points) FROM (SELECT points FROM g LIMIT 5)", False),
        ("SELECT team FROM g WHERE name = (SELECT name FROM g ORDER BY points DESC LIMIT 1)", True),
        # tied rows that are cut off, but the result is the same with any of them
        ("SELECT points FROM g WHERE name = (SELECT name FROM g ORDER BY points DESC LIMIT 1)",
         False),
        ("SELECT name FROM g WHERE name IN (SELECT name FROM g ORDER BY points DESC LIMIT 2)",
         False),
        ("SELECT name FROM g WHERE name IN (SELECT name FROM g ORDER BY points DESC LIMIT 3)",
         True),
        ("WITH c AS (SELECT name FROM g UNION SELECT team FROM g LIMIT 2) SELECT * FROM c", True),
        ("WITH c AS (SELECT name, 1 AS n FROM g UNION SELECT team, 2 FROM g ORDER BY n LIMIT 2) "
         "SELECT name FROM c", True),
        ("WITH c AS (SELECT DISTINCT team FROM g ORDER BY team LIMIT 2) SELECT * FROM c", False),
        ("SELECT a.name, (SELECT b.name FROM g b WHERE b.points = a.points LIMIT 1) FROM g a",
         True),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM g LIMIT 1)", False),
        ("SELECT GROUP_CONCAT(name) FROM g", True),
        ("SELECT random()", True),
        ("SELECT name, ROW_NUMBER() OVER (ORDER BY points DESC) FROM g", True),
        ("SELECT name, row_number ( ) over (ORDER BY points, name) FROM g", False),
        ("SELECT name, RANK() OVER (ORDER BY points) FROM g", False),
        ("SELECT name, SUM(points) OVER (ORDER BY points) FROM g", False),
        ("SELECT points, LAG(points) OVER (ORDER BY points) FROM g", False),
        ("SELECT name, LAG(name) OVER (ORDER BY points ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) "
         "FROM g", True),
        ("SELECT name FROM (SELECT name, ROW_NUMBER() OVER (PARTITION BY points ORDER BY points) "
         "AS r FROM g) WHERE r = 1", True),
        ("SELECT FIRST_VALUE(name) OVER (PARTITION BY points) FROM g", True),
        ("SELECT FIRST_VALUE(points) OVER (PARTITION BY points) FROM g", False),
        # windows that are named, and frames and functions that go by rows
        ("SELECT name, ROW_NUMBER() OVER w FROM g WINDOW w AS (ORDER BY points)", True),
        ("SELECT name, LAG(name) OVER v FROM g WINDOW w AS (PARTITION BY team), "
         "v AS (w ORDER BY points IS NULL)", True),
        ("SELECT name, RANK() OVER w, SUM(points) OVER w FROM g WINDOW w AS (ORDER BY points)",
         False),
        ("SELECT name FROM (SELECT name, ROW_NUMBER() OVER w AS r FROM g "
         "WINDOW w AS (PARTITION BY points ORDER BY team IS NULL)) WHERE r = 1", True),
        ("SELECT name, LAST_VALUE(name) OVER (ORDER BY points) FROM g", True),
        ("SELECT name, LAST_VALUE(points) OVER (ORDER BY points) FROM g", False),
        ("SELECT name, NTH_VALUE(name, 2) OVER (ORDER BY points) FROM g", True),
        ("SELECT name, NTH_VALUE(points, 2) OVER (ORDER BY points) FROM g", False),
        ("SELECT name, SUM(points) OVER (ORDER BY points ROWS UNBOUNDED PRECEDING) FROM g", True),
        ("SELECT name, SUM(points) OVER (ORDER BY name ROWS UNBOUNDED PRECEDING) FROM g", False),
        # columns that are neither grouped nor aggregated: one of the group's rows gives the value
        ("SELECT team, name, COUNT(*) FROM g GROUP BY team", True),
        ("SELECT points, name FROM g GROUP BY points ORDER BY name", True),
        ("SELECT name, COUNT(*) FROM g", True),
        ("SELECT points, points + 1, COUNT(*) FROM g GROUP BY points", False),
        ("SELECT name, team FROM g GROUP BY name, team", False),
        ("SELECT team, name, MAX(points) FROM g WHERE team = 'x' GROUP BY team", False),
        ("SELECT name, MAX(points) FROM g", True),
        ("SELECT team, GROUP_CONCAT(name) FROM g GROUP BY team", True),
        ("SELECT team, GROUP_CONCAT(team) FROM g GROUP BY team", False),
        # tables in another order have no row numbers: what they give is not compared
        ("SELECT rowid, name FROM g", False),
        ("SELECT name FROM g ORDER BY random()", True),
        ("SELECT team FROM g WHERE team IN (SELECT team FROM g ORDER BY Random /* ! */ ())", True),
        ("SELECT 'random()', name AS random FROM g WHERE name IN (name) -- random()", False),
        ("SELECT 'a (SELECT 1 LIMIT 1)', (SELECT name FROM g ORDER BY name LIMIT 1)", False),
    ],
)  # fmt: skip
def test_what_depends_on_rows_that_sqlite_may_choose_is_unknown(
    runner: QueryRunner, query: str, is_unknown: bool
):
    answer = ReferenceAnswer.of(runner, query)
    assert answer.result.ran
    assert answer.ties_are_unknown is is_unknown
    assert answer.accepts(answer.result)


def test_a_limit_over_more_rows_than_can_be_read(tmp_path: Path):
    path = tmp_path / "big.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE t (x, y REAL, z COLLATE NOCASE)")
        rows = [(i, i * 0.37, ["a", "b", "A", None, b"a"][i % 5]) for i in range(2000)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    connection.close()

    def accepted(query: str, *rows: tuple[object, ...]) -> bool:
        answer = ReferenceAnswer.of(runner, query)
        assert not answer.ties_are_unknown
        return answer.accepts(QueryResult(rows))  # type: ignore[arg-type]

    with QueryRunner(path, max_rows=300) as runner:
        three = "SELECT x FROM t -- any\n LIMIT 3"
        assert accepted(three, (1999,), (5,), (7.0,))
        assert not accepted(three, (1999,), (5,), (5,))
        assert not accepted(three, (2000,), (5,), (7,))
        assert not accepted(three, (1999,), (5,))
        assert not accepted(three, ("1999",), (5,), (7,))
        assert not accepted(three, (math.inf,), (-math.inf,), (2**63 - 1,))
        two = "SELECT z, y FROM t LIMIT 2"
        assert accepted(two, ("A", 7 * 0.37 * (1 + 1e-12)), (None, 3 * 0.37))
        assert accepted(two, (b"a", 4 * 0.37), ("a", 0))
        assert not accepted(two, ("a", 7 * 0.37), (None, 3 * 0.37))
        assert not accepted(two, ("a", 4 * 0.37), ("a", 0))
        many = ReferenceAnswer.of(runner, "SELECT x FROM t LIMIT 250")
        assert many.accepts(QueryResult(tuple((i,) for i in range(1000, 1250))))
        assert not many.accepts(QueryResult(tuple((i,) for i in range(1800, 2050))))
        # many equal rows
        assert accepted("SELECT z FROM t LIMIT 2", ("A",), ("A",))
        assert accepted("WITH c AS (SELECT x FROM t) SELECT x FROM c LIMIT 2", (9,), (3,))
    # each row takes a while: which others there are is not found out in time
    with QueryRunner(path, max_rows=300, time_limit_s=0.05) as runner:
        slow = "SELECT a.x FROM t a, t b, t c WHERE a.x + b.x + c.x >= 0 LIMIT 2"
        assert ReferenceAnswer.of(runner, slow).ties_are_unknown
