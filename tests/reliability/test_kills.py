"""Work that is killed at any step, and started again, ends with the undisturbed result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.counts import record_counts

pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]

# forks processes, so it must not share one with other tests
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs fork and /proc"),
    pytest.mark.xdist_group("killed"),
]


def run(module: str, *arguments: str, timeout_s: float) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.reliability.{module}", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    counts: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize(
    "kind",
    [
        "rank",
        "sweep",
        "tune",
        "tune with CMA-ES",
        "influence",
        pytest.param("experiment", marks=pytest.mark.slow),
    ],
)
def test_one_moment(kind: str):
    if "CMA-ES" in kind:
        pytest.importorskip("cmaes")
    counts = run("kills", "--kinds", kind, "--moments", "1", "--first", "7", timeout_s=550)
    assert counts[kind]["same result"] == 1
    assert counts[kind]["kills"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_moments():
    pytest.importorskip("cmaes")
    totals: Counter[str] = Counter()
    kinds = ["rank", "fit", "sweep", "tune", "tune with CMA-ES"]
    for counts in run("kills", "--kinds", *kinds, "--moments", "50", timeout_s=7000).values():
        totals.update(counts)
    assert totals["same result"] == 50
    notes = {
        "kills": totals["kills"],
        f"of {totals['questions']:,} questions to the judge asked again": totals["asked again"],
    }
    record_counts("kills", {"same result": totals["same result"]}, notes)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_moments_of_influence_and_of_an_experiment():
    kinds = ["influence", "experiment"]
    counts = run("kills", "--kinds", *kinds, "--moments", "10", timeout_s=3500)
    assert all(counts[kind]["same result"] == 5 for kind in kinds)
    assert sum(counts[kind]["kills"] for kind in kinds) >= 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_moments_with_two_workers():
    counts = run("kills", "--two-workers", "--moments", "10", timeout_s=3500)["two workers"]
    assert counts["same planned trials"] == 10
    record_counts("workers", {"same planned trials": 10}, {"kills": counts["kills"]})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--writers", "3", "--seconds", "4", "--every", "1"],
        pytest.param(["--writers", "8", "--seconds", "60", "--every", "3"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
def test_writers_of_which_one_is_killed_now_and_then(arguments: list[str]):
    counts = run("writers", *arguments, timeout_s=800)
    assert all(counts[kind] for kind in ("records", "answers", "trials", "kills"))
    if "60" in arguments:
        kinds = ("records", "answers", "embeddings", "trials")
        record_counts("writers", {f"{kind} all there": counts[kind] for kind in kinds})
