"""Workers that open one study at once: one creates it, all of them work on it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")

from synque_select.errors import ConfigError  # noqa: E402 - needs the module above
from synque_select.tuning.storages import open_storage  # noqa: E402
from synque_select.tuning.studies import Beginning, open_study  # noqa: E402

STARTS = {"equal": {"a": 0.5}, "best": {"a": 1.0}}
N_EACH = 10
WORKER = f"""
import json, sys
from synque_select.tuning.storages import open_storage
from synque_select.tuning.samplers import study_sampler
from synque_select.tuning.studies import Beginning, open_study
print("ready", flush=True)
sys.stdin.readline()
storage = open_storage(sys.argv[1], 60)
beginning = Beginning(json.loads(sys.argv[2]))
study, plan = open_study(storage, "s", "max", {{"k": 3}}, lambda: beginning, 3)
study.sampler = study_sampler("random", plan, 0)
for _ in range({N_EACH}):
    trial = study.ask()
    study.tell(trial, trial.suggest_float("a", 0, 1))
"""


def run_two_workers(storage: Path, starts: dict[str, dict[str, float]]) -> None:
    command = [sys.executable, "-c", WORKER, str(storage), json.dumps(starts)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    workers = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    errors = [worker.communicate(timeout=240)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors


@pytest.mark.parametrize("n_starts", [2, 2 * N_EACH])
@pytest.mark.parametrize("name", ["studies.db", "studies.journal"])
def test_two_processes_begin_one_study_at_once(tmp_path: Path, name: str, n_starts: int):
    """No trial is run by both workers, neither a new one nor an enqueued one."""
    starts = {f"start {i}": {"a": i / n_starts} for i in range(n_starts)}
    run_two_workers(tmp_path / name, starts)
    study, plan = open_study(
        open_storage(tmp_path / name, 60), "s", "max", {"k": 3}, lambda: Beginning(starts), 3
    )
    done = study.get_trials(deepcopy=False)
    assert [trial.number for trial in done] == list(range(2 * N_EACH))
    assert all(trial.state.is_finished() for trial in done)
    drawn = [trial.params["a"] for trial in done]
    assert drawn[:n_starts] == [point["a"] for point in starts.values()]
    assert len(set(drawn)) == 2 * N_EACH
    assert dict(plan.starts) == starts


def test_a_worker_that_comes_before_the_study_is_marked_waits(tmp_path: Path):
    """Another worker has created the study, and is about to mark it."""
    storage = open_storage(tmp_path / "studies.db", 60)
    made = optuna.create_study(storage=storage, study_name="s", direction="maximize")

    def mark() -> None:
        time.sleep(0.5)
        state = {"version": 3, "id": "x", "stamp": {"k": 3}, "starts": {}, "earlier": {}}
        made.set_user_attr("synque_select", state)

    marking = threading.Thread(target=mark)
    marking.start()
    _, plan = open_study(storage, "s", "max", {"k": 3}, lambda: Beginning(STARTS), 3)
    marking.join()
    assert (plan.study_id, plan.starts) == ("x", {})


def test_a_worker_that_was_killed_before_it_had_marked_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("synque_select.tuning.studies._STAMP_TIMEOUT_S", 0.3)
    storage = open_storage(tmp_path / "studies.db", 60)
    optuna.create_study(storage=storage, study_name="s", direction="maximize")
    _, plan = open_study(storage, "s", "max", {"k": 3}, lambda: Beginning(STARTS), 3)
    assert plan.starts == STARTS
    assert open_study(storage, "s", "max", {"k": 3}, lambda: Beginning({}), 3)[1] == plan


def test_a_study_of_somebody_else_is_refused(tmp_path: Path):
    storage = open_storage(tmp_path / "studies.db", 60)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.set_user_attr("mine", True)
    with pytest.raises(ConfigError, match="synque-select did not create; give another name"):
        open_study(storage, "s", "max", {"k": 3}, lambda: Beginning(STARTS), 3)
    study.set_user_attr("synque_select", {"k": 3})
    with pytest.raises(ConfigError, match=r"made by another version of synque-select"):
        open_study(storage, "s", "max", {"k": 3}, lambda: Beginning(STARTS), 3)
