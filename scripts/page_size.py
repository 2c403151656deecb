"""Size of the page of a ranking, and what it takes to make it.

    python scripts/page_size.py [K ...]

ranks K candidates (default: 10, 100 and 1,000) of 25 labeled texts against 60 real ones by the
default proxies, with label checks and gaps. The embeddings are random numbers, so that nothing is
encoded. The time is that of the process, for the page alone: choosing examples, the map and the
HTML.
"""

from __future__ import annotations

import sys
import tempfile
import time
import zlib
from collections.abc import Sequence

import torch

from synque_select import rank
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.views import View
from synque_select.encoders import BaseEncoder
from synque_select.report.examples_and_map import name_of_real
from synque_select.report.page import ranking_page

_N, _N_REAL, _DIM, _SEED = 25, 60, 384, 0
_WORDS = (
    "list",
    "show",
    "all",
    "flights",
    "trains",
    "from",
    "to",
    "boston",
    "denver",
    "on",
    "noon",
)


class RandomEncoder(BaseEncoder):
    """Random unit vectors, one per text."""

    id, modality, revision = "random", "text", "1"

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return one vector per text."""
        seeds = [zlib.crc32(str(view).encode()) for view in views]
        each = [torch.randn(_DIM, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.nn.functional.normalize(torch.stack(each), dim=1)


def texts(n: int, generator: torch.Generator) -> list[str]:
    """Return n texts of nine random words."""
    chosen = torch.randint(len(_WORDS), (n, 9), generator=generator).tolist()
    return [" ".join(_WORDS[i] for i in row) for row in chosen]


def measure(n_candidates: int) -> tuple[int, float]:
    """Return the bytes of a page and the seconds that it takes."""
    generator = torch.Generator().manual_seed(_SEED)
    data = {
        f"candidate_{k:04d}": [
            {"text": text, "label": str(i % 4)} for i, text in enumerate(texts(_N, generator))
        ]
        for k in range(n_candidates)
    }
    candidates = load_candidates(data, view="text", label="label")
    real = load_real([{"text": text} for text in texts(_N_REAL, generator)], view="text")
    encoder = RandomEncoder()
    with tempfile.TemporaryDirectory() as cache:
        ranking = rank(candidates, real, encoder=encoder, gaps=True, cache_dir=cache)
    views = {name_of_real(data): real.views, **{c.name: c.views for c in candidates}}
    embeddings = (encoder.encode(real.views), {c.name: encoder.encode(c.views) for c in candidates})
    start = time.process_time()
    page = ranking_page(ranking, ranking.findings, views=views, embeddings=embeddings)
    return len(page.encode()), time.process_time() - start


def main() -> None:
    """Print a row for each number of candidates."""
    print("| candidates | page | CPU seconds |\n|--:|--:|--:|")
    for n_candidates in map(int, sys.argv[1:] or ("10", "100", "1000")):
        size, seconds = measure(n_candidates)
        print(f"| {n_candidates:,} | {size / 1e6:.2f} MB | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
