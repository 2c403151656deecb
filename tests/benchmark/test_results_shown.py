"""Benchmark results show themselves: a row per task and proxy, and a figure."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from synque_select.benchmark.result import BenchmarkResult
from synque_select.benchmark.task_result import TaskFigures, TasksResult
from synque_select.errors import ConfigError

OLD = Path(__file__).parents[1] / "fixtures" / "v0_1"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def released() -> BenchmarkResult:
    return BenchmarkResult.from_dict(json.loads((OLD / "benchmark.json").read_text()))


def test_the_released_data_have_a_row_per_task_and_proxy(released: BenchmarkResult):
    frame = released.to_frame()
    pairs = [(name, key) for name, task in released.tasks.items() for key in task.proxies]
    assert list(zip(frame["task"], frame["proxy"], strict=True)) == pairs
    task, key = pairs[0]
    assert frame["n_seeds"][0] == len(released.tasks[task].seeds)
    value = released.tasks[task].proxies[key].spearman
    assert frame["spearman"][0] == value or math.isnan(value)
    assert repr(released).startswith("<BenchmarkResult: Benchmark on ")
    assert "jackknife" in str(released)


def test_the_figure_of_a_task_has_every_proxy_and_its_interval(released: BenchmarkResult):
    pytest.importorskip("matplotlib").use("agg")
    name, task = next(iter(released.tasks.items()))
    ax = released.plot(name)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(task.proxies)
    bars = [line for line in ax.lines if line.get_alpha() is not None]
    assert len(bars) == len(task.proxies)
    with pytest.raises(ConfigError, match="no figures of the task 'nothing'"):
        released.plot("nothing")


def test_tasks_of_your_own_have_a_row_per_proxy_and_truth():
    def figures(coefficient: float) -> TaskFigures:
        return TaskFigures(
            n_candidates=5, seeds=("0",), metric="accuracy", n_test=50,
            proxies={SCRIPT: {"embedding": coefficient}}, seed_spread={}, noise_ceiling={},
            mixtures={}, size=10, label_filters={}, recommended={}, messages=("A message.",),
        )  # fmt: skip

    tasks = {"one": figures(0.5), "two": figures(0.25), "three": figures(math.nan)}
    result = TasksResult(0, "encoder", "1", tasks, baselines=(SCRIPT,))
    row = result.to_frame().loc[0]
    assert (row["proxy"], row["truth"], row["n_tasks"]) == (SCRIPT, "embedding", 2)
    assert row["spearman"] == pytest.approx(0.375)
    assert (row["one"], row["two"], row["is_baseline"]) == (0.5, 0.25, True)
    assert "<script" not in result._repr_html_()
    assert "A message." in str(result)
