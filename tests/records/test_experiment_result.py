"""`result.json`: written and read again without loss; a broken field is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.functional.correlation import correlate_scores
from synque_select.functional.paired import compare_paired
from synque_select.records.correlation import MeanCorrelation
from synque_select.records.experiment_result import (
    ArmResult,
    CandidateResult,
    ExperimentBudget,
    ExperimentData,
    ExperimentResult,
    Metric,
    ProxyCorrelations,
    load_result,
    save_result,
)

PAD = correlate_scores(range(6), [2, 1, 3, 4, 6, 5], higher_is_better=True, mode="max")
RESULT = ExperimentResult(
    metric=Metric("test_acc", "max"),
    replicates=2,
    recipe="shades",
    budget=ExperimentBudget(24, 6, 8, top_k=2, n_random=1),
    data=ExperimentData(6, 20, 40, 60),
    arms={
        "chosen": ArmResult(0.5, 0.1, 2, values=(0.4, 0.6)),
        "oracle_k": ArmResult(0.75, 0.0, 2, uses_labels=True, values=(0.75, 0.75)),
    },
    comparisons={
        "chosen_vs_oracle_k": compare_paired(
            [0.4, 0.6, 0.5, 0.6, 0.4], [0.75, 0.75, 0.7, 0.9, 0.8], mode="max"
        )
    },
    candidates={"a": CandidateResult(24, 0.5, 0.1, validation=0.4, n_seeds=2, false_labels=True)},
    correlations=ProxyCorrelations(
        {"pad": PAD}, {"pad": MeanCorrelation(2, 0.1, 0.2, 0.3)}, ("m",)
    ),
    without_false_labels=ProxyCorrelations(messages=("too few",)),
    false_labels={"a": "b"},
    packages={"torch": "2"},
    messages=("one", "two"),
    wall_s={"fit": 2.0},
    seconds=3.5,
)


def test_a_written_result_is_read_without_loss(tmp_path: Path):
    save_result(tmp_path, RESULT)
    assert load_result(tmp_path) == RESULT


def test_undefined_figures_are_null_in_the_file_and_nan_in_memory(tmp_path: Path):
    arm = ArmResult(math.nan, math.nan, 0, values=(math.nan,))
    state = json.loads(save_result(tmp_path, replace(RESULT, arms={"all": arm})).read_text())
    assert state["arms"]["all"] == {
        "mean": None, "std": None, "n": 0, "uses_labels": False, "values": [None],
    }  # fmt: skip
    again = load_result(tmp_path).arms["all"]
    assert all(map(math.isnan, (again.mean, again.std, *again.values)))


def test_the_keys_are_those_of_version_1():
    state = RESULT.to_dict()
    assert state["version"] == 1
    assert state["budget"] == {
        "n_distinct": 24, "max_steps": 6, "batch_size": 8, "k": 2, "n_random": 1,
    }  # fmt: skip
    assert {
        "correlations",
        "correlations_mean_over_real_samples",
        "correlations_messages",
        "correlations_without_false_labels",
        "false_labels",
    } <= set(state)


def test_only_metric_and_replicates_are_required():
    state = {"version": 1, "metric": {"name": "loss", "mode": "min"}, "replicates": 3}
    result = ExperimentResult.from_dict(state)
    assert (result.budget, result.data, result.without_false_labels) == (None, None, None)
    assert not result.arms
    assert math.isnan(result.seconds)


def test_verdicts_of_a_file_without_p_values_are_decided_anew():
    """Version 0.1.0 said "beats" on two pairs, and on one of several comparisons."""
    pair = {"difference": 0.231, "low": 0.038, "high": 0.424, "n": 5, "verdict": "beats"}
    state = RESULT.to_dict() | {"comparisons": {"a": pair}}
    (alone,) = ExperimentResult.from_dict(state).comparisons.values()
    assert (alone.verdict, round(alone.p, 3)) == ("beats", 0.029)
    state["comparisons"] = {"a": pair, "b": pair, "c": pair | {"n": 2}}
    read = ExperimentResult.from_dict(state).comparisons
    assert [part.verdict for part in read.values()] == [
        "no difference shown",
        "no difference shown",
        "hint only",
    ]
    assert read["a"].p_holm == pytest.approx(2 * alone.p)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"version": 2}, "version must be 1, found 2"),
        ({"metric": {"name": "acc", "mode": "up"}}, "metric.mode must be 'max' or 'min'"),
        ({"replicates": 0}, "replicates must be a count"),
        ({"arms": {"all": {"std": 1, "n": 1}}}, "arms.all.mean must be a number or null"),
        (
            {
                "comparisons": {
                    "x": {"difference": 0, "low": 0, "high": 0, "n": 2, "verdict": "won"}
                }
            },
            "comparisons.x.verdict must be one of beats, is beaten by, no difference shown",
        ),
        ({"candidates": {"a": {"n": 3, "test": "high"}}}, "candidates.a.test must be a number"),
        ({"correlations": {"pad": {"n": 3}}}, "correlations.pad.pearson must be an object"),
        ({"messages": "none"}, "messages must be a list of texts"),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, part: dict[str, object], message: str):
    (tmp_path / "result.json").write_text(json.dumps({**RESULT.to_dict(), **part}))
    with pytest.raises(RecordError, match=r"result\.json is damaged: ") as caught:
        load_result(tmp_path)
    assert message in str(caught.value)
