"""What happens to results when something breaks: `python -m scripts.reliability`.

Runs the slow harnesses of the tests, each of which counts its cases, and writes the counts into
the table of docs/reliability.md. A new harness calls `tests.reliability.counts.record_counts` and
gets an entry in `HARNESSES`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from scripts.docs_tables import ROOT, write_between
from synque_select.utils.wording import counted
from tests.reliability.counts import COUNTS

PAGE = ROOT / "docs" / "reliability.md"
_TIMEOUT_S = 7200
_HEAD = (
    "| harness | what is done | cases | what came of it | time | measured on | tests |",
    "| --- | --- | --: | --- | --: | --- | --- |",
)


@dataclass(frozen=True)
class Harness:
    """Tests that do one kind of harm many times.

    Args:
        done: What is done.
        tests: Files of the tests, with the tests' names if not all of a file count.
    """

    done: str
    tests: Sequence[str]


HARNESSES = {
    "damages": Harness(
        "a derived file is cut, changed, zeroed, emptied, deleted, replaced by a directory or by "
        "the file of another run",
        ["tests/reliability/test_damages.py"],
    ),
    "malformed": Harness(
        "a command reads a malformed file: data, a config, rubrics, prompts, answers, a ranking",
        ["tests/reliability/test_malformed.py"],
    ),
    "fuzz": Harness(
        "bytes of a data file, a config, rubrics, prompts, answers or a result are made up or "
        "damaged at random, or a value of a field is another one",
        ["tests/data/test_reader_fuzz.py", "tests/reliability/test_fuzz.py"],
    ),
    "samples": Harness(
        "a sample with control tokens and orders is shown to a judge, to a reasoner, on the "
        "terminal, in a table and on the page",
        ["tests/reliability/test_hostile_samples.py"],
    ),
    "queries": Harness(
        "a hostile query is run: it writes, leaves the database, or takes time or memory without "
        "end; limits 0.5 s and 64 MiB",
        ["tests/reliability/test_hostile_queries.py"],
    ),
    "parser": Harness(
        "the same queries are parsed; limits 10,000 characters, 1 s and 256 MiB",
        ["tests/reliability/test_hostile_queries.py"],
    ),
    "loggers": Harness(
        "the disk of Lightning's CSV, TensorBoard, W&B (offline) or MLflow (SQLite) logger is full "
        "at the start of training, in it, or after it",
        ["tests/reliability/test_full_loggers.py"],
    ),
    "kills": Harness(
        "`rank` with LENS, `fit` with its callbacks, a sweep, a study with TPE and one with CMA-ES "
        "are killed at a seeded step, once or twice, and started again",
        ["tests/reliability/test_kills.py::test_fifty_moments"],
    ),
    "workers": Harness(
        "one of two workers on a study is killed at a seeded step, and the other goes on",
        ["tests/reliability/test_kills.py::test_ten_moments_with_two_workers"],
    ),
    "writers": Harness(
        "8 processes write to one run store, answer cache, embedding cache and study for a minute, "
        "one of them killed every 3 seconds",
        ["tests/reliability/test_kills.py::test_writers_of_which_one_is_killed_now_and_then"],
    ),
}


@dataclass(frozen=True)
class Counted:
    """The result of a harness.

    Args:
        counts: What happened to how many cases.
        passed: Whether its tests passed.
        seconds: How long it took.
        notes: Other numbers, such as questions that were asked again.
    """

    counts: Mapping[str, int]
    passed: bool
    seconds: float
    notes: Mapping[str, int] = field(default_factory=dict)


def run_harness(key: str) -> Counted:
    """Run the tests of a harness, the slow ones included, and return what they counted."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.jsonl"
        tests = HARNESSES[key].tests
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        started = time.monotonic()
        environment = os.environ | {COUNTS: str(file)}
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=_TIMEOUT_S, check=False)
        seconds = time.monotonic() - started
        lines = file.read_text().splitlines() if file.exists() else []
    counts, notes = Counter[str](), Counter[str]()
    for line in map(json.loads, lines):
        if line["harness"] == key:
            counts.update(line["counts"])
            notes.update(line["notes"])
    return Counted(counts, done.returncode == 0, seconds, notes)


def row_of(key: str, harness: Harness, result: Counted) -> str:
    """Return the row of a harness.

    Example:
        >>> result = Counted({"same numbers": 3, "clean error": 1}, True, 70.0, {"warnings": 2})
        >>> row = row_of("cuts", Harness("a file is cut", ["tests/test_cut.py::test_one"]), result)
        >>> row.partition(" s | ")[0]
        '| `cuts` | a file is cut | 4 | 3 same numbers, 1 clean error; 2 warnings | 70'
        >>> row.rpartition(" | ")[2]
        '`tests/test_cut.py` |'
    """
    shown = ", ".join(f"{count:,} {name}" for name, count in result.counts.items() if count)
    notes = "".join(f"; {count:,} {name}" for name, count in result.notes.items())
    failed = "" if result.passed else " (tests failed)"
    n_cases = sum(result.counts.values())
    files = ", ".join(dict.fromkeys(f"`{test.partition('::')[0]}`" for test in harness.tests))
    return (
        f"| `{key}` | {harness.done} | {n_cases:,} | {shown or 'none'}{notes}{failed} | "
        f"{result.seconds:.0f} s | {datetime.now(UTC):%Y-%m-%d} | {files} |"
    )


def _rows_of(page: str) -> dict[str, str]:
    """Return the rows of the table, by harness: those of harnesses that are not run stay."""
    rows = (line for line in page.splitlines() if line.startswith("| `"))
    return {row.split("`")[1]: row for row in rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run harnesses and write their rows; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "harness", nargs="*", help=f"by default all of: {', '.join(HARNESSES)}", metavar="HARNESS"
    )
    chosen = parser.parse_args(arguments).harness or [*HARNESSES]
    if unknown := [key for key in chosen if key not in HARNESSES]:
        parser.error(f"unknown: {', '.join(unknown)}; allowed are {', '.join(HARNESSES)}")
    failed = []
    for key in chosen:
        result = run_harness(key)
        failed += [] if result.passed else [key]
        # read now, and not before: another process may have run another harness in the meantime
        rows = _rows_of(PAGE.read_text()) | {key: row_of(key, HARNESSES[key], result)}
        table = [rows[name] for name in HARNESSES if name in rows]
        write_between(PAGE, "harnesses", "\n".join([*_HEAD, *table]))
    print(f"{counted(len(chosen), 'harness', 'harnesses')}, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
