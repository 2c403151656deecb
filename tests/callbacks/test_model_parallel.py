"""ModelParallelStrategy, a real strategy that restores late, on two ranks without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import texts_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "model_parallel.py"

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.slow]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("model_parallel")
    clean = {k: v for k, v in os.environ.items() if k not in ("MASTER_ADDR", "MASTER_PORT")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_the_ranks_share_an_epoch(ranks):
    first, second = (rank["whole"] for rank in ranks)
    assert (first["n_encoded"], second["n_encoded"]) == (5 * 60 + 30, 0)
    assert first["mixture"] == second["mixture"] == {"near": 0.5, "mixed": 0.5}
    served = Counter(text for one in (first, second) for batch in one["seen"] for text in batch)
    assert served == Counter(texts_of("near", "mixed"))  # each once
    assert first["weights"] == second["weights"]
    assert first["examples_drawn"] == first["planned_draws"] == 8 * 8 * 2


@pytest.mark.parametrize("run", ["resumed", "another"])
def test_a_late_restore_goes_on_at_the_exact_position(ranks, run):
    """In the mode "another" the callback chose another mixture: that of the checkpoint is used."""
    for rank in ranks:
        assert len(rank["begun"]["seen"]) == 4
        assert rank["begun"]["seen"] + rank[run]["seen"] == rank["whole"]["seen"]
        assert rank[run]["weights"] == rank["whole"]["weights"]
        assert rank[run]["mixture"] == {"near": 0.5, "mixed": 0.5}
        assert rank[run]["run_id"] == rank["begun"]["run_id"]
        assert rank[run]["n_encoded"] == 0
    assert ranks[0][run]["record"] == ranks[0]["begun"]["run_id"]


def test_a_tensor_parallel_group_is_served_one_share(ranks):
    first, second = (rank["tensor"] for rank in ranks)
    assert first["seen"] == second["seen"]
    seen = [text for batch in first["seen"] for text in batch]
    assert len(set(seen)) == 64
    assert first["examples_drawn"] == first["planned_draws"] == 64
