"""Examples of a mixture from a DataLoader, against one table with weighted draws."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets
from torch.utils.data import DataLoader, WeightedRandomSampler

from synque_select.data.sources import load_candidates
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.types import Mixture
from tests.benchmarks.base import Result, cpu_seconds

N_CANDIDATES, N_TEXTS, N_DRAWS, BATCH_SIZE = 5, 20_000, 20_000, 32
WORKERS = (0, 2, 4)
REPEATS = 5
# ours may take 1.3 times as long, and 9 microseconds per draw in the main process
TARGET, BUDGET_S = 1 / 1.3, 9e-6


def _write(folder: Path) -> None:
    for c in range(N_CANDIDATES):
        rows = [
            {"text": f"text {i} of candidate {c}, which is not long", "label": i % 2, "id": i}
            for i in range(N_TEXTS)
        ]
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"c{c}.jsonl").write_text(lines)


def _seconds(dataset: Any, sampler: Any, n_workers: int) -> float:
    loader = DataLoader(
        dataset, batch_size=BATCH_SIZE, sampler=sampler, num_workers=n_workers, collate_fn=len
    )
    begun = cpu_seconds()
    assert sum(loader) == N_DRAWS
    return (cpu_seconds() - begun) / N_DRAWS


def run() -> Iterator[Result]:
    """Draw in alternation from the mixture and from the table; CPU seconds, workers included."""
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name))
        candidates = load_candidates(f"{name}/*.jsonl")
        mixture = Mixture.equal([candidate.name for candidate in candidates])
        ours = MixtureDataset(candidates, mixture, epoch_length=N_DRAWS)
        table = concatenate_datasets([candidate.dataset for candidate in candidates])
        weighted = WeightedRandomSampler([1.0] * len(table), N_DRAWS)
        for n_workers in WORKERS:
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(REPEATS):
                times[0].append(_seconds(ours, None, n_workers))
                times[1].append(_seconds(table, weighted, n_workers))
            our_s, rival_s = (statistics.median(part) for part in times)
            what = f"{N_CANDIDATES} candidates x {N_TEXTS:,}, {n_workers} workers"
            yield Result(
                name=f"a draw of a mixture, {what}",
                ratio=rival_s / our_s,
                target=TARGET,
                rival="datasets, concatenated, WeightedRandomSampler",
                seconds=our_s,
                rival_seconds=rival_s,
            )
            if not n_workers:
                yield Result(
                    name=f"a draw of a mixture, {what}",
                    ratio=BUDGET_S / our_s,
                    target=1.0,
                    rival=f"budget of {1e6 * BUDGET_S:g} µs",
                    seconds=our_s,
                    rival_seconds=BUDGET_S,
                )
