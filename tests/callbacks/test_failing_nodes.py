"""Two nodes, simulated by two processes of one rank each: a failure of rank 1 soon ends both."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "failing_nodes.py"
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
SECONDS = 90  # several times an idle machine, as cores may be shared; torch itself waits 30 minutes

pytestmark = pytest.mark.xdist_group("ranks")

ITS_ERROR = "LightningError: rank 1: FileNotFoundError: val.json is not on this machine"
GONE = (
    "LightningError: the connection to another rank was lost: "
    "the reason is in the output of that rank"
)
LIGHTNINGS = "RuntimeError"  # in a barrier of Lightning, before or after the callback is called


def both_nodes(folder: Path, strategy: str, *modes: str) -> dict[str, list[dict[str, Any]]]:
    """Run the script on each node and return, by mode, how the fit ended on each of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    clean = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES}
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
    nodes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), strategy, *modes],
            env={**clean, **own, "OMP_NUM_THREADS": "1", "NODE_RANK": node},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in "01"
    ]
    try:
        outputs = [node.communicate(timeout=400)[0] for node in nodes]
    except subprocess.TimeoutExpired:
        for node in nodes:
            node.kill()
        outputs = [node.communicate()[0] for node in nodes]
    return {
        mode: [_ending(folder / f"{mode}.node{i}.json", outputs[i]) for i in (0, 1)]
        for mode in modes
    }


def _ending(file: Path, output: str) -> dict[str, Any]:
    if file.exists():
        return dict(json.loads(file.read_text()))
    return {"ended": f"nothing was written: {output[-2000:]}", "after_s": math.inf}


def test_processes_that_were_launched_on_another_node(tmp_path):
    """`on_exception` is not called in any of them; forked, because spawned ones start slowly."""
    expected = {
        "missing-prepare": ITS_ERROR,
        "missing-data": ITS_ERROR,
        "missing-before": GONE,
        "missing-after": LIGHTNINGS,
        "missing-optimizers": LIGHTNINGS,
        "killed-prepare": LIGHTNINGS,
        "killed-data": GONE,
        "killed-before": GONE,
        "killed-after": LIGHTNINGS,
    }
    actual = both_nodes(tmp_path, "ddp_fork", *expected)
    for mode, error in expected.items():
        first, second = actual[mode]
        own = "val.json is not on this machine" if "missing" in mode else "signal SIGKILL"
        assert error in first["ended"], (mode, first)
        assert own in second["ended"], (mode, second)
        assert max(first["after_s"], second["after_s"]) < SECONDS, mode


def test_a_rank_that_is_merely_slow_is_waited_for(tmp_path):
    """The delay is twice the timeout of a collective of training."""
    (nodes,) = both_nodes(tmp_path, "ddp_fork", "late-data").values()
    assert [node["ended"] for node in nodes] == ["trained on ['mixed', 'near']"] * 2
    assert all(node["after_s"] > 8 for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "mode", "error"),
    [
        ("ddp_spawn", "missing-data", ITS_ERROR),
        ("ddp", "missing-prepare", ITS_ERROR),
        ("ddp", "missing-data", ITS_ERROR),
        ("ddp", "missing-before", ITS_ERROR),
        ("ddp", "killed-before", GONE),
    ],
)
def test_other_strategies(tmp_path, strategy, mode, error):
    ((first, second),) = both_nodes(tmp_path, strategy, mode).values()
    assert error in first["ended"]
    assert first["after_s"] < SECONDS
    if mode != "killed-before":  # under ddp the killed process is the node
        assert "val.json is not on this machine" in second["ended"]
        assert second["after_s"] < SECONDS
