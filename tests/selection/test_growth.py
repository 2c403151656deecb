"""No stage takes a time that grows with the square of the candidates or of their examples."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.benchmarks.growth import exponent, stages

# above what a busy machine does to CPU seconds, below a square
AT_MOST = 1.5
# what takes less is mostly constant, and its exponent is noise
LEAST_S = 0.1
# compares all pairs of the examples of each up to `max_examples`
SQUARE = {"examples": {"proxy mdm"}}
# beyond these, work is bounded by design: lowered, so that all sizes are beyond them as those of a
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
    "sizes",
    [
        pytest.param([(24, 40), (96, 40)], id="candidates"),
        pytest.param([(24, 40), (96, 40), (384, 40)], id="more", marks=pytest.mark.slow),
        pytest.param([(4, 500), (4, 2000), (4, 8000)], id="examples", marks=pytest.mark.slow),
    ],
)
def test_growth(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    sizes: list[tuple[int, int]],
):
    """The exponent from each size to the next, which is four times as large."""
    for name, limit in LIMITS.items():
        monkeypatch.setattr(name, limit)
    stages(tmp_path / "imports", 6, 40)
    # the least of several is the one that other programs disturbed least
    runs = [[stages(tmp_path / f"{k} {n} {i}", k, n) for i in range(2)] for k, n in sizes]
    grown: dict[str, list[float]] = {}
    for smaller, larger in itertools.pairwise(runs):
        for stage in smaller[0]:
            before, after = (min(run[stage] for run in of_size) for of_size in (smaller, larger))
            if after >= LEAST_S:
                e = round(exponent(max(before, 1e-3), after, 4), 2)
                grown.setdefault(stage, []).append(e)
    print(grown)
    steep = {stage: e for stage, e in grown.items() if max(e) > AT_MOST}
    assert steep.keys() <= SQUARE.get(request.node.callspec.id, set()), steep


def test_a_square_is_seen():
    assert exponent(1.0, 16.0, 4) == pytest.approx(2)
    assert exponent(1.0, 4.0, 4) == pytest.approx(1)
