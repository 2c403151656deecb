"""A fit whose disk is full from its first step on: `full_disk.py FOLDER`.

A limit on the size of files makes every write to a file fail; started by test_bookkeeping.py.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from pathlib import Path

from synque_select.probing.probes import ProbeSweep
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer


class FullDisk(pl.Callback):
    """Lets every write to a file fail from the first step on, like a full disk."""

    def on_train_batch_start(self, *_: object) -> None:
        limit(0)


def limit(n_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))


def main(folder: Path) -> None:
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"
    )
    correlation = ProxyCorrelationCallback(
        store=folder / "records.sqlite", probes=ProbeSweep(2, progress=False)
    )
    model = TinyModel()
    run = trainer(folder, FullDisk(), selection, correlation)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(model, datamodule=data_module())
    limit(resource.RLIM_INFINITY)
    state = {"step": run.global_step, "warnings": [str(w.message) for w in caught]}
    print(json.dumps(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
