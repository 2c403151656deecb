"""Hostile queries cost neither the database, nor the next query, nor the process that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability import hostile_queries
from tests.reliability.counts import record_counts
from tests.reliability.hostile_queries import (
    MEMORY_LIMIT_MB,
    QUERIES,
    TIME_LIMIT_S,
    WRITES,
    make_database,
)

pytest.importorskip("sqlglot")

# the limits themselves are of the processor's or the query's time; this is for waiting for a
# processor, which takes longer the more processes there are for each
_SLACK_S = 15.0
# of the interpreter and its libraries, and of SQLite's own structures
_INTERPRETER_MB = 128


def test_107_hostile_queries(tmp_path: Path):
    assert len(QUERIES) == 107
    database = tmp_path / "numbers.sqlite"
    make_database(database)
    before = database.read_bytes()
    run = subprocess.run(
        [sys.executable, "-m", hostile_queries.__name__, str(database)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report = json.loads(run.stdout)
    slack_s = _SLACK_S * max(1.0, max(os.getloadavg()) / (os.cpu_count() or 1))
    results = report["results"]
    assert list(results) == list(QUERIES)

    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [database.name]
    for name, result in results.items():
        assert result["next_rows"] == [[3000, 0]], name
        assert result["next_parsed"], name
        assert result["run_s"] < TIME_LIMIT_S + slack_s, name
        assert result["parse_s"] < 1 + slack_s, name
        if result["error"] is None:
            assert result["n_rows"], name
        else:
            assert "\n" not in result["error"], name
    assert all(results[name]["error"] for name in WRITES)
    assert report["peak_mb"] < MEMORY_LIMIT_MB + _INTERPRETER_MB
    assert report["own_mb"] < 128, "results and queries leave no trace in the process that asks"
    assert report["own_s"] < 5

    record_counts(
        "queries",
        Counter("clean error" if r["error"] else "result in the limits" for r in results.values()),
    )
    record_counts(
        "parser", Counter("parsed" if r["parsed"] else "not parsed" for r in results.values())
    )
