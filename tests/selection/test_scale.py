"""Many candidates, and one of a million examples: memory stays bounded, time linear."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.registry import get_proxy
from synque_select.selection.scorer import rank
from tests.benchmarks.base import peak_bytes

pytestmark = pytest.mark.slow

N_CANDIDATES, N_EXAMPLES, DIM = 1_000, 200, 384
N_ROWS, ROW_DIM = 1_000_000, 64
MIB = 2**20


class HashEncoder(BaseEncoder):
    """Fixed noise around one of the directions that a text's first word names."""

    id, modality, revision = "hash", "text", "1"

    def encode(self, views: Any) -> torch.Tensor:
        rows = [self._noise(view) + 20 * self._noise(view.split()[0]) for view in views]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    @staticmethod
    def _noise(text: str) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(DIM, np.float32))


def texts(seed: int, n: int, n_topics: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"topic{rng.integers(n_topics)} w{rng.integers(500)} {seed} {i}" for i in range(n)]


def many(folder: Path) -> tuple[Any, ...]:
    given = [Candidate(f"c{k}", texts(k + 1, N_EXAMPLES, 2 + k % 60)) for k in range(N_CANDIDATES)]
    real = RealSample("real", texts(0, 100, 30))
    options = {"encoder": HashEncoder(), "cache_dir": folder, "progress": False}
    rank(given, real, proxies=["density"], **options)  # fills the cache: encoding is not measured
    return given, real, options, folder / "seconds"


def rank_many(given: Any, real: Any, options: Any, out: Path) -> None:
    started = time.perf_counter()
    ranking = rank(given, real, **options)
    out.write_text(f"{time.perf_counter() - started:.1f}")
    assert len(ranking) == N_CANDIDATES
    assert all(row.selection_stability is not None for row in ranking)


class _Many:
    """`many` of a folder, for a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> tuple[Any, ...]:
        return many(self.folder)


def test_a_suite_of_a_thousand_candidates(tmp_path: Path):
    peak = peak_bytes(rank_many, _Many(tmp_path))
    seconds = float((tmp_path / "seconds").read_text())
    print(f"{N_CANDIDATES} candidates of {N_EXAMPLES} x {DIM}: {seconds} s, {peak / MIB:.0f} MiB")
    # all embeddings together are 293 MiB; the redrawn scores of 4 proxies 64 MiB
    assert peak < 1500 * MIB


class _Rows:
    """A memory map of a million rows, for a process of its own."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> tuple[ProxyInput, ProxyInput, ProxyInput, Path]:
        if not self.file.exists():
            rng = np.random.default_rng(0)
            rows = np.lib.format.open_memmap(self.file, "w+", "float32", (N_ROWS, ROW_DIM))
            for start in range(0, N_ROWS, 50_000):
                rows[start : start + 50_000] = rng.standard_normal((50_000, ROW_DIM), "float32")
            rows.flush()
        rows = np.load(self.file, mmap_mode="r+")
        generator = torch.Generator().manual_seed(1)
        small = [torch.randn(n, ROW_DIM, generator=generator) for n in (100, 2000)]
        sides = [_side(f"s{i}", s) for i, s in enumerate(small)]
        return sides[0], sides[1], _side("million", torch.from_numpy(rows)), self.file


def _side(name: str, rows: torch.Tensor) -> ProxyInput:
    digests = np.zeros((len(rows), 32), dtype=np.uint8)
    digests[:, :8] = np.arange(len(rows), dtype="<u8").view(np.uint8).reshape(-1, 8)
    digests[:, 7] = len(name)
    return ProxyInput(name, [], "text", digests, rows)


def score_million(real: ProxyInput, small: ProxyInput, million: ProxyInput, out: Path) -> None:
    lines = []
    for key in ("pad", "mmd", "coverage"):
        started = time.perf_counter()
        values = get_proxy(key).score(real, [small, million], seed=0, device=torch.device("cpu"))
        assert torch.isfinite(values.values).all()
        lines.append(f"{key} {time.perf_counter() - started:.1f} s")
    out.with_suffix(".txt").write_text(", ".join(lines))


def test_a_candidate_of_a_million_examples(tmp_path: Path):
    peak = peak_bytes(score_million, _Rows(tmp_path / "rows.npy"))
    text = (tmp_path / "rows.txt").read_text()
    print(f"{N_ROWS} x {ROW_DIM} of a memory map: {text}, {peak / MIB:.0f} MiB")
    # the rows are 244 MiB, which may come to stay in memory as pages of the file do
    assert peak < 700 * MIB
