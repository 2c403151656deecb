"""How the time of every stage grows with the number of candidates and of examples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.base import Growth
from tests.benchmarks.growth import exponent, stages

# candidates and examples of each; the last two sizes give the exponent
CANDIDATES = ((64, 64), (256, 64), (1024, 64))
EXAMPLES = ((4, 2000), (4, 8000), (4, 32_000))
# the first run imports what it needs; of several, the least was disturbed least
WARM_UP, RUNS = (6, 40), 3
AT_MOST = 1.1
# what takes less is mostly constant
LEAST_S = 0.05
# what compares all pairs of candidates
SQUARE = dict.fromkeys(
    ("consensus, intervals, all pairs", "ranking by transfer"),
    "K² / 2 differences, in 2,000 resamples, of more than 131 candidates in 2^18 / K",
)


def run() -> Iterator[Growth]:
    """Yield a row per stage, for more candidates and then for more examples of each."""
    yield from _grown("candidates", CANDIDATES)
    yield from _grown("examples", EXAMPLES)


def _grown(what: str, sizes: Sequence[tuple[int, int]]) -> Iterator[Growth]:
    with tempfile.TemporaryDirectory() as folder:
        stages(Path(folder), *WARM_UP)
    runs = [_least(k, n) for k, n in sizes]
    (k_before, n_before), (k, n) = sizes[-2:]
    factor = k * n / (k_before * n_before)
    for stage in runs[0]:
        seconds = [run[stage] for run in runs]
        if seconds[-1] < LEAST_S:
            continue
        yield Growth(
            name=f"{stage}, more {what}",
            exponent=exponent(max(seconds[-2], 1e-6), seconds[-1], factor),
            at_most=AT_MOST,
            seconds={f"{k:,} x {n:,}": each for (k, n), each in zip(sizes, seconds, strict=True)},
            note=SQUARE.get(stage, "") if what == "candidates" else "",
        )


def _least(n_candidates: int, n_examples: int) -> dict[str, float]:
    """Return the least of several times of each stage."""
    runs = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(stages(Path(folder), n_candidates, n_examples))
    return {stage: min(run[stage] for run in runs) for stage in runs[0]}
