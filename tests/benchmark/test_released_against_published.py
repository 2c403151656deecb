"""The benchmark on the released data: regression floors, and what the data itself says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synque_select.benchmark.layout import find_tasks
from synque_select.benchmark.released import render, run_released
from synque_select.benchmark.result import BenchmarkResult, TaskResult

DATA = os.environ.get("SYNQUE_BENCHMARK_DATA")
pytestmark = [
    pytest.mark.skipif(not DATA, reason="SYNQUE_BENCHMARK_DATA names no copy of the data"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    # the default suite, the default encoder, nothing chosen
    out = tmp_path_factory.mktemp("released") / "released.json"
    return run_released(str(DATA), out=out, progress=False)


def task(result: BenchmarkResult, name: str) -> TaskResult:
    if name not in result.tasks:
        pytest.skip(f"no folder {name} in the data")
    return result.tasks[name]


@pytest.mark.parametrize(("name", "floor"), [("sentiment_analysis", 0.58), ("text2sql", 0.75)])
def test_the_consensus_does_not_fall_below_its_floor(
    result: BenchmarkResult, name: str, floor: float
):
    consensus = task(result, name).proxies["consensus"]
    assert consensus.spearman >= floor
    assert consensus.top3.share >= 0.8


def test_every_task_shows_baselines_differences_and_a_ceiling(result: BenchmarkResult):
    for of_task in result.tasks.values():
        comparison = of_task.analysis.comparison
        assert comparison is not None
        assert comparison.best_baseline in of_task.proxies
        assert set(comparison.consensus_minus) == set(of_task.proxies) - {"consensus"}
        assert 0 < of_task.noise_ceiling <= 1
    assert "Best baseline" in render(result)


def test_test_sets_of_websites_are_the_labeled_files():
    root = Path(str(DATA))
    if not (root / "web_agent").is_dir():
        pytest.skip("no folder web_agent in the data")
    import json

    for group in find_tasks(root, ["web_agent"])[0][0].groups:
        path = root / "web_agent" / "original" / "real" / f"{group.name}.json"
        if path.is_file():
            # found from the success rates alone
            assert group.n_test == len(json.loads(path.read_text()))
