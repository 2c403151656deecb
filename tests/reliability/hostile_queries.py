"""107 hostile queries, and what the executor and the parser make of each.

Run as a module, in a process of its own, so that the memory of its children is that of the queries.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from synque_select.sql import parsing
from synque_select.sql.parsing import parsed_query
from synque_select.sql.runner import QueryRunner

TIME_LIMIT_S = 0.5
MEMORY_LIMIT_MB = 64
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
GROWING = "WITH RECURSIVE c(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM c) "


def _nested(opening: str, inner: str, closing: str, n: int) -> str:
    return opening * n + inner + closing * n


# they change something or reach outside the database, if they may
WRITES = {
    "delete": "DELETE FROM numbers",
    "delete and return": "DELETE FROM numbers RETURNING n",
    "insert": "INSERT INTO numbers VALUES (-1, 'x')",
    "insert or replace": "INSERT OR REPLACE INTO numbers VALUES (1, 'x')",
    "insert in a with": "WITH c AS (SELECT 1) INSERT INTO numbers SELECT -5, 'x' FROM c",
    "upsert": "INSERT INTO numbers VALUES (1, 'x') ON CONFLICT DO UPDATE SET word = 'y'",
    "replace into": "REPLACE INTO numbers VALUES (1, 'x')",
    "update": "UPDATE numbers SET word = ''",
    "update from": "UPDATE numbers SET word = b.word FROM numbers b",
    "through a trigger of a view": "INSERT INTO writable VALUES (-9)",
    "through a trigger, by a delete": "DELETE FROM writable",
    "create": "CREATE TABLE other (x)",
    "create as": "CREATE TABLE other AS SELECT * FROM numbers",
    "create temporary": "CREATE TEMP TABLE other (x)",
    "create view": "CREATE VIEW other AS SELECT 1",
    "create temporary view": "CREATE TEMP VIEW numbers AS SELECT 1 AS n",
    "create index": "CREATE INDEX other ON numbers (word)",
    "create trigger": "CREATE TRIGGER other AFTER INSERT ON numbers BEGIN DELETE FROM numbers; END",
    "create temporary trigger": (
        "CREATE TEMP TRIGGER other AFTER INSERT ON numbers BEGIN DELETE FROM numbers; END"
    ),
    "create virtual": "CREATE VIRTUAL TABLE other USING fts5(x)",
    "create r-tree": "CREATE VIRTUAL TABLE other USING rtree(id, a, b)",
    "drop": "DROP TABLE numbers",
    "drop view": "DROP VIEW writable",
    "rename": "ALTER TABLE numbers RENAME TO other",
    "add column": "ALTER TABLE numbers ADD COLUMN x",
    "schema": "UPDATE sqlite_master SET sql = ''",
    "schema, deleted": "DELETE FROM sqlite_schema",
    "attach": "ATTACH DATABASE 'attached.sqlite' AS other",
    "attach in memory": "ATTACH ':memory:' AS other",
    "attach with an address": "ATTACH 'file:attached.sqlite?mode=rwc' AS other",
    "detach": "DETACH DATABASE main",
    "vacuum": "VACUUM",
    "vacuum into": "VACUUM INTO 'vacuumed.sqlite'",
    "reindex": "REINDEX",
    "analyze": "ANALYZE",
    "begin": "BEGIN IMMEDIATE",
    "commit": "COMMIT",
    "savepoint": "SAVEPOINT s",
    "pragma": "PRAGMA table_info(numbers)",
    "pragma that writes": "PRAGMA writable_schema = 1",
    "pragma of the limit": "PRAGMA hard_heap_limit = 0",
    "pragma of trusted schemas": "PRAGMA trusted_schema = 1",
    "pragma of the journal": "PRAGMA journal_mode = DELETE",
    "pragma as a function": "SELECT * FROM pragma_hard_heap_limit(0)",
    "pragma in a join": "SELECT * FROM numbers, pragma_database_list",
    "load_extension": "SELECT load_extension('/tmp/evil.so')",
    "load_extension with entry": "SELECT load_extension('/tmp/evil.so', 'main')",
    "fts3_tokenizer": "SELECT fts3_tokenizer('simple')",
    "readfile": "SELECT readfile('/etc/passwd')",
    "writefile": "SELECT writefile('written', 'x')",
    "edit": "SELECT edit('x', 'sh')",
    "two statements": "SELECT 1; DELETE FROM numbers",
    "a statement after a comment": "SELECT 1 /* ; */ ; DROP TABLE numbers",
}
# they take time, memory or space without end
RESOURCES = {
    "endless count": ENDLESS + "SELECT COUNT(*) FROM c",
    "endless rows": ENDLESS + "SELECT x FROM c",
    "endless sum in a subquery": "SELECT (" + ENDLESS + "SELECT SUM(x) FROM c)",
    "endless in a condition": "SELECT 1 WHERE EXISTS (" + ENDLESS + "SELECT x FROM c WHERE x < 0)",
    "endless sort": ENDLESS + "SELECT hex(randomblob(5000)) AS r FROM c ORDER BY r",
    "endless distinct": ENDLESS + "SELECT DISTINCT x FROM c WHERE x < 0",
    "endless groups": ENDLESS + "SELECT x, COUNT(*) FROM c GROUP BY x",
    "endless window": ENDLESS + "SELECT SUM(x) OVER (ORDER BY x) FROM c",
    "endless union": ENDLESS + "SELECT x FROM c UNION SELECT -x FROM c",
    "endless text": GROWING + "SELECT MAX(LENGTH(x)) FROM c",
    "endless group_concat": ENDLESS + "SELECT group_concat(x) FROM c",
    "endless json": ENDLESS + "SELECT json_group_array(x) FROM c",
    "zeroblob": "SELECT zeroblob(1000000000)",
    "many zeroblobs": "SELECT " + ", ".join(["zeroblob(900000)"] * 500),
    "randomblob": "SELECT randomblob(1e9)",
    "randomblob in hex": "SELECT hex(randomblob(900000000))",
    "printf padding": "SELECT printf('%1000000000d', 1)",
    "printf precision": "SELECT printf('%.1000000000f', 1.0)",
    "printf of characters": "SELECT printf('%.*c', 1000000000, 'x')",
    "format": "SELECT format('%0*d', 2000000000, 1)",
    "replace": "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))",
    "quote": "SELECT quote(zeroblob(900000000))",
    "like": "SELECT hex(zeroblob(50000)) LIKE '" + "%0" * 5000 + "1'",
    "glob": "SELECT hex(zeroblob(50000)) GLOB '" + "*0" * 5000 + "1'",
    "instr": "SELECT SUM(instr(hex(zeroblob(400000)), hex(zeroblob(200000)) || 'x')) FROM numbers",
    "group_concat": "SELECT group_concat(a.word || b.word) FROM numbers a, numbers b",
    "rows of a megabyte": "SELECT hex(zeroblob(400000)), a.n FROM numbers a, numbers b",
    "cross join": "SELECT COUNT(*) FROM numbers a, numbers b, numbers c, numbers d",
    "cross join of all rows": "SELECT * FROM numbers a, numbers b, numbers c",
    "join of many tables": "SELECT COUNT(*) FROM numbers" + " JOIN numbers" * 22,
    "more tables than allowed": "SELECT COUNT(*) FROM numbers" + ", numbers" * 100,
    "correlated": (
        "SELECT COUNT(*) FROM numbers a WHERE (SELECT COUNT(*) FROM numbers b, numbers c "
        "WHERE b.n > a.n AND c.n > b.n) > 0"
    ),
    "json_each": (
        "SELECT COUNT(*) FROM json_each('[" + "1," * 4000 + "1]') a, numbers b, numbers c"
    ),
    "many columns": "SELECT " + ", ".join(["1"] * 3000),
    "many columns and rows": "SELECT " + ", ".join(["n"] * 1500) + " FROM numbers",
    "many values": "VALUES " + ", ".join(["(1)"] * 12_000),
    "many unions": " UNION ALL ".join(["SELECT 1"] * 5000),
    "long list": "SELECT 1 WHERE 1 IN (" + "1," * 40_000 + "2)",
}
# they are hard to read
SHAPES = {
    "deep parentheses": "SELECT " + _nested("(", "1", ")", 5000),
    "parentheses at the limit": "SELECT " + _nested("(", "1", ")", 90),
    "deep subqueries": _nested("SELECT * FROM (", "SELECT 1", ")", 500),
    "deep functions": "SELECT " + _nested("abs(", "1", ")", 3000),
    "deep case": "SELECT " + _nested("CASE WHEN 1 THEN ", "1", " END", 900),
    "deep not": "SELECT " + "NOT " * 9000 + "1",
    "long sum": "SELECT " + "1+" * 4900 + "1",
    "long concatenation": "SELECT 'x'" + "||'x'" * 1900,
    "open parentheses": "SELECT " + "(" * 9000,
    "open quote": "SELECT '" + "x" * 9000,
    "open brackets": "SELECT " + "[" * 9000,
    "open comment": "SELECT 1 /*" + "/*" * 4000,
    "long text": "SELECT '" + "x" * 200_000 + "'",
    "a zero byte": "SELECT 1 \0 FROM numbers",
    "half a surrogate": "SELECT '\ud83d'",
    "nothing": "",
}
QUERIES = {**WRITES, **RESOURCES, **SHAPES}


def make_database(path: Path) -> None:
    """Write the table that the queries name, and a view with triggers that write to it."""
    import sqlite3

    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, word TEXT)")
        rows = [(i, f"word {i}") for i in range(3000)]
        connection.executemany("INSERT INTO numbers VALUES (?, ?)", rows)
        connection.execute("CREATE VIEW writable AS SELECT n FROM numbers")
        for event in ("INSERT", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER on_{event} INSTEAD OF {event} ON writable "
                "BEGIN DELETE FROM numbers; END"
            )
    connection.close()


def main(database: str) -> None:
    """Print what became of each query, and the largest memory of a child in MiB, as JSON."""
    results = {}
    parsed_query("SELECT 1")  # the time to start is not that of a query
    with QueryRunner(
        database, time_limit_s=TIME_LIMIT_S, memory_limit_mb=MEMORY_LIMIT_MB
    ) as runner:
        runner.run("SELECT 1")
        for name, query in QUERIES.items():
            started = time.monotonic()
            result = runner.run(query)
            ran = time.monotonic()
            parsed = parsed_query(query)
            results[name] = {
                "error": result.error,
                "n_rows": len(result.rows),
                "run_s": ran - started,
                "parse_s": time.monotonic() - ran,
                "parsed": parsed is not None,
                "next_rows": runner.run("SELECT COUNT(*), MIN(n) FROM numbers").rows,
                "next_parsed": parsed_query(f"SELECT n FROM t{len(results)}") is not None,
            }
    parsing._process().close()  # only of processes that have ended the memory is known
    own_s = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    # not that of getrusage, which counts the process that started this one, up to the exec
    status = Path("/proc/self/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"results": results, "peak_mb": peak, "own_mb": own, "own_s": own_s}))


if __name__ == "__main__":
    main(sys.argv[1])
