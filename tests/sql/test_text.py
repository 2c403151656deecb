"""Normal form of SQL, inferred schemas, empty databases, and the proxy that runs SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlglot")

from synque_select import rank
from synque_select.errors import ConfigError, DataError, ProxyError
from synque_select.sql.runner import compact_schema
from synque_select.sql.text import infer_schema, normalised, write_empty_database


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("SELECT a FROM t", "select  A\nfrom T", True),
        ("SELECT a FROM t WHERE b = 'X'", "SELECT a FROM t WHERE b = 'x'", False),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", False),
        ('SELECT "a" FROM t', "SELECT a FROM t", True),
        ("SELECT a FROM t -- a comment", "SELECT a FROM t", True),
        ("this is ( no SQL", "THIS  is ( no sql", True),
        ("SELECT COUNT(*) FROM t", "SELECT count(*) FROM t", True),
    ],
)
def test_queries_are_compared_without_layout_and_case(left: str, right: str, same: bool):
    assert (normalised(left) == normalised(right)) is same


def test_the_schema_holds_the_columns_that_half_of_the_candidates_use():
    good = [
        "SELECT T1.App FROM playstore AS T1 JOIN user_reviews AS T2 ON T1.App = T2.App",
        "SELECT Rating FROM playstore WHERE Category = 'x'",
    ]
    bad = ["SELECT stars FROM playstore", "no SQL at all", "SELECT Rating FROM apps"]
    assert infer_schema([good, good, bad]) == {
        "playstore": ["app", "category", "rating"],
        "user_reviews": ["app"],
    }


def test_queries_without_a_table_have_no_schema():
    with pytest.raises(DataError, match="half of the candidates"):
        infer_schema([["no SQL"], ["SELECT 1"]])


def test_an_empty_database_has_the_schema(tmp_path: Path):
    path = write_empty_database(tmp_path / "new" / "e.sqlite", {'a "b"': ["x y", "z"], "t": ["u"]})
    assert compact_schema(path) == 'a "b"(x y, z)\nt(u)'


def records(*queries: str) -> list[dict[str, str]]:
    return [{"question": f"question {i}", "SQL": q} for i, q in enumerate(queries)]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_empty_database(tmp_path / "t.sqlite", {"t": ["a", "b"]})


def test_validity_is_the_share_of_queries_that_run(database: Path):
    candidates = {
        "good": records("SELECT a FROM t", "SELECT COUNT(*) FROM t GROUP BY b"),
        "half": records("SELECT a FROM t", "SELECT c FROM t"),
        "hostile": records("DROP TABLE t", "ATTACH ':memory:' AS m"),
    }
    ranking = rank(
        candidates,
        # questions of its own: the candidates would be copies of the real sample otherwise
        [{"question": "another one"}, {"question": "and one more"}],
        view="question",
        proxies=[{"key": "sql_validity", "database": str(database)}, "baseline_n"],
        rank_by="sql_validity",
        progress=False,
    )
    validity = {row.name: row.scores["sql_validity"].value for row in ranking.order()}
    assert validity == {"good": 1.0, "half": 0.5, "hostile": 0.0}
    assert any("no query of hostile runs" in message for message in ranking.messages)
    assert str(database.parent) not in str(ranking.proxies["sql_validity"])


def test_the_validity_proxy_names_the_missing_or_invalid_option(database: Path):
    candidates = {"a": records("SELECT 1", "SELECT 2"), "b": records("SELECT 1", "SELECT 3")}
    real = records("SELECT 1", "SELECT 2")
    given = {"database": str(database)}
    for options, error, message in (
        ({}, ConfigError, "needs database="),
        ({**given, "memory_limit_mb": 0}, ConfigError, "memory_limit_mb=0"),
        ({**given, "field": "query"}, ProxyError, "no field 'query'"),
    ):
        spec = {"key": "sql_validity", **options}
        with pytest.raises(error, match=message):
            rank(candidates, real, view="question", proxies=[spec], rank_by="sql_validity", top_k=1)
