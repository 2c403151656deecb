"""A run whose weights change, which can be killed and started again, on one rank or on two.

Usage: reselecting.py FOLDER DEVICES [NTH DELAY_S]; started by test_reselection_resume.py. Every
batch goes into FOLDER/rank<r>.jsonl at once. With NTH, all ranks are killed DELAY_S after rank 0
has begun its NTH batch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torchmetrics import MeanMetric

from synque_select import SurrogateOptions
from tests.forked_ranks import forked_ranks
from tests.lightning_package import ReselectionCallback, SynqueDataModule, pl
from tests.training.tiny import (
    LETTERS,
    LetterEncoder,
    TinyModel,
    candidates,
    collate,
    real_sample,
    trainer,
)

MAX_STEPS, EVERY, SAVED_EVERY = 24, 5, 3
START = {"near": 0.4, "mixed": 0.2, "far": 0.2, "odd": 0.2}


class Model(TinyModel):
    """Has buffers, and writes what it is trained on.

    Without dropout: Lightning does not restore random states, so no resumed run draws the same.
    """

    folder: Path | None = None  # an instance's attributes reach processes that are spawned
    kill_at: tuple[int, float] | None = None
    n_batches = 0

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(len(LETTERS))
        self.mean = MeanMetric(dist_sync_on_step=True)  # waits for all ranks

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, labels, names = batch
        if self.training:
            self._write(names)
        logits = self.layer(self.norm(inputs))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.mean(loss.detach())
        return loss

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.layer(self.norm(batch[0])).softmax(1)

    def _write(self, names: list[str]) -> None:
        event = {"pid": os.getpid(), "step": self.trainer.global_step, "texts": names}
        assert self.folder is not None
        with (self.folder / f"rank{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")
        Model.n_batches += 1
        if self.kill_at is not None and self.kill_at[0] == self.n_batches:
            # the processes of this run are a group of their own
            kill = threading.Timer(self.kill_at[1], os.killpg, (os.getpgrp(), signal.SIGKILL))
            kill.start()
        time.sleep(0.01)


def main(folder: Path, devices: int) -> None:
    pl.seed_everything(0, verbose=False)
    policy = os.environ.get("POLICY", "odm")
    held_out = SurrogateOptions(size=60, held_out=0.3, encoder=LetterEncoder())
    datamodule = SynqueDataModule(
        candidates(),
        real_sample(),
        mixture=START,
        batch_size=8 // devices,
        collate_fn=collate,
        val=held_out if policy == "surrogate" else None,
    )
    callback = ReselectionCallback(EVERY, policy, budget=0.3)
    saver = pl.callbacks.ModelCheckpoint(
        folder / "checkpoints", every_n_train_steps=SAVED_EVERY, save_last=True, monitor=None
    )
    run = trainer(
        folder,
        callback,
        saver,
        devices=devices,
        strategy=os.environ.get("STRATEGY", "ddp") if devices > 1 else "auto",
        enable_checkpointing=True,
        limit_val_batches=0,
        max_epochs=-1,
        max_steps=MAX_STEPS,
        accumulate_grad_batches=2,
    )
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    model = Model()
    model.folder = folder
    run.fit(model, datamodule=datamodule, ckpt_path="last")
    state = {
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "points": callback.trajectory.to_dict()["points"],
        "policy": dict(callback.policy.state_dict()) if rank == 0 else None,
        "run_dir": str(callback.run_dir),
    }
    (folder / f"done{rank}.json").write_text(json.dumps(state))


if __name__ == "__main__":
    n_ranks = int(sys.argv[2])
    is_launched = n_ranks > 1 and "STRATEGY" not in os.environ
    with forked_ranks(n_ranks) if is_launched else nullcontext():
        if len(sys.argv) > 3 and os.environ.get("LOCAL_RANK", "0") == "0":
            Model.kill_at = (int(sys.argv[3]), float(sys.argv[4]))
        main(Path(sys.argv[1]), n_ranks)
