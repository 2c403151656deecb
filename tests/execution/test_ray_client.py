"""`ray://`: a cluster that this machine is not a part of, through its client server."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from synque_select.cli.main import main
from tests.execution.ray_processes import end_processes_with

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: make install has it"
)
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240.0  # a busy machine; alone, a cluster starts in seconds


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    mark = f"mark-{uuid.uuid4().hex}"
    yield {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SLOW_ENCODER_LOG": str(tmp_path / "log"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "1",
        "OMP_NUM_THREADS": "1",
        "SYNQUE_TEST_MARK": mark,
    }
    end_processes_with(mark)


@pytest.fixture
def address(environment: dict[str, str]) -> Iterator[str]:
    """Start a cluster of one CPU; return the address of its client server."""
    port = free_port()
    # not under tmp_path, which is too long for the names of its sockets
    options = [f"--port={free_port()}", f"--ray-client-server-port={port}", "--num-cpus=1"]
    options += ["--include-dashboard=false", "--object-store-memory=80000000", "--block"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *options]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet) as head:
        wait_for(port)
        yield f"ray://127.0.0.1:{port}:cpus=1"
        head.kill()


def write(path: Path, seed: int) -> None:
    letters = random.Random(seed)
    rows = ["".join(letters.choices("abcdefgh ", k=30)) + str(i) for i in range(20)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def rank(seconds: float, *more: str) -> list[str]:
    encoder = f"tests.execution.encoders:SlowLetters:seconds={seconds}"
    suite = ["--proxies", "mmd,ngram", "--encoder", encoder, "--quiet"]
    return ["rank", "--candidates", "data", "--real", "real.jsonl", *suite, *more]


def scores(path: Path) -> object:
    return [row["scores"] for row in json.loads(path.read_text())["candidates"]]


# one test, as each would start a cluster of its own
def test_the_same_ranking_and_a_lost_cluster_is_one_error(
    tmp_path: Path,
    environment: dict[str, str],
    address: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for i in range(3):
        write(tmp_path / "data" / f"c{i}.jsonl", i)
    write(tmp_path / "real.jsonl", 99)
    log = tmp_path / "log"

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "synque_select", *arguments, "--executor", address]

    there = command(*rank(0, "--json", "there", "--cache-dir", "there-cache"))
    done = subprocess.run(there, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert len(log.read_text().split()) == 4  # once per set of examples, by another process
    assert main(rank(0, "--json", "here", "--cache-dir", "here-cache")) == 0
    assert scores(tmp_path / "there" / "ranking.json") == scores(tmp_path / "here" / "ranking.json")

    log.unlink()
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            command(*rank(600, "--cache-dir", "lost")),
            env={**environment, "SYNQUE_TEST_MARK": ""},
            stderr=errors,
        ) as running,
    ):
        try:
            deadline = time.monotonic() + LIMIT_S
            while not log.exists():
                assert running.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            end_processes_with(environment["SYNQUE_TEST_MARK"])
            assert running.wait(LIMIT_S) == 1
        finally:
            running.kill()
    message = (tmp_path / "errors").read_text()
    assert "error: the Ray cluster failed, or the connection to it was lost (" in message
    assert "Traceback" not in message
