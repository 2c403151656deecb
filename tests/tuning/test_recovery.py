"""Trials that a worker left unfinished, at any moment: repeated at their places."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from synque_select.tuning import recovery  # noqa: E402 - needs the module above
from synque_select.tuning.recovery import Worker  # noqa: E402
from synque_select.tuning.result import PARAMETERS  # noqa: E402
from synque_select.tuning.samplers import SAMPLERS, study_pruner, study_sampler  # noqa: E402
from synque_select.tuning.storages import open_storage  # noqa: E402
from synque_select.tuning.studies import (  # noqa: E402
    Beginning,
    open_study,
    origin_of,
    place_of,
    quiet_optuna,
)
from synque_select.utils.process_identity import process_identity  # noqa: E402

STARTS = {"one": {"x": 0.25, "y": 0.5}, "two": {"x": 0.75, "y": 0.5}}
SILENCE_S = 0.3

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def ended() -> str:
    """The identity of a process that has ended."""
    code = "from synque_select.utils.process_identity import *; print(process_identity())"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def objective(trial: Any) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    lr = trial.suggest_float("k", 0.1, 1, log=True)  # a hyper-parameter of the user's
    trial.set_user_attr(PARAMETERS, {"lr": lr})
    return -((x - 0.3) ** 2) - (y - 0.6) ** 2 + lr / 10


class Searching:
    """One worker on a study in a file."""

    def __init__(self, folder: Path, n_trials: int, sampler: str = "random") -> None:
        storage = open_storage(folder / "studies.journal", 60)
        self.study, plan = open_study(storage, "s", "max", {}, lambda: Beginning(STARTS), 3)
        self.study.sampler = study_sampler(sampler, plan, 0)
        self.study.pruner = study_pruner("none", 1, 1)
        self.worker = Worker(
            self.study, plan, n_trials=n_trials, silence_s=SILENCE_S, has_heartbeats=False
        )

    def run(self, function: Callable[[Any], float] = objective) -> None:
        with quiet_optuna():
            while self.worker.wait_for_work():
                self.worker.try_one(function)

    def points(self) -> dict[int, tuple[dict[str, float], float]]:
        trials = [t for t in self.study.get_trials() if t.state.name == "COMPLETE"]
        return {place_of(self.study, t): (t.params, t.value) for t in trials}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n_chosen", [0, 1, 3])
def test_a_disturbed_study_draws_what_an_undisturbed_one_draws(
    tmp_path: Path, ended: str, sampler: str, n_chosen: int
):
    """Workers are killed again and again, before, while and after they have chosen a point."""
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    (tmp_path / "whole").mkdir()
    whole = Searching(tmp_path / "whole", 14, sampler)
    whole.run()
    for n in (0, 1, 4, 7, 8, 11, 13, 14):
        disturbed = Searching(tmp_path, n, sampler)
        disturbed.run()
        if n == 14:
            break
        with quiet_optuna():
            trial = disturbed.study.ask()
            names = ["x", "y", "k"][:n_chosen]
            for name in names:
                trial.suggest_float(name, *((0.1, 1) if name == "k" else (0, 1)), log=name == "k")
            if n_chosen == 3:
                trial.set_user_attr(PARAMETERS, {"lr": 0.1})
            trial.set_user_attr("worker", ended)
    states = [trial.state.name for trial in disturbed.study.get_trials()]
    assert states.count("FAIL") == 7
    assert disturbed.points() == whole.points()
    assert set(whole.points()) == set(range(14))
    assert len({str(point) for point in whole.points().values()}) == 14


def test_a_worker_that_was_killed_before_it_signed(tmp_path: Path):
    """It has taken a trial and written no heartbeat: Optuna itself would never miss it."""
    first = Searching(tmp_path, 2)
    with quiet_optuna():
        first.study.ask()
    second = Searching(tmp_path, 3)
    started = time.monotonic()
    second.run()
    assert SILENCE_S < time.monotonic() - started < 30
    trials = second.study.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert origin_of(trials[1]) == 0
    assert trials[1].params["x"] == 0.25


def test_a_worker_that_lives_is_waited_for(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", "from synque_select.utils.process_identity import *;"
         "print(process_identity(), flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = Searching(tmp_path, 1)
    with quiet_optuna():
        first.study.ask().set_user_attr("worker", process.stdout.readline().strip())
    second = Searching(tmp_path, 1)
    assert not second.worker.wait_for_work()  # the other worker has the only trial
    process.communicate("")
    second.run()
    assert [t.state.name for t in second.study.get_trials()] == ["FAIL", "COMPLETE"]


def test_a_trial_that_kills_every_worker_is_given_up(tmp_path: Path, ended: str):
    for _ in range(4):
        searching = Searching(tmp_path, 2)
        assert searching.worker.wait_for_work()
        with quiet_optuna():
            searching.study.ask().set_user_attr("worker", ended)
    last = Searching(tmp_path, 2)
    last.run()
    assert sorted(last.points()) == [1, 2]


def test_a_trial_that_ends_with_an_error(tmp_path: Path):
    """A start is tried until it runs, another point four times."""

    def fail(trial: Any) -> float:
        raise RuntimeError("a bug of the user's")

    for n_times, n_trials in ((6, 1), (4, 4)):
        for _ in range(n_times):
            with pytest.raises(RuntimeError, match="bug"):
                Searching(tmp_path, n_trials).run(fail)
        last = Searching(tmp_path, 3 if n_trials == 1 else 4)
        last.run()
    assert sorted(last.points()) == [0, 1, 2, 4]


def test_two_workers_that_find_the_same_unfinished_trial(tmp_path: Path, ended: str):
    first = Searching(tmp_path, 2)
    with quiet_optuna():
        first.study.ask().set_user_attr("worker", ended)
    second = Searching(tmp_path, 2)
    for searching in (first, second):  # each before it sees what the other has enqueued
        searching.study.tell(0, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        searching.study.enqueue_trial({}, user_attrs={"repeats": 0})
    second.run()
    trials = second.study.get_trials()
    assert [t.user_attrs.get("superfluous", False) for t in trials] == [False, False, True, False]
    assert sorted(second.points()) == [0, 1]


def test_the_own_process_has_left_a_trial(tmp_path: Path):
    """Ctrl-C between two statements of Optuna, in a notebook that goes on."""
    searching = Searching(tmp_path, 1)
    with quiet_optuna():
        searching.study.ask().set_user_attr("worker", process_identity())
    searching.run()
    assert sorted(searching.points()) == [0]


def test_a_worker_that_was_taken_for_dead_goes_on(tmp_path: Path):
    """Another worker has failed and repeated its trial while it was too busy for heartbeats."""
    searching = Searching(tmp_path, 2)

    def slow(trial: Any) -> float:
        if trial.number == 0:
            searching.study.tell(0, state=optuna.trial.TrialState.FAIL)
            return 0.5
        return objective(trial)

    searching.run(slow)
    states = [trial.state.name for trial in searching.study.get_trials()]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert sorted(searching.points()) == [0, 1]


def test_a_worker_that_is_taken_for_dead_before_it_tells_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The value is computed and checked; Optuna itself then says that it should not get there."""
    searching, store = Searching(tmp_path, 2), recovery.store_checksum

    def fail_after(trial: Any, value: float | None) -> None:
        store(trial, value)
        if trial.number == 0:
            searching.study.tell(0, state=optuna.trial.TrialState.FAIL)

    monkeypatch.setattr(recovery, "store_checksum", fail_after)
    searching.run()
    states = [trial.state.name for trial in searching.study.get_trials()]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert sorted(searching.points()) == [0, 1]
