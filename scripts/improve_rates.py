"""How often `improve` keeps a batch, by how much better the batch is: docs/improve.md.

Real texts and two kinds of synthetic ones are drawn from word lists. The data is a mixture of texts
like the real ones and others; the batch is another draw, with the same or a larger share of texts
like the real ones. Nothing is asked of a language model: only the comparison is run.

    python scripts/improve_rates.py --runs 200
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter

import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.functional.paired import wilson_interval
from synque_select.generation.comparison import compare
from synque_select.generation.options import ImproveOptions

_N_WORDS, _LENGTH, _DIM = 300, 9, 64


class HashedWords(BaseEncoder):
    """Normalized sums of a random vector per word."""

    id, modality, revision = "hashed-words", "text", "1"

    def encode(self, views: list[str]) -> torch.Tensor:
        """Return (n, 64) float32."""
        rows = torch.stack([sum(map(_vector, view.split()), torch.zeros(_DIM)) for view in views])
        return rows / rows.norm(dim=1, keepdim=True)


def _vector(word: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(word[1:]) + 1000 * (word[0] == "r"))
    return torch.randn(_DIM, generator=generator)


def text(kind: str, draw: random.Random) -> str:
    """Return a text of words whose frequencies fall as those of a language do."""
    return " ".join(
        f"{kind if draw.random() < 0.7 else 'c'}{int(_N_WORDS * draw.random() ** 2)}"
        for _ in range(_LENGTH)
    )


def texts(share: float, n: int, draw: random.Random) -> list[str]:
    """Return texts of which about a share is like the real ones."""
    return [text("r" if draw.random() < share else "s", draw) for _ in range(n)]


def verdict(seed: int, share: float, n_held_out: int, options: ImproveOptions) -> str:
    """Compare one draw of everything."""
    draw = random.Random(seed)
    real = RealSample("real", [text("r", draw) for _ in range(n_held_out)], group_by=False)
    old = texts(0.3, 100, draw)
    new = [*old, *texts(share, 50, draw)]
    pair = Candidate("old", old), Candidate("new", new)
    return compare(*pair, real, options).verdict


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=40)
    options = parser.parse_args()
    print("| share of the batch like the real examples | better | worse | no improvement shown |")
    print("|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        given = ImproveOptions(
            rounds=3, encoder=HashedWords(), cache_dir=folder, device="cpu", progress=False
        )
        for share in (0.1, 0.3, 0.5, 0.7):
            counts = Counter(
                verdict(seed, share, options.held_out, given) for seed in range(options.runs)
            )
            cells = [_cell(counts[name], options.runs) for name in ("better", "worse")]
            rest = counts["no improvement shown"]
            print(
                f"| {share:.1f} | {' | '.join(cells)} | {_cell(rest, options.runs)} |", flush=True
            )


def _cell(n: int, runs: int) -> str:
    low, high = wilson_interval(n, runs)
    return f"{n / runs:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
