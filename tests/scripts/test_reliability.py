"""The table of docs/reliability.md: a row per harness, and rows of others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import reliability
from scripts.reliability import Harness, main

PAGE = """# A page

<!-- measured: harnesses -->
| harness | what is done | cases | what came of it | time | measured on | tests |
| --- | --- | --: | --- | --: | --- | --- |
| `kill` | a kill | 50 | 50 same numbers | 9 s | 2026-01-01 | `test_kill.py` |
<!-- end of harnesses -->
"""
TEST = """
from tests.reliability.counts import record_counts

def test_one():
    record_counts("cut", {"same numbers": 3, "clean error": 1})
    record_counts("other", {"same numbers": 7})

def test_two():
    record_counts("cut", {"same numbers": 2}, {"files in all": 9})
    assert %s
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    harnesses = {
        "cut": Harness("a cut", [str(tmp_path / "test_cut.py")]),
        "kill": Harness("a kill", []),
    }
    monkeypatch.setattr(reliability, "PAGE", page)
    monkeypatch.setattr(reliability, "HARNESSES", harnesses)
    return page


@pytest.mark.parametrize("passes", [True, False])
def test_a_harness_gets_a_row_and_the_others_keep_theirs(
    page: Path, tmp_path: Path, passes: bool, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "test_cut.py").write_text(TEST % passes)
    assert main(["cut"]) == (0 if passes else 1)
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert rows[1] == PAGE.splitlines()[5]
    failed = "" if passes else " (tests failed)"
    outcome = f"5 same numbers, 1 clean error; 9 files in all{failed}"
    assert rows[0].startswith(f"| `cut` | a cut | 6 | {outcome} | ")
    assert ("failed: cut" in capsys.readouterr().out) is not passes


def test_an_unknown_harness_is_named(page: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["flood"])
    assert "unknown: flood; allowed are cut, kill" in capsys.readouterr().err


def test_every_harness_has_tests_and_a_row_of_the_page():
    page = reliability.PAGE.read_text()
    assert page.count("<!-- measured: harnesses -->") == 1
    assert [*reliability._rows_of(page)] == [*reliability.HARNESSES]
    root = reliability.ROOT
    for harness in reliability.HARNESSES.values():
        assert all((root / test.partition("::")[0]).exists() for test in harness.tests)
