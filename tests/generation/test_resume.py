"""A run that is killed goes on: no answer is asked for twice, and the result is the same."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.generation.sentences import WritingServer, engine, sentences, write_data


def command(tmp_path: Path, server: WritingServer, run_dir: Path) -> list[str]:
    return [
        sys.executable, "-m", "synque_select", "improve",
        "--candidate", str(tmp_path / "made.json"),
        "--real", str(tmp_path / "real.json"),
        "--view", "text", "--label", "kind", "--proxies", "mmd,coverage,ngram",
        "--generator", json.dumps(engine(server, max_concurrency=1)),
        "--examples", "30", "--per-call", "6", "--rubric-points", "3",
        "--run-dir", str(run_dir), "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip


def by_content(prompt: str, n: int) -> list[str]:
    """Texts that depend on the prompt only, so that two runs get the same."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
    return sentences("real" if "in round 1" in prompt else "made", n, seed)


def run(arguments: list[str]) -> str:
    environment = {**os.environ, "OPENAI_API_KEY": "x"}
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The folder of an undisturbed run, and its requests."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder)
    with WritingServer({1: by_content, 2: by_content}) as server:
        run(command(folder, server, folder / "run"))
        return folder, set(map(json.dumps, server.requests))


# in the rubric of the first round, in its calls, and in the second round
@pytest.mark.parametrize("n_answered", [2, 6, 11])
def test_a_killed_run_goes_on(whole: tuple[Path, set[str]], tmp_path: Path, n_answered: int):
    folder, requests = whole
    with WritingServer({1: by_content, 2: by_content}, pause_s=0.2) as server:
        arguments = command(folder, server, tmp_path / "run")
        environment = {**os.environ, "OPENAI_API_KEY": "x"}
        process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
        while len(server.requests) <= n_answered:
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)
        before = list(map(json.dumps, server.requests))
        output = run(arguments)
        after = list(map(json.dumps, server.requests))[len(before) :]
    # only the answer that was on its way may be asked for again
    assert not set(before[:-1]) & set(after)
    assert len(before) + len(after) <= len(requests) + 1
    assert set(before) | set(after) == requests
    for name in ("round-1.jsonl", "round-2.not-kept.jsonl", "improved.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / "run" / name).read_bytes()
    one, other = (result(path / "run") for path in (tmp_path, folder))
    assert one == other
    assert "1 round kept" in output
    lines = (tmp_path / "run/usage.jsonl").read_text().split()
    assert sum('"n_requests":' in line for line in lines) >= len(requests)


def result(run_dir: Path) -> dict[str, Any]:
    """Return the result without what an answer costs that was on its way."""
    state = json.loads((run_dir / "improve.json").read_text())
    for part in (state, *state["rounds"]):
        del part["spent"]
    return state
