"""Real processes whose weights change are killed at random moments, on one rank and on two."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synque_select.training.mixture_loader import MixtureDataset
from synque_select.training.weight_changes import WeightChange, WeightTable
from synque_select.types import Mixture
from tests.training.scripts.reselecting import EVERY, MAX_STEPS, SAVED_EVERY, START
from tests.training.tiny import candidates
from tests.warm_processes import run_warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "reselecting.py"

pytestmark = pytest.mark.xdist_group("killed")


def run(folder: Path, devices: int, *moment: str, policy: str = "odm", **variables: str) -> None:
    folder.mkdir(exist_ok=True)
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "POLICY": policy}
    done = run_warm(
        [SCRIPT, folder, str(devices), *moment],
        env={**os.environ, **variables},
        timeout=240,
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


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory) -> Callable[[int, str], Path]:
    """Undisturbed runs, each of which runs once for all tests."""

    @functools.cache
    def whole(devices: int, policy: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        run(folder, devices, policy=policy)
        return Path(folder)

    return whole


@pytest.mark.parametrize(
    ("policy", "devices"),
    [
        ("odm", 1),
        ("odm", 2),
        ("aioli", 1),
        # two ranks are those of odm, and the state of aioli that of one rank
        pytest.param("aioli", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, whole_runs, devices, policy):
    whole, killed = whole_runs(devices, policy), tmp_path / "killed"
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


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["odm", "aioli", "surrogate", "agreement", "static"])
def test_two_ranks_serve_the_draws_of_any_policy(whole_runs, policy):
    """Their batches are, in turn, the draws with the weights that rank 0 has decided on."""
    folder = whole_runs(2, policy)
    one, other = results(folder, 2)
    assert one["points"] == other["points"]
    assert len(one["points"]) == 1 if policy == "static" else len(one["points"]) > 2
    served = []
    for parts in zip(*(batches(folder, rank) for rank in range(2)), strict=True):
        for texts in itertools.zip_longest(*(part["texts"] for part in parts)):
            served += [text for text in texts if text is not None]
    owner = {row["text"]: part.name for part in candidates() for row in part.dataset}
    ends = [point["draw"] for point in one["points"][1:]] + [len(served)]
    for point, end in zip(one["points"], ends, strict=True):
        drawn = {owner[text] for text in served[point["draw"] : end]}
        assert drawn <= {name for name, weight in point["weights"].items() if weight}
    parts = [part for part in candidates() if part.name in START]
    table = WeightTable(list(START))
    for point in one["points"][1:]:
        table.add(WeightChange(point["draw"], point["step"], point["weights"], 0))
    if policy == "surrogate":  # trains on what is not held out
        return
    dataset = MixtureDataset(parts, Mixture(START), changes=table)
    epoch = len(dataset) // 2 * 2
    dataset = MixtureDataset(parts, Mixture(START), epoch_length=epoch, changes=table)
    assert served == [dataset[draw]["text"] for draw in range(len(served))]


def test_all_ranks_have_the_same_weights(whole_runs):
    folder = whole_runs(2, "odm")
    one, other = results(folder, 2)
    assert one["points"] == other["points"]
    # DDP keeps running means of batch normalization on each rank until the next batch
    own = {name for name in one["weights"] if "running" in name}
    assert len(own) == 2
    for name in one["weights"].keys() - own:
        assert one["weights"][name] == other["weights"][name]
    (run_dir,) = (folder / "runs" / "Model").iterdir()
    assert one["run_dir"] == str(run_dir)
    assert (run_dir / "weights.json").is_file()


def test_the_caller_of_launched_processes_knows_the_trajectory(tmp_path, whole_runs):
    run(tmp_path / "spawn", 2, STRATEGY="ddp_spawn")
    (spawned,) = results(tmp_path / "spawn", 1)
    assert spawned["points"] == results(whole_runs(2, "odm"), 2)[0]["points"]
    assert Path(spawned["run_dir"]).parent == tmp_path / "spawn" / "runs" / "Model"
