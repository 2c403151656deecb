"""Which results are right: rows that tie under the reference order may come in any order."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("sqlglot")

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


def test_an_order_that_cannot_be_written_as_ranks_is_strict(runner: QueryRunner):
    answer = ReferenceAnswer.of(runner, "SELECT name FROM g ORDER BY points LIMIT 2 OFFSET (1 + 0)")
    assert answer.tied is None
    assert answer.accepts(answer.result)
    assert not answer.accepts(QueryResult(answer.result.rows[::-1]))


def test_nothing_accepts_a_failed_query(runner: QueryRunner):
    for query in ("SELECT name FROM g ORDER BY points", "SELECT name FROM g", "no SQL"):
        assert not ReferenceAnswer.of(runner, query).accepts(runner.run("no SQL"))
