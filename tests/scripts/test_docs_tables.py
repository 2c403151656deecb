"""The measured tables of the docs: markers, the text between them, missing verdicts."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.docs_tables import (
    CHOOSING,
    RECIPES,
    RESULTS,
    ROOT,
    TASKS,
    proxy_texts,
    recipe_text,
    summary_text,
    why_text,
    write_between,
)
from synque_select.benchmark.result import BenchmarkResult
from synque_select.cli.options import packaged_config
from synque_select.functional.paired import PairedComparison
from synque_select.records.experiment_result import (
    ArmResult,
    ExperimentResult,
    Metric,
    load_result,
)
from synque_select.records.run_folder import read_json

FIXTURES = ROOT / "tests" / "fixtures" / "v0_1"


def test_the_pages_have_a_place_for_every_table():
    results, choosing = RESULTS.read_text(), CHOOSING.read_text()
    for config in RECIPES:
        assert packaged_config(config).is_file()
        assert f"<!-- measured: {config} -->" in results
        assert f"<!-- end of {config} -->" in results
    for task in TASKS:
        assert f"<!-- measured: proxies {task} -->" in choosing


def test_only_the_text_between_the_markers_is_written(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: x -->\nold\n<!-- end of x -->\nb\n")
    write_between(page, "x", r"new \1")
    expected = "a\n<!-- measured: x -->\nnew \\1\n<!-- end of x -->\nb\n"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="no markers <!-- measured: y -->"):
        write_between(page, "y", "new")


def test_a_missing_verdict_says_what_could_have_been_shown():
    shown = PairedComparison(0.15, 0.1, 0.2, 5, "beats", 0.001, 0.003)
    wide = PairedComparison(0.1, -0.1, 0.3, 5, "no difference shown", 0.3, 0.6)
    adjusted = PairedComparison(0.1, 0.01, 0.19, 5, "no difference shown", 0.04, 0.08)
    alone = PairedComparison(0.1, math.nan, math.nan, 1, "hint only")
    text = why_text(
        {
            "all": shown,
            "random_k": wide,
            "best_single": adjusted,
            "oracle_k": alone,
        }
    )
    assert "at random: with 5 pairs that vary as these do, a difference below 0.200" in text
    assert (
        "best single by proxy: the interval of this comparison alone excludes 0 (p 0.040)" in text
    )
    assert "0.080 after Holm" in text
    assert "best k by validation: 1 of the 5 pairs that a verdict needs" in text
    assert "- mixture of all:" not in text
    assert why_text({"chosen_vs_all": shown}).startswith("Every comparison")


def test_the_summary_decides_all_recipes_together_and_says_what_chance_would_give():
    """One p of 0.03 among four comparisons, two of them of a loss, is not a verdict."""
    small = PairedComparison(-0.05, -0.09, -0.01, 5, "is beaten by", 0.03, 0.03)
    clear = PairedComparison(-0.5, -0.6, -0.4, 5, "beats", 0.0001, 0.0001)
    arms = {name: ArmResult(0.5, 0.1, 5) for name in ("chosen", "random_k", "all")}
    figures = {"comparisons": {"chosen_vs_random_k": small}, "arms": arms}
    stages = {"encode": 1.0, "score": 1.0, "fit": 1.0, "probes": 1.0}
    more = {"replicates": 5, "wall_s": stages, "seconds": 60.0}
    accuracy = ExperimentResult(metric=Metric("test_acc", "max"), **figures, **more)
    loss = replace(
        accuracy,
        metric=Metric("test_loss", "min"),
        comparisons={"chosen_vs_random_k": small, "chosen_vs_all": clear},
    )
    text = summary_text({"a": accuracy, "b": loss})
    assert "Of 3 comparisons of the selected mixture: “beats” 1 (b, all, as many examples)" in text
    assert "“is beaten by” 0, “no difference shown” 2" in text
    assert "0.15 of 3 intervals would exclude 0 on average" in text
    assert "at least one in 14 %" in text
    assert "Here 3 of 3 exclude 0" in text


def test_a_recipe_and_the_summary_are_written_from_its_result():
    result = load_result(FIXTURES / "experiment_run")
    text = recipe_text("digits", FIXTURES / "experiment_run", 12.4)
    assert text.startswith("`synque-select experiment --config digits`; ")
    assert "; 12 s in total." in text
    for name in result.arms:
        assert f"{result.arms[name].mean:.3f}" in text
    assert text.index("**Arms") < text.index("**Paired comparisons") < text.index("Why no diff")
    summary = summary_text({"digits": result})
    assert re.search(r"The 1 experiments? took \d+ minutes in total", summary)


def test_tables_over_all_tasks_wait_until_every_task_was_run():
    result = BenchmarkResult.from_dict(read_json(FIXTURES / "benchmark.json"))
    (name,) = result.tasks
    texts = proxy_texts(result.tasks)
    assert set(texts) == {f"proxies {name}"}
    every = proxy_texts(dict.fromkeys(TASKS, result.tasks[name]))
    assert {"measured", "false facts", "sample size", "simple and complex"} < set(every)
    assert all(f"<!-- measured: {marker} -->" in CHOOSING.read_text() for marker in every)


def test_an_unknown_recipe_is_an_error():
    command = [sys.executable, "-m", "scripts.docs_tables", "results", "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--only nothing: allowed are sentiment-small" in done.stderr
