"""Measure the shares of words that equal weights give to candidates, by examples and by tokens.

The figures of docs/training-order.md: python scripts/token_shares.py 'FOLDER/zero_*.jsonl'.
"""

from __future__ import annotations

import argparse
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synque_select import SynqueDataModule
from synque_select.training.mixture_loader import MixtureDataset

N_DRAWS = 20_000


def main() -> None:
    """Print each candidate's share of the words in all draws, and its range over the blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("candidates", help="pattern of files")
    parser.add_argument("--view", default="text", help="field of the text")
    options = parser.parse_args()
    for weigh_by in ("examples", "tokens"):
        names, shares = measure(options.candidates, options.view, weigh_by)
        print(
            f"weigh_by={weigh_by}, {N_DRAWS:,} draws, seed 0: share of all words, lowest and "
            "highest block"
        )
        total = shares.sum(axis=0) / shares.sum()
        blocks = shares / shares.sum(axis=1, keepdims=True)
        for name, *figures in zip(
            names, total, blocks.min(axis=0), blocks.max(axis=0), strict=True
        ):
            print(f"  {name:30}", *(f"{100 * figure:6.2f} %" for figure in figures))


def measure(
    candidates: str, view: str, weigh_by: Literal["examples", "tokens"]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names (K,) and the words of each candidate in each block of draws (B, K)."""

    def words(example: Any) -> int:
        return len(str(example[view]).split())

    data = SynqueDataModule(
        candidates,
        view=view,
        epoch_length=N_DRAWS,
        weigh_by=weigh_by,
        length=words if weigh_by == "tokens" else None,
    )
    dataset = data.mixture_loader().dataset
    assert isinstance(dataset, MixtureDataset)
    counts = np.zeros((N_DRAWS // 1000, len(dataset.candidates)), dtype=np.int64)
    for draw in range(N_DRAWS):
        which, _ = dataset.schedule.locate(draw)
        counts[draw // 1000, which] += words(dataset[draw])
    return [candidate.name for candidate in dataset.candidates], counts


if __name__ == "__main__":
    main()
