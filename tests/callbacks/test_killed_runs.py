"""A real process, killed at random moments of every phase: the next process continues it."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synque_select.records.ranking_file import load_ranking
from synque_select.records.store import RunStore
from synque_select.types import Ranking
from tests.training.scripts.resumable import MAX_STEPS, SAVED_EVERY
from tests.training.tiny import WORDS
from tests.warm_processes import run_warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "resumable.py"

pytestmark = pytest.mark.xdist_group("killed")


def run(folder: Path, *moment: str) -> None:
    folder.mkdir(exist_ok=True)
    done = run_warm(
        [SCRIPT, folder, *moment],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    assert moment or done.returncode == 0, done.stderr[-3000:]


class Events:
    """The events that all processes of a run wrote, in order."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "events.jsonl").read_text().splitlines()
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.pids = list(dict.fromkeys(event["pid"] for event in self.all))

    def of(self, kind: str, pid: int | None = None) -> list[dict[str, Any]]:
        return [e for e in self.all if e["kind"] == kind and pid in (None, e["pid"])]

    @property
    def end(self) -> dict[str, Any]:
        (done,) = self.of("done")
        return done


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Events]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder, Events(folder)


# after training, nothing is scored again
PHASES = ["encode", "score", "judge", "fit", "fit", "probe step"]


def kill_in_every_phase(folder: Path, whole: Events, seed: int, name: str) -> Events:
    """Start, kill at a random moment of the next phase, start again, …, and run to the end."""
    moments = random.Random(seed)
    for phase in PHASES:
        n_events = len(whole.of(phase)) // PHASES.count(phase)
        # killed twice in fit, so steps must be left each time
        nth = moments.randint(1, n_events - (SAVED_EVERY if phase == "fit" else 0))
        run(folder, phase, str(nth), f"{moments.uniform(0, 0.01):.4f}", name)
        assert not Events(folder).of("done"), phase
    run(folder)
    return Events(folder)


def check_nothing_is_repeated(events: Events, whole: Events) -> None:
    encoded = Counter(view for event in events.of("encode") for view in event["views"])
    distinct = {view for event in whole.of("encode") for view in event["views"]}
    assert set(encoded) == distinct
    # only what was being encoded when the process was killed is encoded again
    assert sum(encoded.values()) <= len(distinct) + 60
    assert max(encoded.values()) <= 2
    for pid in events.pids[2:]:
        assert not events.of("encode", pid)
    # the process that only had probes left does not score
    assert not events.of("score", events.pids[-1])
    probes = Counter(event["name"] for event in events.of("probe"))
    assert set(probes) == set(WORDS)
    assert sum(probes.values()) <= len(WORDS) + 1


def check_answers_are_kept(events: Events, whole: Events) -> None:
    asked = Counter(event["question"] for event in events.of("judge"))
    assert set(asked) == {event["question"] for event in whole.of("judge")}
    assert (
        sum(asked.values()) <= len(asked) + 2
    )  # questions without an answer when the process was killed


def check_finished_proxies_are_not_scored_again(events: Events) -> None:
    """A process that was killed while a proxy scored has stored the finished proxies.

    A user's proxy is scored again; LENS finds its answers.
    """
    messages = [event["text"] for event in events.of("said", events.pids[3])]
    taken = "scores of 3 of 5 proxies are taken from the cache: pad, coverage, ngram"
    assert next(text for text in messages if text.startswith("scores of")) == taken


def check_steps(events: Events, whole: Events) -> None:
    """Each process continues from the last checkpoint with the draws of an undisturbed run."""
    expected = {event["step"]: event["texts"] for event in whole.of("fit")}
    assert sorted(expected) == list(range(MAX_STEPS))
    reached = 0
    for pid in events.pids:
        steps = [event["step"] for event in events.of("fit", pid)]
        if steps:
            assert steps == list(range(steps[0], steps[-1] + 1))
            assert steps[0] <= reached
            assert reached - steps[0] <= SAVED_EVERY
            reached = steps[-1] + 1
    assert reached == MAX_STEPS
    for event in events.of("fit"):
        assert event["texts"] == expected[event["step"]]


def ranking_of(folder: Path) -> Ranking:
    """The ranking in the directory of the finished run, without times and counters."""
    ranking = load_ranking(Path(Events(folder).end["run_dir"]))
    proxies = {key: replace(info, seconds=0.0) for key, info in ranking.proxies.items()}
    messages = tuple(
        message for message in ranking.messages if "answers kept from earlier" not in message
    )
    lens = {**ranking.details["lens"], "questions": None, "cost": None}
    return replace(
        ranking,
        wall_s={},
        proxies=proxies,
        messages=messages,
        details={**ranking.details, "lens": lens},
    )


def check_records(folder: Path, whole_folder: Path, end: dict[str, Any]) -> None:
    one, other = (RunStore(f / "records.sqlite") for f in (folder, whole_folder))
    (record,), (expected,) = one.read(kind="mixture"), other.read(kind="mixture")
    assert record.run_id == end["run_id"]
    assert record.metrics == expected.metrics
    assert record.key_hash == expected.key_hash
    assert record.scores == expected.scores
    ranking, expected_ranking = (ranking_of(f) for f in (folder, whole_folder))
    assert ranking == expected_ranking
    probes, others = one.read(kind="probe"), other.read(kind="probe")
    assert {r.unit: r.metrics for r in probes} == {r.unit: r.metrics for r in others}
    assert len(probes) == len(WORDS)


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        (0, "SIGKILL"),
        pytest.param(1, "SIGKILL", marks=pytest.mark.slow),
        pytest.param(2, "SIGKILL", marks=pytest.mark.slow),
        pytest.param(3, "SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_killed_in_every_phase(
    undisturbed: tuple[Path, Events], tmp_path: Path, seed: int, name: str
):
    whole_folder, whole = undisturbed
    events = kill_in_every_phase(tmp_path, whole, seed, name)
    assert events.end["weights"] == whole.end["weights"]
    check_nothing_is_repeated(events, whole)
    check_answers_are_kept(events, whole)
    check_steps(events, whole)
    check_records(tmp_path, whole_folder, events.end)
    if (
        name == "SIGKILL"
    ):  # after SIGTERM the scoring ends, and a fit without a step leaves its directory
        assert len(list((tmp_path / "runs" / "LoggedModel").iterdir())) == 1
        check_finished_proxies_are_not_scored_again(events)
