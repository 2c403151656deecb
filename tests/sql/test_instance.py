"""Made-up rows: every query finds its own, and queries that differ return different rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("sqlglot")

from synque_select.sql.instance import write_made_up_database
from synque_select.sql.runner import QueryRunner, same_result
from synque_select.sql.text import infer_schema

QUERIES = [
    "SELECT name FROM apps WHERE rating > 4.5 AND category = 'Games'",
    "SELECT COUNT(*) FROM apps WHERE name LIKE '%chess%'",
    "SELECT T2.text FROM apps AS T1 JOIN reviews AS T2 ON T1.id = T2.app WHERE T1.name = 'Go'",
    "SELECT name FROM apps WHERE rating BETWEEN 2 AND 3",
    "SELECT AVG(rating) FROM apps WHERE category IN ('Tools', 'Books')",
    "SELECT name FROM apps WHERE rating < -1",
    "SELECT text FROM reviews WHERE app != 7",
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "up.sqlite"
    return write_made_up_database(path, infer_schema([QUERIES]), QUERIES, seed=0)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_a_row_that_meets_its_conditions(query: str, database: Path):
    with QueryRunner(database) as runner:
        rows = runner.run(query).rows
    assert rows
    assert any(value for row in rows for value in row)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (QUERIES[0], QUERIES[0].replace(" AND category = 'Games'", "")),
        (QUERIES[1], QUERIES[1].replace("chess", "go")),
        (QUERIES[2], QUERIES[2].replace("ON T1.id = T2.app", "ON T1.rating = T2.app")),
        (QUERIES[4], QUERIES[4].replace("AVG", "SUM")),
    ],
)
def test_a_wrong_query_that_an_empty_database_takes_for_right(
    given: str, wrong: str, database: Path
):
    with QueryRunner(database) as runner:
        assert not same_result(runner.run(given), runner.run(wrong), ordered=False)


def test_equal_queries_and_seeds_give_equal_rows(database: Path, tmp_path: Path):
    schema = infer_schema([QUERIES])

    def rows(path: Path) -> list[list[object]]:
        connection = sqlite3.connect(path)
        try:
            return [connection.execute(f"SELECT * FROM {t}").fetchall() for t in sorted(schema)]
        finally:
            connection.close()

    again = write_made_up_database(tmp_path / "a.sqlite", schema, QUERIES, seed=0)
    other = write_made_up_database(tmp_path / "b.sqlite", schema, QUERIES, seed=1)
    assert rows(again) == rows(database) != rows(other)
    assert {path.name for path in tmp_path.iterdir()} == {"a.sqlite", "b.sqlite"}


def test_queries_that_cannot_be_parsed_or_name_other_tables_add_nothing(tmp_path: Path):
    schema = {"t": ["a"]}
    path = write_made_up_database(
        tmp_path / "t.sqlite", schema, ["SELEC a FRM", "SELECT b FROM u WHERE b = 1"], seed=0
    )
    with QueryRunner(path) as runner:
        assert runner.run("SELECT * FROM t").rows == ()
