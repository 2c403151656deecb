"""No stage takes a time that grows with the square of the candidates or of their examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.growth import exponent, stages

# above what a busy machine does to CPU seconds, below a square
AT_MOST = 1.5
# what takes less is mostly constant, and its exponent is noise
LEAST_S = 0.1
# all pairs of candidates are compared
SQUARE = {"consensus, intervals, all pairs", "ranking by transfer"}
# beyond these, work is bounded by design: lowered, so that both sizes are beyond them as those of a
# thousand candidates are
LIMITS = {
    "synque_select.selection.mixture._MAX_EXACT_SETS": 8,
    "synque_select.selection.label_filter._MAX_PREDICTIONS": 2**10,
    "synque_select.selection.label_filter._MAX_JUDGES": 8,
    "synque_select.selection.label_filter._MAX_CAMP_JUDGES": 8,
    "synque_select.selection.labels._MAX_JUDGES": 8,
    "synque_select.proxies.transfer._MAX_POOL": 320,
    "synque_select.proxies.kernel._BETWEEN_ROWS": 512,
}


@pytest.mark.parametrize(
    ("small", "large"),
    [
        pytest.param((24, 40), (96, 40), id="candidates"),
        pytest.param((4, 500), (4, 2000), id="examples", marks=pytest.mark.slow),
    ],
)
def test_growth(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: tuple[int, int],
    large: tuple[int, int],
):
    for name, limit in LIMITS.items():
        monkeypatch.setattr(name, limit)
    stages(tmp_path / "imports", 6, 40)
    # the least of several is the one that other programs disturbed least
    runs = [
        [stages(tmp_path / f"{k} {n} {i}", k, n) for i in range(repeats)]
        for (k, n), repeats in ((small, 2), (large, 2))
    ]
    factor = large[0] * large[1] / (small[0] * small[1])
    grown = {}
    for stage in runs[0][0]:
        before, after = (min(run[stage] for run in of_size) for of_size in runs)
        if after >= LEAST_S and stage not in SQUARE:
            grown[stage] = round(exponent(max(before, 1e-3), after, factor), 2)
    print(grown)
    assert {stage: e for stage, e in grown.items() if e > AT_MOST} == {}


def test_a_square_is_seen():
    assert exponent(1.0, 16.0, 4) == pytest.approx(2)
    assert exponent(1.0, 4.0, 4) == pytest.approx(1)
