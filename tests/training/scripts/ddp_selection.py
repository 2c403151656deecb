"""Two ranks on CPU: what each rank and the caller saw goes into files.

Usage: ddp_selection.py FOLDER STRATEGY [MODE]; started by test_selection_ranks.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from synque_select.errors import DependencyError
from synque_select.probing.probes import ProbeSweep
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import LetterEncoder, TinyData, TinyModel, data_module, trainer

DDPStrategy = pl.strategies.DDPStrategy


class FailingEncoder(LetterEncoder):
    def encode(self, views: Any) -> Any:
        raise DependencyError("faces", extra="faces", purpose="faces")


class DyingEncoder(LetterEncoder):
    def encode(self, views: Any) -> Any:
        os._exit(3)


class SlowEncoder(LetterEncoder):
    def encode(self, views: Any) -> Any:
        time.sleep(5)  # for each of five candidates and the real sample: 30 s in all
        return super().encode(views)


class MissingOnRankOne(TinyData):
    def setup(self, stage: str) -> None:
        if self.trainer.global_rank == 1:
            raise FileNotFoundError("val.json is not on this machine")


ENCODERS = {"fail": FailingEncoder, "die": DyingEncoder, "slow": SlowEncoder}
INNER = {"missing": MissingOnRankOne, "nodes-missing": MissingOnRankOne}


class OwnModel(TinyModel):
    """A model that is defined in the script."""


class Write(pl.Callback):
    """Writes what this rank saw, or how it failed."""

    def __init__(self, folder: Path, selection: SelectionCallback, encoder: LetterEncoder) -> None:
        self.folder, self.selection, self.encoder = folder, selection, encoder
        self.epochs: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.epochs.append(trainer.current_epoch)

    def on_exception(self, trainer: pl.Trainer, _: Any, exception: BaseException) -> None:
        self.write(trainer.global_rank, error=f"{type(exception).__name__}: {exception}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        state = known(self.selection, trainer.datamodule)  # type: ignore[attr-defined]
        batches = list(zip(self.epochs, pl_module.seen, strict=True))
        n_encoded = self.encoder.n_encoded
        self.write(trainer.global_rank, batches=batches, n_encoded=n_encoded, **state)

    def write(self, rank: int, **fields: Any) -> None:
        (self.folder / f"rank{rank}.json").write_text(json.dumps(fields))


def known(selection: SelectionCallback, data: Any) -> dict[str, Any]:
    return {
        "mixture": dict(data.mixture.weights),
        "ranking": selection.ranking.to_dict(),  # type: ignore[union-attr]
        "run_dir": str(selection.run_dir),
        "run_id": selection.run_id,
    }


def main(folder: Path, strategy: str, mode: str = "") -> None:
    torch.manual_seed(0)
    encoder = ENCODERS.get(mode, LetterEncoder)()
    data = data_module(wraps=INNER.get(mode, TinyData)())
    selection = SelectionCallback(["mmd"], top_k=2, encoder=encoder, cache_dir=folder / "cache")
    probes = ProbeSweep(4, progress=False) if mode.startswith("probes") else None
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite", probes=probes)
    run = trainer(
        folder,
        # before Write, so that it handles an error first
        selection,
        correlation,
        Write(folder, selection, encoder),
        # in the mode "slow" the timeout of a collective is shorter than the scoring, but still long
        # enough for the ranks to connect, which a busy machine starts at different times
        strategy=DDPStrategy(timeout=timedelta(seconds=25)) if mode == "slow" else strategy,
        num_nodes=2 if mode.startswith("nodes") else 1,
        devices=1 if mode.startswith("nodes") or strategy == "auto" else 2,
        max_steps=-1,
        max_epochs=2,
        check_val_every_n_epoch=1,
        val_check_interval=1.0,
    )
    model = OwnModel()
    run.fit(model, datamodule=data)
    state = {**known(selection, data), "weights": model.layer.weight.tolist()}
    state["record"] = None if correlation.record is None else correlation.record.run_id
    state["correlations"] = [[entry.kind, len(entry.points)] for entry in correlation.correlations]
    node = os.environ.get("NODE_RANK", "0")
    (folder / f"caller{node}{os.environ.get('LOCAL_RANK', '')}.json").write_text(json.dumps(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
