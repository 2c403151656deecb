"""Queries run read-only and within limits, and a hostile query does not affect the next one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from synque_select.errors import ConfigError, DataError
from synque_select.sql.runner import QueryRunner, compact_schema


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "small database.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, word TEXT)")
        connection.executemany(
            "INSERT INTO numbers VALUES (?, ?)", [(i, f"word {i}") for i in range(3000)]
        )
    connection.close()
    return path


@pytest.fixture(scope="module")
def runner(database: Path):
    with QueryRunner(database, time_limit_s=1.0, memory_limit_mb=64) as runner:
        yield runner


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
HOSTILE = {
    "delete": "DELETE FROM numbers",
    "insert": "INSERT INTO numbers VALUES (-1, 'x')",
    "update": "UPDATE numbers SET word = ''",
    "create": "CREATE TABLE other (x)",
    "create a temporary table": "CREATE TEMP TABLE other (x)",
    "drop": "DROP TABLE numbers",
    "attach": "ATTACH DATABASE '/tmp/synque_attached.sqlite' AS other",
    "attach in memory": "ATTACH ':memory:' AS other",
    "vacuum into": "VACUUM INTO '/tmp/synque_vacuumed.sqlite'",
    "pragma": "PRAGMA table_info(numbers)",
    "pragma that writes": "PRAGMA writable_schema = 1",
    "pragma as a function": "SELECT * FROM pragma_hard_heap_limit(0)",
    "transaction": "BEGIN",
    "savepoint": "SAVEPOINT s",
    "load_extension": "SELECT load_extension('/tmp/evil.so')",
    "two statements": "SELECT 1; DELETE FROM numbers",
    "endless count": ENDLESS + "SELECT COUNT(*) FROM c",
    "endless rows": ENDLESS + "SELECT x FROM c",
    "endless sum in a subquery": "SELECT (" + ENDLESS + "SELECT SUM(x) FROM c)",
    "zeroblob": "SELECT zeroblob(1000000000)",
    "randomblob": "SELECT hex(randomblob(900000000))",
    "replace": "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))",
    "group_concat": "SELECT group_concat(a.word || b.word) FROM numbers a, numbers b",
    "rows of a megabyte": "SELECT hex(zeroblob(400000)), a.n FROM numbers a, numbers b",
    "memory for sorting": ENDLESS + "SELECT hex(randomblob(5000)) AS r FROM c ORDER BY r",
    "cross join": "SELECT COUNT(*) FROM numbers a, numbers b, numbers c, numbers d",
    "cross join of all rows": "SELECT * FROM numbers a, numbers b, numbers c",
    "deep nesting": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "long": "SELECT '" + "x" * 200_000 + "'",
    "nothing": "",
    "a comment": "-- SELECT 1",
    "no SQL": "How many numbers are there?",
    "unknown column": "SELECT colour FROM numbers",
    "unknown table": "SELECT * FROM colours",
    "a zero byte": "SELECT 1 \0 FROM numbers",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_query_fails_and_the_next_one_succeeds(runner: QueryRunner, name: str):
    started = time.monotonic()
    result = runner.run(HOSTILE[name])
    assert result.error, name
    assert "\n" not in result.error
    assert not result.rows
    assert time.monotonic() - started < 4
    assert runner.run("SELECT COUNT(*), MIN(n) FROM numbers").rows == ((3000, 0),)


def test_printf_cannot_build_a_gigabyte(runner: QueryRunner):
    result = runner.run("SELECT printf('%.*c', 1000000000, 'x')")
    # versions of SQLite differ: some fail, others return NULL when the text would be too long
    assert result.error or result.rows == ((None,),)
    assert runner.run("SELECT COUNT(*), MIN(n) FROM numbers").rows == ((3000, 0),)


def test_hostile_queries_write_nothing(runner: QueryRunner, database: Path):
    before = database.read_bytes()
    for name in ("delete", "drop", "create", "attach", "vacuum into"):
        runner.run(HOSTILE[name])
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert not Path("/tmp/synque_attached.sqlite").exists()
    assert not Path("/tmp/synque_vacuumed.sqlite").exists()


@pytest.mark.parametrize("before", ["", " -- a\n", "/* a */\t", "-- EXPLAIN\n"])
def test_explain_is_not_a_result(runner: QueryRunner, before: str):
    for query in ("EXPLAIN SELECT 1", "explain query plan select 1"):
        assert "EXPLAIN is not allowed" in str(runner.run(before + query).error)
    assert runner.run(f"{before}SELECT 1 AS explain").ran


def test_the_error_names_the_limit_that_was_exceeded(runner: QueryRunner):
    assert "time limit of 1 s" in str(runner.run(HOSTILE["endless count"]).error)
    assert "memory limit of 64 MiB" in str(runner.run(HOSTILE["memory for sorting"]).error)
    assert "result limit" in str(runner.run(HOSTILE["cross join of all rows"]).error)
    assert "not authorized" in str(runner.run(HOSTILE["delete"]).error)
    assert "no such column: colour" in str(runner.run(HOSTILE["unknown column"]).error)


def test_no_process_is_left_behind(database: Path):
    runner = QueryRunner(database, time_limit_s=0.5)
    runner.run(HOSTILE["endless count"])
    process = runner._process._running()
    runner.close()
    assert process.poll() is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def test_a_query_after_close_still_runs(database: Path):
    with QueryRunner(database) as runner:
        assert runner.run("SELECT 1").rows == ((1,),)
        runner.close()
        assert runner.run("SELECT 2").rows == ((2,),)


def test_a_killed_worker_fails_only_the_query_it_was_running(database: Path):
    with QueryRunner(database) as runner:
        process = runner._process._running()
        process.kill()
        process.wait()
        assert "ended unexpectedly" in str(runner.run("SELECT 1").error)
        assert runner.run("SELECT 1").ran


def test_values_are_returned_unchanged_and_blobs_as_bytes(runner: QueryRunner):
    query = "SELECT 1, 2.5, NULL, 'ä\"''', x'00ff', 9223372036854775807"
    assert runner.run(query).rows == ((1, 2.5, None, "ä\"'", b"\x00\xff", 2**63 - 1),)


def test_texts_that_are_not_utf8_stay_different(runner: QueryRunner):
    rows = runner.run("SELECT CAST(x'6180' AS TEXT), CAST(x'6181' AS TEXT)").rows
    assert rows == (("a\udc80", "a\udc81"),)


def test_columns_are_counted_where_there_are_no_rows(runner: QueryRunner):
    empty = runner.run("SELECT n, n, word FROM numbers WHERE n < 0")
    assert (empty.rows, empty.n_columns) == ((), 3)


def test_joins_subqueries_and_finite_recursion_are_allowed(runner: QueryRunner):
    finite = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5) "
    assert runner.run(finite + "SELECT SUM(x) FROM c").rows == ((15,),)
    query = "SELECT b.word FROM numbers a JOIN numbers b ON a.n = b.n + 1 WHERE a.n = 3"
    assert runner.run(query).rows == (("word 2",),)


def test_each_query_takes_milliseconds(runner: QueryRunner):
    started = time.monotonic()
    results = [runner.run("SELECT COUNT(*) FROM numbers") for _ in range(50)]
    assert all(result.rows == ((3000,),) for result in results)
    assert time.monotonic() - started < 5


def test_a_missing_or_invalid_database_is_named_in_the_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.sqlite: the database cannot be read"):
        QueryRunner(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("SELECT 1")
    with pytest.raises(DataError, match=r"text\.sqlite is not a SQLite database"):
        compact_schema(tmp_path / "text.sqlite")


def test_a_damaged_database_is_named_in_the_error(database: Path, tmp_path: Path):
    start = database.read_bytes()[:100]
    (tmp_path / "damaged.sqlite").write_bytes(start + b"\xff" * 4000)
    with pytest.raises(DataError, match=r"damaged\.sqlite: the database is damaged"):
        compact_schema(tmp_path / "damaged.sqlite")
    with QueryRunner(tmp_path / "damaged.sqlite") as runner:
        assert "malformed" in str(runner.run("SELECT 1 FROM numbers").error)


def test_a_pipe_and_a_folder_are_rejected(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.sqlite")
    for path in (tmp_path / "pipe.sqlite", tmp_path):
        with pytest.raises(DataError, match="is not a regular file"):
            QueryRunner(path)


def test_a_query_must_be_a_string(runner: QueryRunner):
    error = runner.run(None).error  # type: ignore[arg-type]
    assert error == "a query must be a string; found NoneType"


@pytest.mark.parametrize(
    "limit", ["time_limit_s", "memory_limit_mb", "max_rows", "max_result_bytes"]
)
def test_an_invalid_limit_is_named_in_the_error(database: Path, limit: str):
    with pytest.raises(ConfigError, match=f"{limit}=0"):
        QueryRunner(database, **{limit: 0})


def test_a_compact_schema_has_one_line_per_table(database: Path):
    assert compact_schema(database) == "numbers(n, word)"


@pytest.mark.parametrize("end", ["-wal", "-journal"])
def test_a_database_with_changes_left_beside_it_is_refused(
    database: Path, tmp_path: Path, end: str
):
    database = Path(shutil.copy(database, tmp_path))
    rest = database.with_name(database.name + end)
    rest.write_bytes(b"")
    assert compact_schema(database)
    rest.write_bytes(b"changes")
    for use in (compact_schema, QueryRunner):
        with pytest.raises(DataError, match=f"changes are left in its .* {rest.name}"):
            use(database)
    link = tmp_path / "other" / "link.sqlite"
    link.parent.mkdir()
    link.symlink_to(database)
    for use in (compact_schema, QueryRunner):
        with pytest.raises(DataError, match=f"changes are left in its .* {rest.name}"):
            use(link)


def test_changes_that_begin_later_are_found_before_the_next_query(database: Path, tmp_path: Path):
    database = Path(shutil.copy(database, tmp_path))
    query = "SELECT COUNT(*) FROM numbers"
    with QueryRunner(database) as runner:
        n = runner.run(query).rows[0][0]
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            with connection:
                connection.execute("INSERT INTO numbers (n) VALUES (9999)")
            with pytest.raises(DataError, match="changes are left in its write-ahead log"):
                runner.run(query)
        assert runner.run(query).rows == ((n + 1,),)


def test_tables_are_read_in_other_orders(tmp_path: Path):
    path = tmp_path / "names.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute('CREATE TABLE "a ""b" (x INTEGER PRIMARY KEY)')
        connection.execute('INSERT INTO "a ""b" VALUES (1), (2), (3)')
        connection.execute('CREATE VIEW v AS SELECT x * 10 AS y FROM "a ""b"')
        connection.execute("CREATE TABLE w (z PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO w VALUES ('a'), ('b')")
    connection.close()
    with QueryRunner(path) as runner:
        for query, rows in (
            ('SELECT x FROM "a ""b"', ((3,), (2,), (1,))),
            ("SELECT y FROM v", ((30,), (20,), (10,))),
            ("SELECT z FROM w", (("b",), ("a",))),
        ):
            assert runner.run(query, order=0).rows == rows[::-1]
            assert runner.run(query, order=1).rows == rows
            assert sorted(runner.run(query, order=2).rows) == sorted(rows)
        assert runner.run("SELECT count(*) FROM v", order=1).rows == ((3,),)
        assert not runner.run("SELECT rowid, y FROM v", order=1).ran
        assert not runner.run('SELECT rowid FROM "a ""b"', order=1).ran
        for change in ('DELETE FROM main."a ""b"', "DROP VIEW v", "CREATE TABLE t (x)"):
            assert runner.run(change, order=1).error == "not authorized"
