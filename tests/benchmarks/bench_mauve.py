"""MAUVE from one seed against mauve-text, on equal features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mauve import compute_mauve

from synque_select.functional.mauve import mauve_score
from tests.benchmarks.base import Result, compare, peak_bytes

TARGET = 2.0
SIZES = [(200, 1000), (200, 5000), (1000, 1000), (1000, 5000)]
DIM = 384


def features(n_real: int, n_synthetic: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentence-embedding-like features: unit rows around 60 centres, other shares in each set."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn((60, DIM), generator=generator)

    def draw(n: int, skew: float) -> torch.Tensor:
        shares = torch.exp(-skew * torch.arange(60.0))
        chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
        rows = centres[chosen] + torch.randn((n, DIM), generator=generator)
        return torch.nn.functional.normalize(rows, dim=1)

    return draw(n_real, 0.0), draw(n_synthetic, 0.05)


def ours(real: torch.Tensor, synthetic: torch.Tensor) -> float:
    return float(mauve_score(real, synthetic))


def theirs(real: torch.Tensor, synthetic: torch.Tensor) -> float:
    result = compute_mauve(p_features=real.numpy(), q_features=synthetic.numpy(), verbose=False)
    return float(result.mauve)


def warm_small() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of the largest size, after both have loaded what they load at the first call."""
    small = features(50, 50)
    ours(*small)
    theirs(*small)
    return features(*SIZES[-1])


def run() -> Iterator[Result]:
    """Yield one result a size; memory is measured at the largest."""
    for n_real, n_synthetic in SIZES:
        real, synthetic = features(n_real, n_synthetic)
        # bound as defaults: the loop moves on
        seconds, rival_seconds = compare(
            lambda r=real, s=synthetic: ours(r, s), lambda r=real, s=synthetic: theirs(r, s)
        )
        largest = (n_real, n_synthetic) == SIZES[-1]
        yield Result(
            name=f"MAUVE, {n_synthetic} against {n_real}, one seed",
            ratio=rival_seconds / seconds,
            target=TARGET,
            rival="mauve-text",
            seconds=seconds,
            rival_seconds=rival_seconds,
            peak_bytes=peak_bytes(ours, warm_small) if largest else None,
            rival_peak_bytes=peak_bytes(theirs, warm_small) if largest else None,
            note=f"score {ours(real, synthetic):.3f} | {theirs(real, synthetic):.3f}",
        )
