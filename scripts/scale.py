"""Measures what a million examples cost, per stage: the table of docs/scale.md.

    python scripts/scale.py           # prints the table
    python scripts/scale.py 100000 2  # one measurement, as JSON, of 2 candidates of 100,000 each

Each size is measured in a process of its own, with one thread, in CPU seconds. Texts have 12 words
on average. Embeddings are random, of 384 numbers: encoding is measured apart, on 2,000 texts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

N_REAL = 200
SIZES = ((10_000, 2), (30_000, 2), (100_000, 2))
REPEATS = 3  # of which the median is printed
WORDS = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("a", "e", "i", "o", "an", "er", "in", "ot")]


def texts(n: int, seed: int) -> Iterator[str]:
    """Yield n texts of invented words."""
    words = random.Random(seed)
    for _ in range(n):
        yield " ".join(words.choices(WORDS, k=words.randint(4, 20)))


def write(path: Path, n: int, seed: int) -> None:
    """Write n texts as JSON Lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(n, seed)))


def peak_mb() -> float:
    """Return the peak of this process's memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n: int, n_candidates: int) -> dict[str, tuple[float, float]]:
    """Return the CPU seconds of each stage, and the peak of memory after it in MB."""
    import torch

    from synque_select.data.sources import load_candidates, load_real
    from synque_select.encoders import BaseEncoder
    from synque_select.proxies.registry import default_suite
    from synque_select.selection.scorer import Scorer

    class Random(BaseEncoder):
        id, modality, revision, batch_size = "random", "text", "1", 1024

        def encode(self, views: Sequence[object]) -> torch.Tensor:
            return torch.nn.functional.normalize(torch.randn(len(views), 384), dim=1)

    stages: dict[str, tuple[float, float]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        stages[name] = (time.process_time() - started, peak_mb())

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i in range(n_candidates):
            write(root / f"c{i}.jsonl", n, i)
        write(root / "real.jsonl", N_REAL, 99)
        os.environ["SYNQUE_CACHE"] = str(root / "cache")
        torch.manual_seed(0)
        with stage("imports"):
            real = load_real(root / "real.jsonl")
            Scorer(["ngram"], cache_dir=root / "warm", progress=False).rank(
                load_candidates({"a": root / "real.jsonl", "b": [f"x {i}" for i in range(9)]}),
                real,
            )
        with stage("read"):
            sets = load_candidates([str(root / f"c{i}.jsonl") for i in range(n_candidates)])
        with stage("hash"):
            for candidate in sets:
                _ = candidate.sha256
        encoder = Random()
        options = {"encoder": encoder, "cache_dir": root / "cache", "progress": False}
        with stage("write embeddings, look for copies"):
            Scorer(["mdm"], **options).score(sets, real)  # type: ignore[arg-type]
        for key in default_suite("text"):
            with stage(f"proxy {key}"):
                Scorer([key], **options).score(sets, real)  # type: ignore[arg-type]
        with stage("rank from the cache"):
            Scorer(**options).rank(sets, real)  # type: ignore[arg-type]
    return stages


def encoding(n: int = 2000) -> float:
    """Return the CPU seconds of encoding n texts with the default encoder, model loaded."""
    from synque_select.encoders import get_encoder

    encoder = get_encoder(None, "text")
    encoder.prepare()
    rows = list(texts(n, 5))
    for _ in encoder.encode_many(rows[:200]):
        pass
    started = time.process_time()
    for _ in encoder.encode_many(rows):
        pass
    return time.process_time() - started


def per_million(seconds: float, n: int) -> str:
    """Return the seconds per million of n."""
    return f"{seconds / n * 1e6:,.0f}"


def medians(runs: Sequence[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Return the medians of several measurements."""
    return {
        name: (median(run[name][0] for run in runs), median(run[name][1] for run in runs))
        for name in runs[0]
    }


def table(print_row: Callable[[str], None]) -> None:
    """Print one row per stage: seconds per million examples at each size, and the memory."""
    results = []
    for n, n_candidates in SIZES:
        command = [sys.executable, __file__, str(n), str(n_candidates)]
        runs = []
        for _ in range(REPEATS):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        results.append((n * n_candidates, medians(runs)))
    empty = " |" * len(SIZES)
    sizes = [f"at {total:,}" for total, _ in results]
    print_row(f"| CPU seconds per 10⁶ examples | {' | '.join(sizes)} | peak memory |")
    print_row(f"|---|{'---:|' * len(sizes)}---:|")
    seconds = median(encoding() for _ in range(REPEATS))
    print_row(f"| encode, all-MiniLM-L6-v2, at 2,000 | {per_million(seconds, 2000)} |{empty}")
    for name in [name for name in results[0][1] if name != "imports"]:
        cells = [per_million(stages[name][0], total) for total, stages in results]
        memory = results[-1][1][name][1]
        print_row(f"| {name} | {' | '.join(cells)} | {memory:,.0f} MB |")
    print_row(f"| nothing yet, all imported |{empty} {results[-1][1]['imports'][1]:,.0f} MB |")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        table(print)
