"""Fit on 2 processes with surrogate validation, and write what each rank was measured on.

Usage: serve_surrogate.py FOLDER; launched by test_surrogate.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from synque_select import SurrogateOptions
from tests.forked_ranks import forked_ranks
from tests.lightning_package import SynqueDataModule, pl
from tests.training.tiny import LetterEncoder, TinyModel, candidates, collate, real_sample, trainer


class Write(pl.Callback):
    """Writes the whole set, and what this rank was measured on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.served = folder, []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, _: Any, batch: Any, *__: Any
    ) -> None:
        self.served += batch[2]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        surrogate = trainer.datamodule.surrogate
        state = {
            "positions": surrogate.draw.positions.tolist(),
            "n_encoded": encoder.n_encoded,
            "served": self.served,
            "val_acc": float(trainer.callback_metrics["val_acc"]),
        }
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(state))


encoder = LetterEncoder()


def main(folder: Path) -> None:
    data = SynqueDataModule(
        candidates(100),
        real_sample(),
        val=SurrogateOptions(size=100, held_out=0.3, encoder=encoder),
        mixture={"near": 0.5, "far": 0.5},
        batch_size=8,
        collate_fn=collate,
    )
    run = trainer(
        folder, Write(folder), devices=2, strategy="ddp", max_steps=4, val_check_interval=4
    )
    run.fit(TinyModel(), datamodule=data)


if __name__ == "__main__":
    with forked_ranks(2):
        main(Path(sys.argv[1]))
