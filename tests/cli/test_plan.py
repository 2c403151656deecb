"""`plan`, `work` and `gather`: processes that see nothing of each other but a folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synque_select.cli.main import main

ENCODER = "tests.execution.encoders:SlowLetters"


def write(path: Path, n: int, seed: int) -> None:
    letters = random.Random(seed)
    rows = ["".join(letters.choices("abcdefgh ", k=30)) + str(i) for i in range(n)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for i in range(15):
        write(tmp_path / "data" / f"c{i:02d}.jsonl", 20, i)
    write(tmp_path / "real.jsonl", 20, 99)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "own-cache"))
    return tmp_path


def options(seconds: float = 0.0) -> list[str]:
    suite = ["--proxies", "mmd,ngram,coverage", "--encoder", f"{ENCODER}:seconds={seconds}"]
    return ["--candidates", "data", "--real", "real.jsonl", *suite, "--quiet"]


def scores(path: Path) -> object:
    state = json.loads(path.read_text())
    for key in ("made_by", "created", "seconds", "wall_s", "origin"):
        state.pop(key, None)
    for proxy in state["proxies"].values():
        proxy.pop("seconds")
    return {key: state[key] for key in ("candidates", "proxies", "decision")}


def test_eight_processes_of_which_two_are_killed(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["rank", *options(), "--json", "alone", "--cache-dir", "other"]) == 0
    assert main(["plan", *options(0.3), "--out", "plan"]) == 0
    assert "16 units to encode" in capsys.readouterr().out
    log = folder / "log"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "SLOW_ENCODER_LOG": str(log), "PYTHONPATH": root}
    command = [sys.executable, "-m", "tests.execution.array_job", "plan", str(log)]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, -9, 0, 0, -9, 0, 0]

    assert main(["gather", "plan", "--quiet"]) == 1
    message = capsys.readouterr().err
    for name in ("c03", "c04", "c09", "c10"):  # units 4, 5, 10 and 11 of 16, two per process
        assert f"encode shard 1 of 1 of {name}: missing" in message
    assert "c05" not in message
    assert "7 of 19 units of plan not finished" in message
    assert "synque-select work plan --index 0 --of 1" in message

    before = log.read_text().split()
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    assert main(["gather", "plan", "--json", "together", "--quiet"]) == 0
    n_batches = 16 + 2  # those of the killed processes twice
    assert len(before) + 4 == n_batches
    assert scores(folder / "together" / "ranking.json") == scores(folder / "alone" / "ranking.json")


def test_a_unit_that_fails_is_named_and_run_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from tests.execution import encoders

    assert main(["plan", *options(), "--out", "plan"]) == 0
    encode = encoders.SlowLetters.encode
    calls: list[int] = []

    def fails_once(self: encoders.SlowLetters, views: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the GPU is gone")
        return encode(self, views)  # type: ignore[arg-type]

    monkeypatch.setattr(encoders.SlowLetters, "encode", fails_once)
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "failed: encode shard 1 of 1 of c01" in printed.err
    assert "RuntimeError: the GPU is gone" in printed.err
    assert main(["gather", "plan", "--quiet"]) == 1
    message = capsys.readouterr().err
    assert "encode shard 1 of 1 of c01: failed" in message
    key = message.split("--unit ")[1].split()[0]
    assert main(["work", "plan", "--unit", key, "--quiet"]) == 0
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    assert len(calls) == 17  # one more than there are units: nothing else was encoded again
    assert main(["gather", "plan", "--quiet"]) == 0


def test_what_was_deleted_is_missing_again(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *options(), "--out", "plan"]) == 0
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    for shard in (folder / "plan" / "cache").rglob("*.safetensors"):
        shard.unlink()
    assert main(["gather", "plan", "--quiet"]) == 1
    assert "16 of 19 units of plan not finished" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["embeddings", "scores"])
def test_what_cannot_be_written_is_not_finished(
    folder: Path, capsys: pytest.CaptureFixture[str], part: str
):
    """A full disk: the cache goes on in a temporary folder, which no other process sees."""
    assert main(["plan", *options(), "--out", "plan"]) == 0
    blocked = folder / "plan" / "cache" / part
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("")
    stage = "encode" if part == "embeddings" else "score"
    for _ in range(2):
        assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 1
        error = " ".join(capsys.readouterr().err.split())
        assert f"error: {stage} " in error
        assert f"its result cannot be written to {folder}/plan/cache, so that no other" in error
    assert len(list((folder / "plan").glob("done/*.json"))) == (0 if stage == "encode" else 16)
    blocked.unlink()
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    assert main(["gather", "plan", "--quiet"]) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "0", "seconds": 1}'])
def test_a_damaged_file_of_a_finished_unit_counts_as_none(
    folder: Path, capsys: pytest.CaptureFixture[str], content: str
):
    for path in sorted((folder / "data").glob("*.jsonl"))[2:]:
        path.unlink()
    assert main(["plan", *options(), "--out", "plan"]) == 0
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    first, second, *_ = sorted((folder / "plan" / "done").glob("*.json"))
    first.write_text(content)
    second.unlink()
    (folder / "plan" / "failed").mkdir(exist_ok=True)
    (folder / "plan" / "failed" / second.name).write_text(content)
    assert main(["gather", "plan", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "2 of 6 units of plan not finished" in error
    assert error.count(": missing") == 2
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 0
    assert main(["gather", "plan", "--quiet"]) == 0


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "beyond"])
def test_damaged_positions(folder: Path, capsys: pytest.CaptureFixture[str], damage: str):
    assert main(["plan", *options(), "--out", "plan"]) == 0
    path = folder / "plan" / "positions.npy"
    positions = np.load(path)
    if damage == "empty":
        path.write_bytes(b"")
    else:
        changed = {"short": positions[:-1], "zeros": 0 * positions, "beyond": positions + 99}
        np.save(path, changed[damage])
    assert main(["work", "plan", "--index", "0", "--of", "1", "--quiet"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "positions.npy" in error
    assert "make the plan again" in error


def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]):
    def error(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "nothing holds no plan" in error("gather", "nothing")
    assert "--executor and --devices: leave them out" in error(
        "plan", *options(), "--out", "plan", "--executor", "local"
    )
    assert main(["plan", *options(), "--out", "plan"]) == 0
    assert "plan.json exists: continue it with" in error("plan", *options(), "--out", "plan")
    assert "give --index I --of N, or --unit KEY" in error("work", "plan")
    assert "--index 8: allowed is 0 to 7" in error("work", "plan", "--index", "8", "--of", "8")
    assert "--of 0: allowed is a number from 1" in error(
        "work", "plan", "--index", "0", "--of", "0"
    )
    assert "--unit zz: the keys of 0 units of" in error("work", "plan", "--unit", "zz")

    write(folder / "data" / "c03.jsonl", 20, 1234)
    message = error("work", "plan", "--index", "0", "--of", "1")
    assert "the data has changed since" in message
    assert "was made: c03." in message

    path = folder / "plan" / "plan.json"
    state = json.loads(path.read_text())
    state["environment"]["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(state))
    assert "1.0 there" in error("gather", "plan")
    path.write_text(json.dumps({**state, "format": 2}))
    assert "has format 2, and this version of synque-select reads 1" in error("gather", "plan")
    path.write_text(json.dumps({**state, "units": [{"no": 1}]}))
    assert "plan.json is damaged" in error("gather", "plan")
    path.write_text("{")
    assert "not JSON" in error("gather", "plan")
