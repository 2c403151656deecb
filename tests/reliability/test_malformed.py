"""Malformed inputs of every kind: one error that names the file and the place, status 1 or 2."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from synque_select.cli.main import main
from tests.reliability.counts import record_counts
from tests.reliability.malformed import CASES, GOOD

_PREFIX = "synque-select: error: "


def test_there_are_116():
    assert len(CASES) == 116


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_input_is_one_clean_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    for part in ("a", "b", "real"):
        records = [{**record, "text": f"{part} {record['text']}"} for record in GOOD]
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (tmp_path / f"{part}.jsonl").write_text(lines)
    path = tmp_path / case.file
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)

    started = time.process_time()
    status = main([*case.command])
    error = capsys.readouterr().err
    assert status in (1, 2), error
    assert time.process_time() - started < 30
    lines_of_error = error.strip().splitlines()
    assert lines_of_error[-1].startswith(_PREFIX), error
    assert error.count(_PREFIX) == 1
    assert "Traceback" not in error
    for named in case.named:
        assert named in lines_of_error[-1]
    record_counts("malformed", {"clean error": 1})
