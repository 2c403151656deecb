"""Train on 2 processes on iterables that differ by process; launched by test_datamodule_candidates.

Usage: serve_iterables.py FOLDER
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from tests.lightning_package import SynqueDataModule
from tests.training.serving import Recorder, records, trainer


class Shuffled(IterableDataset[Any]):
    """Examples in an order that does not depend on a seed."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.n = name, n

    def __iter__(self) -> Iterator[Any]:
        made = records(self.name, self.n)
        random.Random(os.urandom(8)).shuffle(made)
        return iter(made)


def main(folder: Path) -> None:
    dm = SynqueDataModule(
        {"a": Shuffled("a", 40), "b": records("b", 40)},
        view="text",
        labeled_real=Shuffled("r", 20),
        real_share=0.2,
        batch_size=5,
    )
    run = trainer(folder, strategy="ddp", devices=2)
    model = Recorder()
    run.fit(model, datamodule=dm)
    (folder / f"rank{run.global_rank}.json").write_text(json.dumps(model.ids))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
