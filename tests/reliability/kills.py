"""Kills of seven kinds of work at seeded moments: what is left is continued to the same result.

`python -m tests.reliability.kills --moments 50` prints the counts as JSON. Each piece of work runs
in a process that is forked from one that has imported everything. It counts its steps: files opened
for writing, renamed or removed, statements of SQL, questions to the judge, steps of training. At
the step of a moment, or up to 3 ms later, it kills itself with SIGKILL, and is started again.
`--two-workers` lets two processes work on one study, of which one is killed and the other goes on.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna  # imported here so that forked processes need not
import sqlalchemy.orm  # noqa: F401
import torch

from synque_select.experiment import ExperimentOptions, run_experiment
from synque_select.lens.config import LensConfig
from synque_select.lens.rubric import Rubric
from synque_select.probing.influence import run_influence
from synque_select.probing.sweep import SweepOptions, run_sweep
from synque_select.proxies.lens import with_lens
from synque_select.records.correlation_file import load_correlations
from synque_select.records.experiment_result import load_result
from synque_select.records.influence_file import load_influence
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer, rank
from synque_select.tuning import TuneOptions
from synque_select.tuning.command import run_tuning
from synque_select.types import Ranking
from tests.training.scripts import resumable
from tests.training.scripts.resumable import Events, LoggedJudge, weigh
from tests.training.shades import Shades
from tests.training.tiny import (
    WORDS,
    LetterEncoder,
    TinyModel,
    candidates,
    data_module,
    real_sample,
)

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
MAX_DELAY_S = 0.003
IN_FLIGHT = 8  # answers of one candidate are stored together
TIMEOUT_S = 900.0  # only ends what hangs: a busy machine may take minutes


class Steps:
    """Counts the steps of this process in a folder, and kills it at one of them."""

    def __init__(self, folder: Path, nth: int, delay_s: float) -> None:
        self.n, self._folder, self._nth, self._delay_s = 0, str(folder), nth, delay_s

    def count(self, *_: object) -> None:
        self.n += 1
        if self.n == self._nth:
            if self._delay_s:
                threading.Timer(self._delay_s, self._kill).start()
            else:
                self._kill()

    def watch(self) -> None:
        """Count from now on: in all files below the folder, and in all SQLite databases."""
        sys.addaudithook(self._audit)
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self.count)
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = traced  # type: ignore[assignment, attr-defined]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event in FILES or (event == "open" and arguments[2] & WRITES)
        if is_write and str(arguments[0]).startswith(self._folder):
            self.count()

    @staticmethod
    def _kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def rank_work(folder: Path) -> None:
    lens = LensConfig(
        scorer=LoggedJudge(None, weigh),
        rubrics=dict.fromkeys(WORDS, Rubric(("words",), ("fruits",), ("birds",))),
        max_samples=8,
        answers=str(folder / "answers.sqlite"),
        progress=False,
    )
    ranking = rank(
        candidates(),
        real_sample(),
        proxies=with_lens(["ngram", "mmd", "lens"], lens, top_k=2),
        top_k=2,
        encoder=LetterEncoder(),
        cache_dir=folder / "cache",
        progress=False,
    )
    save_ranking(ranking, folder / "run")


def sweep_work(folder: Path) -> None:
    torch.manual_seed(0)
    run_sweep(
        TinyModel(),
        data_module(),
        max_steps=4,
        options=SweepOptions(),
        scorer=Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"),
        store=str(folder / "records.sqlite"),
        run_dir=str(folder / "run"),
        trainer_options={"accelerator": "cpu"},
    )


def choose(trial: optuna.Trial) -> dict[str, Any]:
    return {"lr": trial.suggest_float("k", 0.1, 1.0)}


def tune_work(folder: Path) -> None:
    run_tuning(
        TinyModel(),
        data_module(),
        max_steps=4,
        options=TuneOptions(n_trials=11, n_startup=2, heartbeat_s=1, hyper_parameters=choose,
                            n_reports=2, storage=folder / "studies.sqlite"),
        model_factory=TinyModel,
        scorer=Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"),
        store=str(folder / "records.sqlite"),
        run_dir=str(folder / "run"),
        trainer_options={"accelerator": "cpu"},
    )  # fmt: skip


def cmaes_work(folder: Path) -> None:
    """Search with a sampler that keeps a state of its own, over several of its generations."""
    run_tuning(
        TinyModel(),
        data_module(),
        max_steps=4,
        options=TuneOptions(n_trials=24, n_startup=2, heartbeat_s=1, sampler="cmaes", proxy="mmd",
                            pruner="none", storage=folder / "studies.sqlite"),
        model_factory=TinyModel,
        scorer=Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"),
        store=str(folder / "records.sqlite"),
        run_dir=str(folder / "run"),
        trainer_options={"accelerator": "cpu"},
    )  # fmt: skip


def influence_work(folder: Path) -> None:
    os.environ["SYNQUE_CACHE"] = str(folder / "cache")
    torch.manual_seed(0)
    run_influence(
        TinyModel(),
        data_module(),
        max_steps=6,
        run_dir=str(folder / "run"),
        trainer_options={"accelerator": "cpu"},
    )


def experiment_work(folder: Path) -> None:
    options = ExperimentOptions(
        top_k=2,
        replicates=2,
        n_random=2,
        run_dir=folder / "run",
        store=folder / "records.sqlite",
        cache_dir=folder / "cache",
        progress=False,
    )
    run_experiment(Shades(), options)


def plain_ranking(folder: Path) -> dict[str, Any]:
    """Return a ranking without times, paths, and what depends on how often it was begun."""
    ranking: Ranking = load_ranking(folder)
    proxies = {key: replace(info, seconds=0.0) for key, info in ranking.proxies.items()}
    messages = tuple(m for m in ranking.messages if "answers kept from earlier" not in m)
    details = dict(ranking.details)
    if "lens" in details:
        details["lens"] = {**details["lens"], "questions": None, "cost": None}
    plain = replace(ranking, wall_s={}, proxies=proxies, messages=messages, details=details)
    # where and how it was made: the folders of two runs differ
    return {**plain.to_dict(), "origin": None, "made_by": None}


def rank_result(folder: Path) -> object:
    return plain_ranking(folder / "run")


def fit_result(folder: Path) -> object:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    end = [event for event in events if event["kind"] == "done"][-1]
    store = RunStore(folder / "records.sqlite")
    (record,) = store.read(kind="mixture")
    assert record.run_id == end["run_id"]
    return [
        end["weights"],
        plain_ranking(Path(end["run_dir"])),
        [record.key_hash, record.metrics, record.scores],
        sorted((probe.unit, str(probe.metrics)) for probe in store.read(kind="probe")),
        [entry.to_dict() for entry in load_correlations(end["run_dir"])],
    ]


def sweep_result(folder: Path) -> object:
    records = RunStore(folder / "records.sqlite").read()
    return [
        plain_ranking(folder / "run"),
        [entry.to_dict() for entry in load_correlations(folder / "run")],
        sorted((record.run_id, str(record.metrics)) for record in records),
    ]


def influence_result(folder: Path) -> object:
    return {**load_influence(folder / "run").to_dict(), "seconds": None}


def experiment_result(folder: Path) -> object:
    result = load_result(folder / "run")
    records = RunStore(folder / "records.sqlite").read()
    return [
        [repr(getattr(result, part)) for part in ("arms", "comparisons", "candidates")],
        repr(result.correlations),
        sorted((r.run_id, r.kind, str(r.metrics), str(r.scores)) for r in records),
    ]


def finished_trials(folder: Path) -> list[list[Any]]:
    """Return role, start, weights, hyper-parameters, state and value of each finished trial."""
    study = json.loads((folder / "run" / "study.json").read_text())
    fields = ("role", "start", "weights", "hyper_parameters", "state", "value")
    return [[t[f] for f in fields] for t in study["trials"] if t["state"] != "failed"]


def tune_result(folder: Path) -> object:
    study = json.loads((folder / "run" / "study.json").read_text())
    trials = finished_trials(folder)
    records = RunStore(folder / "records.sqlite").read()
    return [
        study["mixture"]["weights"],
        study["hyper_parameters"],
        study["value"],
        sorted(trials, key=str),
        sorted(
            str((r.metrics, r.scores, r.mixture.weights, r.details.get("role"))) for r in records
        ),
    ]


WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "rank": (rank_work, rank_result),
    "fit": (resumable.main, fit_result),
    "sweep": (sweep_work, sweep_result),
    "tune": (tune_work, tune_result),
    "tune with CMA-ES": (cmaes_work, tune_result),
    "influence": (influence_work, influence_result),
    "experiment": (experiment_work, experiment_result),
}


def start(kind: str, folder: Path, nth: int = 0, delay_s: float = 0.0, name: str = "") -> int:
    """Begin the work in a forked process, and return its id."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        _child(kind, folder, nth, delay_s, name)
    return pid


def wait(pid: int, what: str, folder: Path, name: str = "") -> tuple[bool, int]:
    """Wait for a process; return whether it ended by itself, and its steps."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"{what}: no end after {TIMEOUT_S} s: {_output(folder, name)}")
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"{what}: {_output(folder, name)}"
        return False, 0
    assert os.WEXITSTATUS(status) == 0, f"{what}: {_output(folder, name)}"
    return True, int((folder / f"steps{name}").read_text())


def run(kind: str, folder: Path, nth: int = 0, delay_s: float = 0.0) -> tuple[bool, int]:
    """Do the work in a forked process; return whether it ended by itself, and its steps."""
    return wait(start(kind, folder, nth, delay_s), kind, folder)


def _output(folder: Path, name: str) -> str:
    return (folder / f"output{name}").read_text()[-4000:]


def _child(kind: str, folder: Path, nth: int, delay_s: float, name: str) -> None:
    status = 1
    try:
        output = os.open(folder / f"output{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        Events.file = (folder / "events.jsonl").open("a")
        steps = Steps(folder, nth, delay_s)
        steps.watch()
        log = Events.log

        def counted(kind_of: str, /, **what: Any) -> None:
            log(kind_of, **what)
            steps.count()

        Events.log = counted  # type: ignore[method-assign, assignment]
        WORK[kind][0](folder)
        n = steps.n
        Events.file.close()
        (folder / f"steps{name}").write_text(str(n))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def questions(folder: Path) -> tuple[int, int]:
    """Return how many questions the judge was asked, and how many of them again."""
    if not (folder / "events.jsonl").exists():
        return 0, 0
    lines = (folder / "events.jsonl").read_text().splitlines()
    # a killed process may have written a part of its last line
    events = [json.loads(line) for line in lines if line.endswith("}")]
    asked = Counter(event["question"] for event in events if event["kind"] == "judge")
    return len(asked), sum(asked.values()) - len(asked)


def digest(result: object) -> str:
    text = json.dumps(result, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def kill_and_continue(
    kind: str, folder: Path, whole: Path, n_steps: int, seed: int
) -> dict[str, int]:
    """Kill the work once or twice, run it to its end, and compare with the undisturbed run."""
    moments = random.Random(f"{kind} {seed}")
    n_kills = 0
    for _ in range(1 + moments.randrange(2)):
        nth = moments.randint(1, n_steps)
        delay_s = moments.choice([0.0, moments.uniform(0, MAX_DELAY_S)])
        is_whole, _ = run(kind, folder, nth, delay_s)
        n_kills += not is_whole
        if is_whole:  # less was left to do than to the moment
            break
    run(kind, folder)
    result, expected = WORK[kind][1](folder), WORK[kind][1](whole)
    if digest(result) != digest(expected):
        lines = (json.dumps(r, indent=1, default=str).splitlines() for r in (expected, result))
        changes = "\n".join([*difflib.unified_diff(*lines, "undisturbed", "killed", n=1)][:60])
        raise AssertionError(f"{kind}, seed {seed}: another result\n{changes}")
    n_asked, n_repeated = questions(folder)
    assert n_repeated <= IN_FLIGHT * n_kills, f"{kind}, seed {seed}: {n_repeated} asked again"
    return {
        "moments": 1,
        "kills": n_kills,
        "same result": 1,
        "questions": n_asked,
        "asked again": n_repeated,
    }


def kill_one_of_two(folder: Path, whole: Path, n_steps: int, seed: int) -> dict[str, int]:
    """Kill one of two workers on a study; the other one finishes all trials, each of them once."""
    moments = random.Random(f"two workers {seed}")
    nth, delay_s = (
        moments.randint(1, n_steps),
        moments.choice([0.0, moments.uniform(0, MAX_DELAY_S)]),
    )
    # the first worker makes the study, so that both begin at the same time
    killed = start("tune", folder, nth, delay_s, "-killed")
    other = start("tune", folder, name="-other")
    is_whole, _ = wait(killed, f"two workers, seed {seed}: killed", folder, "-killed")
    assert wait(other, f"two workers, seed {seed}: other", folder, "-other")[0]

    def planned(trials: list[list[Any]]) -> dict[str, Any]:
        # what a sampler proposes or a pruner ends depends on the trials that are finished by then
        return {
            str(trial[:4]): trial[5] if trial[4] == "complete" else None
            for trial in trials
            if trial[0] != "adaptive"
        }

    trials, expected = finished_trials(folder), finished_trials(whole)
    points, expected_points = planned(trials), planned(expected)
    assert points.keys() == expected_points.keys(), f"two workers, seed {seed}: {trials}"
    for point, value in points.items():
        assert None in (value, expected_points[point]) or value == expected_points[point], point
    # both may have taken the last trial at the same moment
    assert len(trials) - len(expected) in (0, 1), f"two workers, seed {seed}: {len(trials)}"
    records = RunStore(folder / "records.sqlite").read()
    assert len({record.run_id for record in records}) == len(records)
    return {"moments": 1, "kills": int(not is_whole), "same planned trials": 1}


def run_moments(folder: Path, kinds: list[str], n: int, first: int = 0) -> dict[str, Counter[str]]:
    """Kill at `n` seeded moments, spread over the kinds of work, and return the counts."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    n_steps = {kind: run(kind, folder / kind)[1] for kind in kinds}
    for seed in range(first, first + n):
        kind = kinds[seed % len(kinds)]
        moment = folder / f"{kind}-{seed}"
        outcome = kill_and_continue(kind, moment, folder / kind, n_steps[kind], seed)
        counts[kind].update(outcome)
        print(kind, seed, outcome, file=sys.stderr, flush=True)
    return counts


def run_two_workers(folder: Path, n: int, first: int = 0) -> dict[str, Counter[str]]:
    """Kill one of two workers at `n` seeded moments, and return the counts."""
    counts: Counter[str] = Counter()
    _, n_steps = run("tune", folder / "tune")
    for seed in range(first, first + n):
        counts.update(kill_one_of_two(folder / str(seed), folder / "tune", n_steps, seed))
        print("two workers", seed, dict(counts), file=sys.stderr, flush=True)
    return {"two workers": counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(WORK), choices=list(WORK))
    parser.add_argument("--two-workers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.two_workers:
            counts = run_two_workers(folder, options.moments, options.first)
        else:
            counts = run_moments(folder, options.kinds, options.moments, options.first)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
