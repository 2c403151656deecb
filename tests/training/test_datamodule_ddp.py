"""Two real processes: each draw of an epoch goes to one rank, with every launcher."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synque_select.training.mixture_loader import MixtureDataset
from synque_select.types import Mixture
from tests.training.serving import candidates
from tests.warm_processes import run_warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "training" / "scripts" / "serve_ddp.py"
LENGTH = 86  # ⌊61 / 0.7⌋ = 87 draws, rounded down to a multiple of two ranks


def launch(folder: Path, strategy: str, **options: Any) -> list[dict[str, Any]]:
    """Run the script and return what each rank saw."""
    folder.mkdir(exist_ok=True)
    arguments = [f"{name}={value}" for name, value in options.items()]
    done = run_warm(
        [SCRIPT, folder, strategy, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def expected(n_epochs: int) -> list[str]:
    mixture = Mixture({"a": 0.7, "b": 0.3})
    dataset = MixtureDataset(candidates(a=61, b=61), mixture, epoch_length=LENGTH)
    return [dataset[draw]["id"] for draw in range(n_epochs * LENGTH)]


def interleaved(ranks: list[dict[str, Any]]) -> list[str]:
    """The draws in their global order: one of the first rank, one of the second, and so on."""
    served = [[name for batch in rank["batches"] for name in batch] for rank in ranks]
    return [name for pair in zip(*served, strict=True) for name in pair]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, launch(folder, "ddp", workers=1)


def check_three_epochs(ranks: list[dict[str, Any]]) -> None:
    assert [len(rank["batches"]) for rank in ranks] == [33, 33]
    assert interleaved(ranks) == expected(3)
    for epoch in range(3):
        ids = interleaved(ranks)[epoch * LENGTH : (epoch + 1) * LENGTH]
        assert len(set(ids)) == LENGTH
        assert abs(Counter(name[0] for name in ids)["a"] - 0.7 * LENGTH) < 1
    assert [rank["mixture"] for rank in ranks] == 2 * [{"a": 0.7, "b": 0.3}]


def test_the_ranks_share_each_epoch(whole: tuple[Path, list[dict[str, Any]]]):
    check_three_epochs(whole[1])


def test_the_ranks_share_each_epoch_when_spawned(tmp_path: Path):
    check_three_epochs(launch(tmp_path, "ddp_spawn"))


def test_a_resumed_run_goes_on_at_the_exact_position(
    whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
):
    folder, ranks = whole
    resumed = launch(tmp_path, "ddp", forked=1, ckpt=folder / "step=15.ckpt")
    for rank in range(2):
        assert resumed[rank]["batches"] == ranks[rank]["batches"][15:]


def test_overfit_batches_serves_the_mixture_on_every_rank(tmp_path: Path):
    ranks = launch(tmp_path, "ddp", forked=1, overfit=6, max_epochs=2)
    assert interleaved(ranks) == 2 * expected(1)[: 2 * 6 * 4]
