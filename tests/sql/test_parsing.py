"""Untrusted SQL is parsed within limits, in another process, which may die."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("sqlglot")

from synque_select.errors import DataError
from synque_select.sql import parsing
from synque_select.sql.instance import write_made_up_database
from synque_select.sql.parsing import parsed_query
from synque_select.sql.text import infer_schema, normalised, write_empty_database

BOMB = "SELECT 1 FROM t" + " JOIN t" * 22


def test_a_query_that_takes_exponential_time_is_not_parsed():
    started = time.process_time()
    assert parsed_query(BOMB) is None
    assert normalised(BOMB).startswith("select 1 from t join t")
    assert infer_schema([[BOMB, "SELECT a FROM t"]]) == {"t": ["a"]}
    assert time.process_time() - started < 0.5, "nothing is parsed in this process"


def test_a_process_that_dies_fails_only_the_query_it_was_reading():
    assert parsed_query("SELECT 1") is not None
    process = parsing._process()._process
    assert process is not None
    process.kill()
    process.wait()
    assert parsed_query("SELECT 2") is None
    assert parsed_query("SELECT 2") is not None


def test_a_forked_process_has_a_parser_of_its_own():
    assert parsed_query("SELECT 1") is not None
    child = os.fork()
    if child == 0:
        parsed = parsed_query("SELECT a FROM t")
        os._exit(0 if parsed is not None and parsed.tables == ("t",) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert parsed_query("SELECT b FROM u").tables == ("u",)  # type: ignore[union-attr]


def test_the_main_process_does_not_even_import_the_parser():
    code = (
        "import sys\nfrom synque_select.sql.parsing import parsed_query\n"
        "assert parsed_query('SELECT a FROM t').normal == 'SELECT a FROM t'\n"
        "sys.exit('sqlglot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_parser_that_does_not_start_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path):
    parsing._process.cache_clear()
    monkeypatch.setattr(parsing, "_WORKER", tmp_path / "none.py")
    with pytest.raises(DataError, match="the process that parses SQL does not work"):
        parsed_query("SELECT 3")
    monkeypatch.undo()
    assert parsed_query("SELECT 3") is not None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT '\ud83d' FROM t",
        "SELECT a FROM t WHERE a > 1e400",
        "SELECT a FROM t WHERE a = 99999999999999999999999999999999",
        "SELECT a FROM t WHERE a = -9223372036854775808 AND b > 9223372036854775807",
        "SELECT name FROM sqlite_master",
        'SELECT "a\0b" FROM t',
        'SELECT a FROM "t\0u"',
        'SELECT "" FROM t WHERE "" = 1',
        "SELECT [a\nb] FROM [t u] WHERE [a\nb] LIKE '%\0%'",
    ],
)
def test_odd_names_and_values_make_a_database(query: str, tmp_path):
    queries = ["SELECT a FROM t", query]
    schema = infer_schema([queries])
    assert write_made_up_database(tmp_path / "a.sqlite", schema, queries, seed=0).is_file()


def test_a_table_that_sqlite_does_not_allow_is_one_error(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"old")
    for name, columns in (("sqlite_x", ["a"]), ("t", [f"c{i}" for i in range(2001)])):
        with pytest.raises(DataError, match=f"the table '{name}' cannot be created"):
            write_empty_database(path, {"u": ["a"], name: columns})
    assert [p.name for p in tmp_path.iterdir()] == ["a.sqlite"]
    assert path.read_bytes() == b"old"
