"""Bad input to the command: one line that names what was found and what is allowed, status 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synque_select.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "real"):
        records = [{"text": f"{name} {i} apps", "n": i} for i in range(8)]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    return tmp_path


RANK = ["rank", "--candidates", "a.json,b.json", "--real", "real.json", "--view", "text",
        "--proxies", "ngram", "--top-k", "1"]  # fmt: skip


def test_the_command_that_the_others_break_works(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*RANK, "--json", "out.json"]) == 0
    assert "Ranking by ngram against 8 real examples" in capsys.readouterr().out
    assert json.loads((folder / "out.json").read_text())["top_k"] == 1
    assert main([*RANK, "--json", "out.json"]) == 0  # a ranking of ours may be written again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnk"], "unknown command 'rnk': did you mean 'rank'?"),
        ([*RANK, "--top-k", "abc"], "abc"),
        ([*RANK, "--top-k", "3"], "top_k=3: allowed is 1 to 2, the number of candidates"),
        ([*RANK, "--rank-by", "pad"], "rank_by='pad' is no column"),
        ([*RANK, "--proxies", "ngrm"], "unknown proxy 'ngrm': did you mean 'ngram'?"),
        ([*RANK, "--proxies", "ngram:key=pad"], "expected key:option=value"),
        ([*RANK, "--proxies", "ngram:max=3"], "has no option 'max'"),
        ([*RANK, "--top-k", "0"], "top_k=0: allowed is a whole number from 1"),
        ([*RANK, "--seed", "-1"], "seed=-1: allowed is a whole number from 0"),
        ([*RANK, "--seed", "9" * 20], "allowed is a whole number from 0"),
        ([*RANK, "--device", "cuda:99"], "device='cuda:99' cannot be used here"),
        ([*RANK, "--view", "txt"], "no field 'txt'; did you mean 'text'?"),
        ([*RANK, "--real", "none.json"], "none.json"),
        ([*RANK, "--json", "a.json"], "a.json: the file must be an object: not replaced"),
        (["rank", "--candidates", "a.json"], "required"),
        (["fit", "--config", "nope"], "no config 'nope', as a file or packaged"),
        (["experiment", "--config", "digits", "--task.n_distinct=-5"], "n_distinct=-5: allowed"),
        (["report", "a.json"], "a.json"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_one_line_and_status_1(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("synque-select: error: ")
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert json.loads((folder / "a.json").read_text())[0]["text"] == "a 0 apps"


def test_escapes_in_a_message_do_not_reach_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    records = [{"\x1b[2Jfield": "x"}] * 3
    (folder / "a.json").write_text(json.dumps(records))
    assert main(RANK) == 1
    assert "\x1b" not in capsys.readouterr().err
