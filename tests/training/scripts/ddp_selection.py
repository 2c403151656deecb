"""Two ranks on CPU: what each rank saw goes into a file; started by test_selection_ranks.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from synque_select.callbacks import ProxyCorrelationCallback, SelectionCallback
from synque_select.errors import DependencyError
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer


class FailingEncoder(LetterEncoder):
    def encode(self, views):
        raise DependencyError("faces", extra="faces", purpose="faces")


class DyingEncoder(LetterEncoder):
    def encode(self, views):
        os._exit(3)


ENCODERS = {"fail": FailingEncoder, "die": DyingEncoder}


def main() -> None:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    encoder, model, data = ENCODERS.get(mode, LetterEncoder)(), TinyModel(), data_module()
    selection = SelectionCallback(["mmd"], top_k=2, encoder=encoder, cache_dir=folder / "cache")
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite")
    runner = trainer(folder, selection, correlation, strategy="ddp", devices=2, max_steps=4)
    try:
        runner.fit(model, datamodule=data)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
        (folder / f"rank{runner.global_rank}.json").write_text(json.dumps(found))
        raise
    found = {
        "n_encoded": encoder.n_encoded,
        "mixture": dict(data.mixture.weights),
        "ranking": selection.ranking.to_dict(),
        "run_dir": str(selection.run_dir),
        "run_id": selection.run_id,
        "seen": [text for batch in model.seen for text in batch],
    }
    (folder / f"rank{runner.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
