"""Ray: a cluster of two nodes on this machine, of which one is lost in the middle."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from synque_select import rank
from synque_select.errors import ExecutorError
from tests.execution.ray_processes import end_processes_with, processes_with

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: make install has it"
)
ROOT = Path(__file__).resolve().parents[2]


def run_job(folder: Path) -> dict[str, Any]:
    """Run the job and return what it printed, and which of its processes are left."""
    mark = f"mark-{uuid.uuid4().hex}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SLOW_ENCODER_LOG": str(folder / "log"),
        "SLOW_JUDGE_LOG": str(folder / "judged"),
        "SLOW_STEPS_LOG": str(folder / "steps"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "SYNQUE_TEST_MARK": mark,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.execution.ray_job", str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        deadline = time.monotonic() + 60  # workers of a lost node notice it after a moment
        while (left := processes_with(mark)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return {**outcome, "left": list(left.values())}
    finally:  # daemons of a cluster outlive a failure of the process that started them
        end_processes_with(mark)


# one test, as each process of pytest would start a cluster of its own for its part of several
@pytest.mark.slow
def test_a_node_lost_in_the_middle_changes_nothing(tmp_path: Path):
    outcome = run_job(tmp_path)
    encoding = outcome["encoding"]
    assert encoding["equal"]
    assert encoding["lost"] == 1
    n_units = 12 + 4  # one per set of examples, one per proxy
    assert encoding["started"] <= n_units + 1
    assert encoding["batches"] <= 12 + 1
    assert encoding["pids"] == 2

    judging = outcome["judging"]
    assert judging["equal"]
    assert judging["lost"] == 1
    assert judging["distinct"] == judging["prompts"]
    # asked twice were those that the lost node was about to answer, of one unit
    assert judging["twice"] <= 32
    assert judging["most"] <= 2
    assert judging["asked again"] == 0

    probes = outcome["probes"]
    assert probes["equal"]
    assert probes["lost"] == 1
    assert probes["started"] == 5 + 1
    assert probes["steps"] <= (5 + 1) * 4

    assert outcome["trials"] == {"equal": True}
    assert outcome["again"] == {"equal": True, "more units": 0}  # all is in the driver's cache
    assert outcome["caches of the nodes"] == 0  # they return arrays
    assert outcome["left"] == []


def test_no_cluster_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    rows = [{"text": text} for text in ("a b", "b c", "c d")]
    with pytest.raises(ExecutorError, match=r"no Ray cluster at 127\.0\.0\.1:1 can be reached"):
        rank(
            {"a": rows, "b": rows[::-1]},
            rows,
            proxies=["ngram"],
            executor="ray",
            cache_dir=tmp_path,
        )
