"""Two real processes (gloo): rank 0 scores, all ranks train on the same mixture, or all fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synque_select.records.store import RunStore
from tests.training.tiny import texts_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "ddp_selection.py"
N_EPOCHS = 2
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

pytestmark = pytest.mark.xdist_group("ranks")


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *arguments],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def written(folder: Path, first: int = 0) -> list[dict[str, Any]]:
    """What each rank wrote; a rank that lost the others ends by itself."""
    files = [folder / f"rank{rank}.json" for rank in (0, 1)]
    deadline = time.monotonic() + 30
    while not all(file.exists() for file in files[first:]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [json.loads(f.read_text()) if f.exists() else {} for f in files]


def launch(folder: Path, strategy: str, mode: str = "") -> list[dict[str, Any]]:
    """Run the script to its end on two ranks and return what each of them wrote."""
    status, output = end(start(folder, strategy, mode))
    assert status == 0, output[-3000:]
    return written(folder)


def check_served_and_scored(folder: Path, ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert (first["n_encoded"], second["n_encoded"]) == (5 * 60 + 30, 0)
    assert first["mixture"] == second["mixture"] == {"near": 0.5, "mixed": 0.5}
    for shared in ("ranking", "run_dir", "run_id"):
        assert first[shared] == second[shared]
    for epoch in range(N_EPOCHS):
        shares = [
            [text for at, batch in rank["batches"] if at == epoch for text in batch]
            for rank in ranks
        ]
        assert [len(share) for share in shares] == [60, 60]
        # every example of the mixture exactly once, as the weights say
        assert Counter(shares[0] + shares[1]) == Counter(texts_of("near", "mixed"))
    assert (Path(first["run_dir"]) / "ranking.json").is_file()
    assert len(list((folder / "runs" / "OwnModel").iterdir())) == 1
    (record,) = RunStore(folder / "records.sqlite").read()
    assert record.run_id == first["run_id"]
    assert record.key["examples_drawn"] == N_EPOCHS * 8 * 8 * 2  # whole batches on both ranks


@pytest.mark.parametrize(
    "strategy", ["ddp", "ddp_spawn", pytest.param("ddp_notebook", marks=pytest.mark.slow)]
)
def test_rank_zero_scores_for_all_and_the_caller_knows(tmp_path, strategy):
    ranks = launch(tmp_path, strategy)
    check_served_and_scored(tmp_path, ranks)
    callers = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("caller*.json"))]
    assert len(callers) == (2 if strategy == "ddp" else 1)
    for caller in callers:
        for known in ("mixture", "ranking", "run_dir", "run_id"):
            assert caller[known] == ranks[0][known]
        assert caller["record"] == caller["run_id"]


@pytest.mark.slow  # waits for half a minute
def test_scoring_may_take_longer_than_a_collective_of_training(tmp_path):
    check_served_and_scored(tmp_path, launch(tmp_path, "ddp", "slow"))


def test_two_nodes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [start(tmp_path, "ddp", "nodes", NODE_RANK=n, **variables) for n in "01"]
    for node in nodes:
        status, output = end(node)
        assert status == 0, output[-3000:]
    check_served_and_scored(tmp_path, written(tmp_path))


@pytest.mark.slow
def test_probes_in_a_process_of_their_own_are_those_of_one_rank(tmp_path):
    probes = {}
    for strategy in ("auto", "ddp", "ddp_spawn"):
        folder = tmp_path / strategy
        folder.mkdir()
        status, output = end(start(folder, strategy, "probes"))
        assert status == 0, output[-3000:]
        records = RunStore(folder / "records.sqlite").read(kind="probe")
        probes[strategy] = {r.unit: (r.metrics, r.key_hash) for r in records}
        assert len(probes[strategy]) == 5
        file = next(folder.glob("caller0*.json"))
        assert json.loads(file.read_text())["correlations"] == [["mixture", 1], ["probe", 5]]
    assert probes["auto"] == probes["ddp"] == probes["ddp_spawn"]


@pytest.mark.parametrize(
    ("mode", "first_error", "second_error"),
    [
        ("fail", "DependencyError: faces", "DependencyError: rank 0: faces needs the package"),
        ("die", None, "LightningError: the connection to another rank was lost"),
        ("missing", "LightningError: rank 1: FileNotFoundError: val.json", "FileNotFoundError"),
    ],
)
def test_a_failure_reaches_every_rank(tmp_path, mode, first_error, second_error):
    status, _ = end(start(tmp_path, "ddp", mode))
    assert status != 0
    first, second = written(tmp_path, 1 if first_error is None else 0)
    assert first.get("error", "").startswith(first_error or "")
    assert second["error"].startswith(second_error)


@pytest.mark.slow
def test_a_failure_of_a_spawned_rank_is_the_callers_error(tmp_path):
    status, _ = end(start(tmp_path, "ddp_spawn", "missing"))
    assert status != 0
    error = json.loads((tmp_path / "rank0.json").read_text())["error"]
    assert error.startswith("ProcessRaisedException")
    assert "FileNotFoundError: val.json is not on this machine" in error


@pytest.mark.slow
def test_a_failure_on_another_node_ends_both_with_its_error(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [start(tmp_path, "ddp", "nodes-missing", NODE_RANK=n, **variables) for n in "01"]
    started = time.monotonic()
    for node in nodes:
        assert end(node)[0] != 0
    assert time.monotonic() - started < 90
    first, second = written(tmp_path)
    assert first["error"].startswith("LightningError: rank 1: FileNotFoundError")
    assert second["error"].startswith("FileNotFoundError")
