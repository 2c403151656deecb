"""Two ranks under ModelParallelStrategy (FSDP2 on DTensors) on CPU; it restores late.

Usage: model_parallel.py FOLDER; started by test_model_parallel.py. Each rank writes what each of
the fits was trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer

ModelCheckpoint = pl.callbacks.ModelCheckpoint
ModelParallelStrategy = pl.strategies.ModelParallelStrategy


class Sharded(TinyModel):
    def configure_model(self) -> None:
        if isinstance(self.layer.weight, DTensor):
            return
        if self.device_mesh["tensor_parallel"].size() == 1:
            fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])
        else:
            gathered = ColwiseParallel(output_layouts=torch.distributed.tensor.Replicate())
            parallelize_module(self.layer, self.device_mesh["tensor_parallel"], gathered)


def fit(folder: Path, name: str, n_steps: int, **options: Any) -> dict[str, Any]:
    """Train and return what this rank saw; checkpoints after every 4 steps."""
    torch.manual_seed(0)
    encoder = LetterEncoder()
    selection = SelectionCallback(
        ["mmd"], top_k=options.get("top_k", 2), encoder=encoder, cache_dir=folder / "cache"
    )
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite", monitor="val_acc")
    n_shards = options.get("n_shards", 2)
    strategy = ModelParallelStrategy(
        data_parallel_size=n_shards, tensor_parallel_size=2 // n_shards
    )
    limits = {"max_steps": n_steps, "val_check_interval": 4}
    saver = ModelCheckpoint(folder / name, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    run = trainer(
        folder, selection, correlation, saver, strategy=strategy, devices=2, **limits,
        enable_checkpointing=True,
    )  # fmt: skip
    model, data = Sharded(), data_module()
    run.fit(model, datamodule=data, ckpt_path=options.get("ckpt_path"))
    weight: Any = model.layer.weight  # a DTensor, unless FSDP2 has just validated
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return {
        "rank": run.global_rank,
        "seen": model.seen,
        "weights": weight.tolist(),
        "n_encoded": encoder.n_encoded,
        "mixture": dict(data.mixture.weights),  # type: ignore[union-attr]
        "run_id": selection.run_id,
        "record": correlation.record.run_id,  # type: ignore[union-attr]
        "examples_drawn": correlation.record.key["examples_drawn"],  # type: ignore[union-attr]
        "planned_draws": data.planned_draws,
    }


def main(folder: Path) -> None:
    ckpt = folder / "begun" / "step=4.ckpt"
    fits = {
        "whole": fit(folder, "whole", 8),
        "begun": fit(folder, "begun", 4),
        "resumed": fit(folder, "resumed", 8, ckpt_path=ckpt),
        "another": fit(folder, "another", 8, ckpt_path=ckpt, top_k=1),
        "tensor": fit(folder, "tensor", 8, n_shards=1),
    }
    (folder / f"rank{fits['whole']['rank']}.json").write_text(json.dumps(fits))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
