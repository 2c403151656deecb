"""Real processes whose weights change are killed at random moments, on one rank and on two."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.scripts.reselecting import EVERY, MAX_STEPS, SAVED_EVERY, START

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "reselecting.py"

pytestmark = pytest.mark.xdist_group("killed")


def run(folder: Path, devices: int, *moment: str, policy: str = "odm", **variables: str) -> None:
    folder.mkdir(exist_ok=True)
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "POLICY": policy}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(devices), *moment],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        start_new_session=True,  # it kills its whole group
    )
    if moment:
        assert done.returncode == -9, done.stderr[-3000:]
    else:
        assert done.returncode == 0, done.stderr[-3000:]


def batches(folder: Path, rank: int) -> list[dict[str, Any]]:
    lines = (folder / f"rank{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def results(folder: Path, devices: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"done{rank}.json").read_text()) for rank in range(devices)]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("policy", ["odm", "aioli"])
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, devices, policy):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, devices, policy=policy)
    moments = random.Random(f"{devices} {policy}")
    n_left = 2 * MAX_STEPS
    for _ in range(2):
        nth = moments.randint(2 * SAVED_EVERY, n_left // 2)
        run(killed, devices, str(nth), f"{moments.uniform(0, 0.01):.4f}", policy=policy)
        n_left -= nth
    run(killed, devices, policy=policy)

    for rank in range(devices):
        expected = {}
        for event in batches(whole, rank):
            expected.setdefault(event["step"], []).append(event["texts"])
        pids = list(dict.fromkeys(event["pid"] for event in batches(killed, rank)))
        assert len(pids) == 3
        last: dict[int, list[list[str]]] = {}
        for event in (e for e in batches(killed, rank) if e["pid"] == pids[-1]):
            last.setdefault(event["step"], []).append(event["texts"])
        assert min(last) > 0, "the last process has resumed"
        assert last == {step: texts for step, texts in expected.items() if step >= min(last)}
    for one, other in zip(results(whole, devices), results(killed, devices), strict=True):
        assert one["weights"] == other["weights"]
        assert one["points"] == other["points"]
        assert one["policy"] == other["policy"]
    points = results(whole, devices)[0]["points"]
    assert len(points) > 2
    assert points[0]["weights"] == START
    assert points[-1]["weights"] != START
    assert points[1]["step"] == EVERY


def test_two_ranks_serve_what_one_rank_serves(tmp_path):
    for devices in (1, 2):
        run(tmp_path / str(devices), devices, policy="static")
    (alone,) = [batches(tmp_path / "1", 0)]
    both = [batches(tmp_path / "2", rank) for rank in range(2)]
    assert len(alone) == len(both[0]) == len(both[1])
    for event, *parts in zip(alone, *both, strict=True):
        assert sorted(event["texts"]) == sorted(parts[0]["texts"] + parts[1]["texts"])


def test_all_ranks_have_the_same_weights(tmp_path):
    run(tmp_path, 2)
    one, other = results(tmp_path, 2)
    assert one["points"] == other["points"]
    # DDP keeps running means of batch normalization on each rank until the next batch
    own = {name for name in one["weights"] if "running" in name}
    assert len(own) == 2
    for name in one["weights"].keys() - own:
        assert one["weights"][name] == other["weights"][name]
    (run_dir,) = (tmp_path / "runs" / "Model").iterdir()
    assert one["run_dir"] == str(run_dir)
    assert (run_dir / "weights.json").is_file()


def test_the_caller_of_launched_processes_knows_the_trajectory(tmp_path):
    run(tmp_path / "ddp", 2)
    run(tmp_path / "spawn", 2, STRATEGY="ddp_spawn")
    (spawned,) = results(tmp_path / "spawn", 1)
    assert spawned["points"] == results(tmp_path / "ddp", 2)[0]["points"]
    assert Path(spawned["run_dir"]).parent == tmp_path / "spawn" / "runs" / "Model"
