"""Studies in real processes: a worker that is killed, several workers at once, two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from synque_select.records.store import RunStore
from tests.training.tiny import texts_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "tune_worker.py"


def start(*arguments: Any) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, str]:
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def states(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="shared", storage=f"sqlite:///{folder}/studies.sqlite")
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("dies_in", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_the_trial_of_a_killed_worker_is_repeated_and_nothing_is_doubled(tmp_path, dies_in):
    """A worker is killed in an enqueued or a random trial; a second worker finishes the study."""
    status, _ = finish(start("worker", tmp_path, dies_in))
    assert status == -signal.SIGKILL
    assert states(tmp_path)[dies_in - 1] == "RUNNING"
    before = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len(before) == dies_in - 1
    status, output = finish(start("worker", tmp_path, -1))
    assert status == 0, output
    trial_states = states(tmp_path)
    assert trial_states.count("COMPLETE") == 8
    assert trial_states[dies_in - 1] == "FAIL"
    trials = json.loads((tmp_path / "result.json").read_text())["trials"]
    (again,) = [trial for trial in trials if trial["retry_of"] is not None]
    killed = trials[dies_in - 1]
    assert (killed["state"], again["retry_of"]) == ("failed", killed["number"])
    for what in ("weights", "role", "start"):
        assert again[what] == killed[what]
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len(records) == 8
    assert [record for record in records if record in before] == before
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert {r.details["number"] for r in records} == {t["number"] for t in complete}


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path):
    workers = [start("worker", tmp_path, -1) for _ in range(2)]
    for worker in workers:
        status, output = finish(worker)
        assert status == 0, output
    trial_states = states(tmp_path)
    assert set(trial_states) == {"COMPLETE"}
    assert 8 <= len(trial_states) <= 9  # both may take the last trial at the same moment
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len({record.run_id for record in records}) == len(records) == len(trial_states)


def test_two_ranks_fit_what_rank_zero_samples(tmp_path):
    status, output = finish(start("ranks", tmp_path, "ok"))
    assert status == 0, output
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["result"] == second["result"]
    trials = first["result"]["trials"]
    assert [trial["state"] for trial in trials] == ["pruned"] * 5 + ["complete"] * 2 + ["pruned"]
    assert len(first["fits"]) == len(second["fits"]) == 8
    for trial, one, two in zip(trials, first["fits"], second["fits"], strict=True):
        assert one["lr"] == two["lr"] == trial["hyper_parameters"]["lr"]
        steps = 4 if trial["state"] == "complete" else 2
        assert len(one["seen"]) == len(two["seen"]) == steps
        texts = [{text for batch in fit["seen"] for text in batch} for fit in (one, two)]
        assert texts[0] | texts[1] <= texts_of(*trial["weights"])
        assert not texts[0] & texts[1]
    records = RunStore(tmp_path / "records.sqlite").read(kind="trial")
    assert len(records) == 8


@pytest.mark.slow
def test_an_error_ends_both_ranks(tmp_path):
    status, output = finish(start("ranks", tmp_path, "fail"), timeout=150)
    assert status != 0
    assert "nothing" in output
