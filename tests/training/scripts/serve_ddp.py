"""Train on 2 processes and write what each rank saw; launched by test_datamodule_ddp.py.

Usage: serve_ddp.py FOLDER STRATEGY [OPTION=VALUE …] with the options ckpt, max_epochs, workers,
overfit, mixture, streams, change, tokens, curriculum, and forked, with which the ranks are forks.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from synque_select.training.curriculum import Curriculum
from tests.forked_ranks import forked_ranks
from tests.lightning_package import SynqueDataModule, pl
from tests.training.changing import Change, length_of, number_of
from tests.training.serving import Recorder, Rows, candidates, trainer

ModelCheckpoint = pl.callbacks.ModelCheckpoint


class Write(pl.Callback):
    """Writes the ids that this rank was trained on, a list for each batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        seen = {
            "epochs": pl_module.epochs,
            "batches": pl_module.batches,
            "changes": [one.to_dict() for one in trainer.datamodule.weight_changes],  # type: ignore[attr-defined]
            "mixture": dict(trainer.datamodule.mixture.weights),  # type: ignore[attr-defined]
        }
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))


def main(folder: Path, strategy: str, options: dict[str, str]) -> None:
    streams = {"a": Rows("a", 1300), "b": Rows("b", 300), "c": Rows("c", 200)}
    dm = SynqueDataModule(
        streams if "streams" in options else candidates(a=61, b=61, c=61),
        view="text",
        reservoir=100 if "streams" in options else None,
        epoch_length=428 if "streams" in options else None,
        mixture=json.loads(options.get("mixture", '{"a": 0.7, "b": 0.3}')),
        batch_size=4,
        num_workers=int(options.get("workers", 0)),
        weigh_by="tokens" if "tokens" in options else "examples",
        length=length_of if "tokens" in options else None,
        curriculum=Curriculum(by=number_of) if "curriculum" in options else None,
    )
    saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
    run = trainer(
        folder,
        saver,
        Write(folder),
        *([Change()] if "change" in options else []),
        strategy=strategy,
        devices=2,
        max_epochs=int(options.get("max_epochs", 3)),
        overfit_batches=int(options.get("overfit", 0)),
    )
    run.fit(Recorder(), datamodule=dm, ckpt_path=options.get("ckpt"))


if __name__ == "__main__":
    given = dict(arg.split("=", 1) for arg in sys.argv[3:])
    with forked_ranks(2) if "forked" in given else nullcontext():
        main(Path(sys.argv[1]), sys.argv[2], given)
