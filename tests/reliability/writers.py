"""Eight writers on one run store, caches and study, one of which is killed every three seconds.

`python -m tests.reliability.writers --seconds 60` prints the counts as JSON. A writer notes what it
has written once the call has returned; in the end all of that must be there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import tempfile
import time
import traceback
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import torch

from synque_select.data.candidate import Candidate
from synque_select.encoders.embedding_cache import embed
from synque_select.lens.cache import AnswerCache
from synque_select.records.store import RunStore
from synque_select.tuning.recovery import Worker
from synque_select.tuning.samplers import study_sampler
from synque_select.tuning.storages import open_storage
from synque_select.tuning.studies import Beginning, open_study, origin_of, quiet_optuna
from tests.records.records_data import make_record
from tests.training.tiny import LetterEncoder, letters

STARTS = {"one": {"x": 0.25}, "two": {"x": 0.75}}
HEARTBEAT_S = 1
WHOLE = 1_000_000_000


class Writer:
    """Writes to everything in turn until the file `stop` is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = (folder / f"notes-{os.getpid()}").open("a")
        self._store = RunStore(folder / "records.sqlite")
        self._answers = AnswerCache(folder / "answers.sqlite")
        self._study, self._worker = open_worker(folder, WHOLE)

    def run(self) -> None:
        steps = [self._record, self._answer, self._embed, self._trial]
        while not (self._folder / "stop").exists():
            for step in steps:
                kind, name = step()
                self._notes.write(json.dumps([kind, name]) + "\n")
                self._notes.flush()

    def _record(self) -> tuple[str, str]:
        name = uuid.uuid4().hex
        self._store.write(make_record(name, 0.5))
        return "records", name

    def _answer(self) -> tuple[str, str]:
        name = uuid.uuid4().hex
        self._answers.put({name: [name]})
        return "answers", name

    def _embed(self) -> tuple[str, str]:
        # a few views, so that writers encode the same ones at the same time
        texts = [f"view {random.randrange(40)}" for _ in range(4)]
        examples = Candidate("c", texts, view=None)
        cached = embed(LetterEncoder(), examples, cache_dir=self._folder, progress=False)
        expected = torch.stack([letters(text) for text in texts])
        assert torch.equal(cached.embeddings, expected), texts
        return "embeddings", uuid.uuid4().hex

    def _trial(self) -> tuple[str, str]:
        assert self._worker.wait_for_work()
        n_before = len(DONE)
        is_own = self._worker.try_one(objective)
        has_run = is_own and len(DONE) > n_before
        return ("trials", str(DONE[-1])) if has_run else ("left out", "")


DONE: list[int] = []  # numbers of the trials that this process has finished


def objective(trial: optuna.Trial) -> float:
    value = trial.suggest_float("x", 0, 1)
    DONE.append(trial.number)
    return value


def open_worker(folder: Path, n_trials: int) -> tuple[optuna.Study, Worker]:
    storage = open_storage(folder / "studies.sqlite", HEARTBEAT_S)
    study, plan = open_study(storage, "shared", "max", {}, lambda: Beginning(STARTS), WHOLE)
    study.sampler = study_sampler("random", plan, 0)
    worker = Worker(study, plan, n_trials=n_trials, silence_s=3 * HEARTBEAT_S, has_heartbeats=True)
    return study, worker


def start(folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        output = os.open(folder / f"output-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with quiet_optuna():
            Writer(folder).run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_writers(folder: Path, n: int, seconds: float, every_s: float) -> Counter[str]:
    """Let writers write for some time, kill one now and then, and check what is left."""
    open_storage(folder / "warm.sqlite", HEARTBEAT_S)  # imports what every writer needs
    moments, writers, n_kills = random.Random(0), [start(folder) for _ in range(n)], 0
    while not all(_notes(folder, pid) for pid in writers):
        time.sleep(0.1)  # on a busy machine the first writes take a while
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(max(0.0, min(every_s, end - time.monotonic())) + moments.uniform(0, 0.02))
        killed = writers.pop(moments.randrange(n))
        os.kill(killed, signal.SIGKILL)
        _, status = os.waitpid(killed, 0)
        assert os.WIFSIGNALED(status), _output(folder, killed)
        n_kills += 1
        writers.append(start(folder))
    (folder / "stop").touch()
    for pid in writers:
        _, status = os.waitpid(pid, 0)
        assert status == 0, _output(folder, pid)
    written = _check(folder)
    return Counter({"writers": n, "kills": n_kills, **written})


def _notes(folder: Path, pid: int) -> str:
    file = folder / f"notes-{pid}"
    assert not _output(folder, pid), _output(folder, pid)
    return file.read_text() if file.exists() else ""


def _output(folder: Path, pid: int) -> str:
    file = folder / f"output-{pid}"
    return file.read_text()[-4000:] if file.exists() else ""


def _check(folder: Path) -> Counter[str]:
    noted: dict[str, set[str]] = {}
    for file in folder.glob("notes-*"):
        for line in file.read_text().splitlines():
            if line.endswith("]"):  # a killed writer may have written a part of its last line
                kind, name = json.loads(line)
                noted.setdefault(kind, set()).add(name)
    for name in ("records.sqlite", "answers.sqlite", "studies.sqlite"):
        with closing(sqlite3.connect(folder / name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], name
    stored = {record.unit for record in RunStore(folder / "records.sqlite").read()}
    assert noted["records"] <= stored
    answers = AnswerCache(folder / "answers.sqlite").get(sorted(noted["answers"]))
    assert answers == {name: [name] for name in noted["answers"]}
    _check_study(folder, noted["trials"])
    assert not list(folder.rglob("unstored_records"))
    return Counter({kind: len(names) for kind, names in noted.items() if kind != "left out"})


def _check_study(folder: Path, noted: set[str]) -> None:
    with quiet_optuna():
        study, _ = open_worker(folder, 0)
        trials = study.get_trials(deepcopy=False)
        complete = {str(trial.number) for trial in trials if trial.state.name == "COMPLETE"}
        assert noted <= complete
        # the trials that were running when their workers were killed are recovered
        study, worker = open_worker(folder, len(complete) + 1000)
        waiting = _unfinished(study)
        deadline = time.monotonic() + 60
        while waiting:
            assert time.monotonic() < deadline, waiting
            assert worker.wait_for_work()
            worker.try_one(objective)
            waiting = _unfinished(study)
    by_place: Counter[int] = Counter(
        origin_of(trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE"
    )
    assert set(by_place.values()) == {1}  # no point was tried twice


def _unfinished(study: optuna.Study) -> set[int]:
    """Return the places without a complete trial, by the numbers of their first trials."""
    trials: list[Any] = study.get_trials(deepcopy=False)
    complete = {origin_of(trial) for trial in trials if trial.state.name == "COMPLETE"}
    return {origin_of(trial) for trial in trials} - complete


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--every", type=float, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        counts = run_writers(Path(folder), options.writers, options.seconds, options.every)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
