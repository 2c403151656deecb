"""LENS from the released judgments: the figures of the released data's README, to ±0.0002."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from synque_select.benchmark.analysis import analyse
from synque_select.benchmark.case_scores import Case
from synque_select.benchmark.judgments import (
    find_judgments,
    judged_columns,
    lens_scores,
    read_judgments,
)
from synque_select.benchmark.layout import find_tasks
from synque_select.benchmark.released import BenchmarkOptions, run_released
from synque_select.encoders import BaseEncoder
from synque_select.functional.lens import lens_example_scores
from synque_select.functional.racing import race

DATA = os.environ.get("SYNQUE_BENCHMARK_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="SYNQUE_BENCHMARK_DATA names no folder of the released data"
)

# pearson, spearman
EXPECTED = {
    "sentiment_analysis": {
        "lens_raw": (0.2865, 0.2859),
        "lens_balanced": (0.3178, 0.1113),
        "lens": (0.4109, 0.2159),
    },
    "text2sql": {
        "lens_raw": (0.3839, 0.2974),
        "lens_balanced": (0.3149, 0.2734),
        "lens": (0.3097, 0.2781),
    },
    "web_agent": {
        "lens_raw": (0.2246, 0.1998),
        "lens_balanced": (0.1603, 0.1013),
        "lens": (0.1863, 0.1499),
    },
}
# file and columns: group (None where the task has one), candidate, performance
COLUMNS = {
    "sentiment_analysis": ("sentiment_score.csv", None, "dataset_name", "test_f1_mean"),
    "text2sql": ("text2sql_score.csv", "db_id", "dataset_name", "accuracy"),
    "web_agent": ("webvoyager_scores.csv", "website", "partition", "success_rate"),
}


def performances(task: str) -> dict[str, dict[str, float]]:
    name, group, candidate, figure = COLUMNS[task]
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (Path(str(DATA)) / task / "task_performance" / name).open() as file:
        for row in csv.DictReader(file):
            who = f"portion={row[candidate]}" if task == "web_agent" else row[candidate]
            rows[row[group] if group else task][who].append(float(row[figure]))
    return {g: {c: float(np.mean(v)) for c, v in part.items()} for g, part in rows.items()}


@pytest.mark.parametrize("task", EXPECTED)
def test_correlations_with_performance(task: str):
    measured = performances(task)
    by_group: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for judged in find_judgments(Path(str(DATA)) / task):
        names = [name for name in judged.files if name in measured[judged.group]]
        wanted = [measured[judged.group][name] for name in names]
        for key, scores in lens_scores(judged, names).items():
            pair = (pearsonr(scores, wanted).statistic, spearmanr(scores, wanted).statistic)
            by_group[key][judged.group].append(pair)
    for key, expected in EXPECTED[task].items():
        of_groups = [np.mean(pairs, axis=0) for pairs in by_group[key].values()]
        np.testing.assert_allclose(np.mean(of_groups, axis=0), expected, atol=2e-4)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_benchmark_prints_these_figures(name: str):
    ((task,), _) = find_tasks(Path(str(DATA)), [name])
    cases = [
        Case(task.name, group.name, seed, "as released", group.candidates, real)
        for group in task.groups
        for seed, real in group.reals.items()
    ]
    scores, messages = judged_columns(task.folder, cases, list(EXPECTED[name]))
    assert messages == ()
    actual = analyse(task.groups, scores, []).proxies
    for key, expected in EXPECTED[name].items():
        figures = (actual[key].pearson, actual[key].spearman)
        np.testing.assert_allclose(figures, expected, atol=2e-4)


def test_adaptive_judging_decides_as_all_judgments_do_and_needs_fewer():
    n_all, n_judged = 0, 0
    for judged in find_judgments(Path(str(DATA)) / "text2sql")[:3]:
        pools = []
        for seed, (real, synthetic) in enumerate(judged.files.values()):
            scores = lens_example_scores(read_judgments(real), read_judgments(synthetic))
            pools.append(np.random.default_rng(seed).permutation(scores.numpy()))
        sizes = [len(pool) for pool in pools]
        outcome = race(lambda i, a, b, p=pools: p[i][a:b], sizes, sizes, 3, 0.05, 6)
        best = np.argsort([-pool.mean() for pool in pools])[:3]
        assert sorted(np.flatnonzero(outcome.inside)) == sorted(best)
        assert (outcome.inside | outcome.outside).all()
        n_all += sum(sizes)
        n_judged += sum(len(values) for values in outcome.values)
    assert n_judged < 0.8 * n_all


class Length(BaseEncoder):
    """Costs nothing: the figures of LENS need no embeddings, only the baselines do."""

    id, modality = "length", "text"

    def encode(self, views):
        return torch.tensor([[float(len(view)), 1.0] for view in views])


def test_the_command_uses_released_judgments_unless_it_is_given_a_model(tmp_path):
    result = run_released(
        str(DATA),
        BenchmarkOptions(tasks=["text2sql"], proxies=["lens", "lens_raw"]),
        encoder=Length(),
        cache_dir=tmp_path,
        progress=False,
    )
    task = result.tasks["text2sql"]
    assert "lens_balanced" not in task.proxies
    for key in ("lens", "lens_raw"):
        figures = (task.proxies[key].pearson, task.proxies[key].spearman)
        np.testing.assert_allclose(figures, EXPECTED["text2sql"][key], atol=2e-4)
        assert set(task.proxies[key].by_group) == set(task.groups)
