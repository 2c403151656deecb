"""The command line when everything is cached, against the import of torch alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.base import Result, compare
from tests.test_layers import ROOT

N_CANDIDATES, N_TEXTS, N_REAL, REPEATS = 8, 1000, 100, 5
BUDGET_S = 3.0
TARGET = 2 / 3  # of 3 seconds, torch takes 2
RANK = ["rank", "--candidates", "c*.jsonl", "--real", "real.jsonl", "--view", "text", "--quiet"]


def _write(folder: Path) -> None:
    draw = random.Random(0)
    words = [f"word{number}" for number in range(2000)]
    for c in range(N_CANDIDATES + 1):
        name, n_rows = (f"c{c}", N_TEXTS) if c < N_CANDIDATES else ("real", N_REAL)
        some = words[100 * c : 100 * c + 800]
        rows = [{"text": " ".join(draw.choices(some, k=12))} for _ in range(n_rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _run(folder: Path, *arguments: str) -> None:
    place = {"SYNQUE_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **place},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def run() -> Iterator[Result]:
    """Run both in alternation, in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name))
        rank = partial(_run, Path(name), "-m", "synque_select", *RANK)
        works = rank, partial(_run, Path(name), "-c", "import torch")
        ours, torch_alone = compare(*works, REPEATS)  # the first call fills the caches
        what = f"rank, everything cached, {N_CANDIDATES} x {N_TEXTS:,} texts"
        rivals = (("import torch", torch_alone, TARGET), ("budget of 3 s", BUDGET_S, 1.0))
        for rival, seconds, target in rivals:
            yield Result(what, seconds / ours, target, rival, ours, seconds)
