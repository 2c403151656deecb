"""One of two nodes with one rank each, on one machine: rank 1 fails, is killed or is late.

Usage: failing_nodes.py FOLDER STRATEGY MODE …; started twice by test_failing_nodes.py, with
NODE_RANK 0 and 1. A mode runs one fit; a file says how it ended on this node and how many seconds
after rank 1 had failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from tests.lightning_package import SelectionCallback, pl
from tests.training.tiny import LetterEncoder, TinyData, TinyModel, data_module, trainer

DDPStrategy = pl.strategies.DDPStrategy

COLLECTIVE_S = 4
STARTS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork"}


class Fate:
    """Makes rank 1 fail at a place, as in "missing-data"; nothing happens at other places."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder, self.mode = folder, mode

    def meet(self, place: str, run: pl.Trainer | None) -> None:
        what, _, where = self.mode.partition("-")
        if run is None or run.global_rank != 1 or where != place:
            return
        (self.folder / f"{self.mode}.failing").write_text(str(time.time()))
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "missing":
            raise FileNotFoundError("val.json is not on this machine")
        time.sleep(2 * COLLECTIVE_S)


class OwnData(TinyData):
    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate

    def prepare_data(self) -> None:
        self.fate.meet("prepare", self.trainer)

    def setup(self, stage: str) -> None:
        self.fate.meet("data", self.trainer)


class Before(pl.Callback):
    place = "before"

    def __init__(self, fate: Fate) -> None:
        self.fate = fate

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.fate.meet(self.place, trainer)


class After(Before):
    place = "after"


class OwnModel(TinyModel):
    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.fate.meet("optimizers", self.trainer)
        return super().configure_optimizers()


def fit(folder: Path, strategy: str, mode: str) -> str:
    """Return how the fit ended on this node."""
    fate = Fate(folder, mode)
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"
    )
    # if rank 1 is late, the timeout of a collective of training is shorter than its delay
    timeout = timedelta(seconds=COLLECTIVE_S) if mode.startswith("late") else timedelta(minutes=30)
    run = trainer(
        folder,
        *(Before(fate), selection, After(fate)),
        strategy=DDPStrategy(start_method=STARTS[strategy], timeout=timeout),  # type: ignore[arg-type]
        num_nodes=2,
        max_steps=2,
        val_check_interval=2,
    )
    data = data_module(wraps=OwnData(fate))
    try:
        run.fit(OwnModel(fate), datamodule=data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"trained on {sorted(data.mixture.names)}"  # type: ignore[union-attr]


def main(folder: Path, strategy: str, modes: Sequence[str]) -> None:
    node, port = os.environ["NODE_RANK"], int(os.environ["MASTER_PORT"])
    for i, mode in enumerate(modes):
        os.environ["MASTER_PORT"] = str(port + i)
        ended = fit(folder, strategy, mode)
        failing = folder / f"{mode}.failing"
        after_s = time.time() - float(failing.read_text()) if failing.exists() else None
        result = {"ended": ended, "after_s": after_s}
        (folder / f"{mode}.node{node}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    torch.manual_seed(0)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
