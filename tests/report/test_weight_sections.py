"""The weights of a training in which they change: the file, the chart and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synque_select.errors import RecordError
from synque_select.records.weights_file import load_weights, save_weights
from synque_select.report.page import write_report
from synque_select.report.weight_sections import weights_chart, weights_table
from synque_select.types import WeightPoint, WeightTrajectory
from tests.records.records_data import SCRIPT


def trajectory(n: int = 3, k: int = 3) -> WeightTrajectory:
    """Weights that move from the first candidate to the last."""
    names = [SCRIPT, *(f"c{i}" for i in range(1, k))]
    points = []
    for i in range(n):
        share = i / max(n - 1, 1)
        rest = 0.4 / max(k - 2, 1)
        weights = {names[0]: 0.6 * (1 - share), names[-1]: 0.6 * share}
        weights |= dict.fromkeys(names[1:-1], rest)
        points.append(WeightPoint(10 * i, 80 * i, {name: weights[name] for name in names}))
    return WeightTrajectory("odm", 10, 0.02, 10 * n, tuple(points), n - 1, 0.5, 100.0)


def corners(points: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in points.split()]  # type: ignore[misc]


def test_the_file_holds_all(tmp_path):
    save_weights(tmp_path, trajectory())
    assert load_weights(tmp_path) == trajectory()
    assert json.loads((tmp_path / "weights.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version must be 1, found 2"),
        ({"points": []}, "points must be a list of weights of the same candidates"),
        ({"points": [{"step": -1, "draw": 0, "weights": {"a": 1}}]}, r"points\[0\].step must be 0"),
        ({"points": [{"step": 0, "draw": 0, "weights": {"a": "1"}}]}, "weights.a must be a number"),
        ({"policy": 3}, "policy must be a text"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change: dict[str, Any], message: str):
    path = save_weights(tmp_path, trajectory())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=rf"weights.json is damaged: .*{message}"):
        load_weights(tmp_path)


def test_the_areas_fill_the_chart_and_follow_the_weights():
    chart = weights_chart(trajectory())
    areas = [_area(corners(layer.points)) for layer in chart.layers]
    assert sum(areas) == pytest.approx(92 * 92, rel=1e-3)  # without the margins of 4 %
    # each candidate's mean weight over the three parts of the same length
    means = {SCRIPT: 0.3, "c1": 0.4, "c2": 0.3}
    for layer, area in zip(chart.layers, areas, strict=True):
        assert area / (92 * 92) == pytest.approx(means[layer.name], abs=2e-3)
    assert chart.layers[0].name == "c1"


def _area(points: list[tuple[float, float]]) -> float:
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def test_many_candidates_and_changes_are_summarized():
    chart = weights_chart(trajectory(n=1000, k=40))
    assert len(chart.layers) == 8
    assert chart.layers[-1].name == "all others"
    assert sum(_area(corners(layer.points)) for layer in chart.layers) == pytest.approx(
        92 * 92, rel=1e-3
    )
    assert all(len(layer.points) < 10_000 for layer in chart.layers)
    assert chart.notes == ("200 of 1,000 changes are drawn",)


def test_a_run_without_a_change_has_a_chart():
    chart = weights_chart(replace(trajectory(1), steps=0))
    assert sum(_area(corners(layer.points)) for layer in chart.layers) > 0


def test_the_table_has_every_change():
    table = weights_table(trajectory())
    assert [row[:2] for row in table.rows] == [("0", "0"), ("10", "80"), ("20", "160")]


def test_the_page_shows_the_areas_and_escapes_names(tmp_path: Path):
    save_weights(tmp_path, trajectory())
    page = write_report(tmp_path).read_text().replace("\xa0", " ")
    assert page.count("<polygon") == 3
    assert "Weights that changed in training" in page
    assert "asked 2 times in 30 steps and changed the weights 2 times" in page
    assert "0.5 % of the 100.0 s of all else; the budget is 2.0 %" in page
    assert SCRIPT not in page
