"""Two real processes (gloo): rank 0 scores, all ranks train on the same mixture, or all fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from synque_select.records.store import RunStore
from tests.training.tiny import texts_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "ddp_selection.py"


def launch(folder: Path, mode: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the script on two ranks and return its status and what each rank wrote."""
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), mode],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    files = [folder / f"rank{rank}.json" for rank in (0, 1)]
    deadline = time.monotonic() + 30  # a rank that is left behind ends on its own
    while not files[1].exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return done.returncode, [json.loads(f.read_text()) if f.exists() else {} for f in files]


def test_rank_zero_scores_for_all(tmp_path):
    status, (first, second) = launch(tmp_path, "ok")
    assert status == 0
    assert (first["n_encoded"], second["n_encoded"]) == (5 * 60 + 30, 0)
    assert first["mixture"] == second["mixture"] == {"near": 0.5, "mixed": 0.5}
    for shared in ("ranking", "run_dir", "run_id"):
        assert first[shared] == second[shared]
    assert (Path(first["run_dir"]) / "ranking.json").is_file()
    assert len(list((tmp_path / "runs" / "TinyModel").iterdir())) == 1
    assert set(first["seen"]) | set(second["seen"]) <= texts_of("near", "mixed")
    assert not set(first["seen"]) & set(second["seen"])
    (record,) = RunStore(tmp_path / "records.sqlite").read()
    assert record.run_id == first["run_id"]
    assert record.key["examples_drawn"] == len(first["seen"]) + len(second["seen"])


@pytest.mark.parametrize(
    ("mode", "first_error", "second_error"),
    [
        ("fail", "DependencyError: faces", "DependencyError: rank 0: faces needs the package"),
        ("die", "", "LightningError: the connection to another rank was lost"),
    ],
)
def test_a_failure_reaches_every_rank(tmp_path, mode, first_error, second_error):
    status, (first, second) = launch(tmp_path, mode)
    assert status != 0
    assert first_error in first.get("error", "")
    assert second_error in second["error"]
