"""The rows of `make bench`: kept per benchmark, and written into the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import page, run
from tests.benchmarks.base import Growth, NotMeasured, Result, Row, compare

FAST = Result("a | b", 2.5, 2.0, "a rival", 1.0, 2.5, 2**20, 2**22, note="equal to 1e-6")
SLOW = Result("slow", 1.5, 2.0, "a rival", 2e-6, 3e-6)
LINEAR = Growth("rows", 1.02, 1.1, {"1,000": 0.1, "10,000": 1.05})
SQUARE = Growth("pairs", 1.98, 1.1, {"1,000": 0.1, "10,000": 10.0})
ABSENT = NotMeasured("against x", "x is not installed: pip install x")
ON = {"date": "2026-11-30", "instructions": ["avx2", "fma"], "n_threads": 1, "torch": "2.14.1"}


def test_the_page_has_the_tables_of_the_file():
    whole = page.PAGE.read_text()
    begin, end = f"<!-- measured: {page.MARKER} -->\n", f"\n<!-- end of {page.MARKER} -->"
    assert whole.split(begin)[1].split(end)[0] == page.page_text(page.load()).strip(), (
        "python -c 'from tests.benchmarks.page import write_page; write_page()'"
    )


def test_the_file_names_benchmarks_that_exist_and_no_directory():
    text = page.FILE.read_text()
    assert set(json.loads(text)) <= set(run.names())
    assert not [word for word in ("/home", "/work", "/tmp", "/root") if word in text]


def test_a_page_counts_the_misses_and_says_what_was_not_measured(tmp_path: Path):
    file = tmp_path / "rows.json"
    page.keep("one", "First", [FAST, SLOW, ABSENT], ON, file)
    page.keep("two", "Second", [LINEAR, SQUARE], ON, file)
    text = page.page_text(page.load(file))
    assert text.startswith(
        "Of 4 targets, 2 are missed:\n\n- slow: 1.50×, target ≥ 2×\n- pairs: n^1.98, target ≤ n^1.1"
    )
    assert "Not measured: 1" in text
    assert "### First\n\n`--only one`, 2026-11-30, 1 thread, torch 2.14.1, AVX2, FMA." in text
    assert r"| a \| b | 2.50× | ≥ 2× | 1 s | 2.5 s | 1 MiB | 4 MiB | a rival | equal to" in text
    assert "| slow | 1.50× | ≥ 2×, missed | 2 µs | 3 µs |" in text
    assert "| against x | not measured |" in text
    assert "x is not installed: pip install x |" in text
    # no column of rivals where nothing has one
    assert "| rows | n^1.02 | ≤ n^1.1 | 1,000: 100 ms, 10,000: 1.05 s |\n" in text


def test_rows_come_back_as_they_were(tmp_path: Path):
    rows: list[Row] = [FAST, SLOW, LINEAR, SQUARE, ABSENT]
    page.keep("one", "First", rows, ON, tmp_path / "rows.json")
    assert page._rows(page.load(tmp_path / "rows.json")["one"]) == rows


def test_one_benchmark_replaces_its_rows_alone(tmp_path: Path):
    file = tmp_path / "rows.json"
    page.keep("one", "First", [FAST, SLOW], ON, file)
    page.keep("two", "Second", [LINEAR], ON, file)
    before = page.load(file)["two"]
    page.keep("one", "First", [ABSENT], ON, file)
    after = page.load(file)
    assert after["two"] == before
    assert [row["name"] for row in after["one"]["rows"]] == ["against x"]


@pytest.mark.parametrize("row", [FAST, SLOW, LINEAR, SQUARE, ABSENT])
def test_a_line_for_the_terminal_has_the_name_and_the_verdict(row: Row):
    word = {True: "ok", False: "MISSED", None: "not measured"}[row.reached]
    assert page.line(row).startswith(row.name)
    assert word in page.line(row)


BENCH = '''"""A title.

More of it.
"""
from tests.benchmarks.base import Result
def run():
    yield Result("a row", 1.0, 1.0, "a rival", 1.0, 1.0)
    {last}
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    (tmp_path / "bench_made_up.py").write_text(BENCH.format(last=request.param))
    # a spawned process takes its path from this one's
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "bench_made_up"


FAILURES = {
    "pass": None,
    "raise OSError('no such rival')": "failed: OSError: no such rival",
    "import os; os._exit(3)": "failed: its process ended with exit status 3",
}


@pytest.mark.parametrize("module", FAILURES, indirect=True)
def test_a_benchmark_that_fails_keeps_its_rows_and_says_so(
    module: str, request: pytest.FixtureRequest
):
    reason = FAILURES[request.node.callspec.params["module"]]
    title, rows, environment, is_whole = run.measure(module)
    assert title == "A title"
    assert set(environment) == set(ON)
    assert rows[0].name == "a row"
    assert is_whole is (reason is None)
    assert [row.reason for row in rows[1:] if isinstance(row, NotMeasured)] == [reason] * (
        reason is not None
    )


def test_the_others_run_after_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    kept: list[str] = []
    monkeypatch.setattr(run, "names", lambda: ["bad", "good"])
    monkeypatch.setattr(run, "keep", lambda name, *_: kept.append(name))
    monkeypatch.setattr(run, "write_page", lambda: None)
    monkeypatch.setattr(run, "measure", lambda name: ("", [FAST], ON, "good" in name))
    assert run.main(["--write"]) == 1
    assert kept == ["bad", "good"]
    assert "failed: bad" in capsys.readouterr().err


def test_the_two_are_timed_in_alternation():
    calls: list[str] = []

    def clock() -> Iterator[float]:
        # ours takes 1, 2, 3 seconds, the rival 10, 20, 30
        for spent in (1, 10, 2, 20, 3, 30):
            yield 0.0
            yield float(spent)

    times = clock()
    medians = compare(
        lambda: calls.append("ours"), lambda: calls.append("rival"), 3, clock=lambda: next(times)
    )
    assert medians == (2.0, 20.0)
    assert calls == ["ours", "rival"] * 4
