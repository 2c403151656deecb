"""From outcomes to `result.json`: arms, paired comparisons, correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from synque_select.experiment.fits import Outcome
from synque_select.experiment.task import BaseTask
from synque_select.functional.correlation import MIN_UNITS
from synque_select.functional.paired import compare_paired
from synque_select.records.correlation import KeyCorrelations, correlate, mean_correlations
from synque_select.types import Ranking, RunRecord

__all__ = ["ARMS", "USES_LABELS", "experiment_result", "probe_correlations"]

ARMS = (
    "chosen",
    "random_k",
    "all",
    "mean_single",
    "best_single",
    "best_single_by_validation",
    "oracle_k",
    "probed_k",
    "tuned",
    "all_unequal",
)
USES_LABELS = frozenset(("best_single_by_validation", "oracle_k", "probed_k", "tuned"))
_TO_CHOOSE = ("single", "short", "trial")  # fits that only choose
_DERIVED = ("mean_single", "best_single", "best_single_by_validation")

Outcomes = Mapping[str, Mapping[int, Sequence[Outcome]]]


def experiment_result(
    task: BaseTask,
    rankings: Sequence[Ranking],
    outcomes: Outcomes,
    records: Sequence[RunRecord],
    *,
    arms: Sequence[str],
    k: int,
    n_random: int,
    messages: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of `result.json`.

    Args:
        task: What was run.
        rankings: One a replicate.
        outcomes: Arm to replicate to outcomes; the singles in the order of the candidates.
        records: One a fit and real sample.
        arms: Which arms were asked for.
        k: How many were chosen.
        n_random: Random mixtures a replicate.
        messages: What a reader must know of the run.
    """
    figures = arm_figures(task, rankings, outcomes)
    figures = {arm: figures[arm] for arm in ARMS if arm in arms and arm in figures}
    n_replicates = len(outcomes["chosen"])
    singles = _singles(task, outcomes["single"])
    metrics = {
        arm: {r: [o.metrics for o in found] for r, found in of_arm.items()}
        for arm, of_arm in outcomes.items()
    }
    said = [
        *task.messages({name: row["test"] for name, row in singles.items()}),
        *task.arm_messages(metrics),
    ]
    return {
        "version": 1,
        "recipe": task.name,
        "metric": {"name": f"test_{task.metric}", "mode": task.mode},
        "replicates": n_replicates,
        "budget": {
            "n_distinct": task.n_distinct,
            "max_steps": task.max_steps,
            "batch_size": task.batch_size,
            "k": k,
            "n_random": n_random,
        },
        "data": {
            "n_candidates": len(task.candidates),
            "n_real": rankings[0].n_real,
            "n_validation": len(task.validation),
            "n_test": len(task.test),
        },
        "arms": {arm: _arm(arm, values, n_replicates) for arm, values in figures.items()},
        "comparisons": _comparisons(task, figures, n_replicates),
        "candidates": singles,
        **_correlations(task, rankings, records),
        "packages": dict(rankings[0].packages),
        "messages": [
            *_budget_messages(task, figures, n_random),
            *messages,
            *said,
            *_label_messages(task),
        ],
        "wall_s": _wall_s(rankings, outcomes),
    }


def arm_figures(
    task: BaseTask, rankings: Sequence[Ranking], outcomes: Outcomes
) -> dict[str, dict[int, float]]:
    """Return arm to replicate to test figure; those of single candidates are derived."""
    test, val = f"test_{task.metric}", f"val_{task.metric}"
    figures = {
        arm: {r: fmean(o.metrics[test] for o in found) for r, found in by_replicate.items()}
        for arm, by_replicate in outcomes.items()
        if arm not in _TO_CHOOSE
    }
    figures |= {arm: {} for arm in _DERIVED}
    names = [candidate.name for candidate in task.candidates]
    choose = max if task.mode == "max" else min
    for r, singles in outcomes["single"].items():
        by_name = dict(zip(names, singles, strict=True))
        best = rankings[r].order()[0].name
        best_by_labels = choose(singles, key=lambda single: single.metrics[val])
        figures["mean_single"][r] = fmean(single.metrics[test] for single in singles)
        figures["best_single"][r] = by_name[best].metrics[test]
        figures["best_single_by_validation"][r] = best_by_labels.metrics[test]
    return figures


def _arm(arm: str, values: Mapping[int, float], n_replicates: int) -> dict[str, Any]:
    found = list(values.values())
    return {
        "mean": fmean(found) if found else math.nan,
        "std": stdev(found) if len(found) > 1 else math.nan,
        "n": len(found),
        "uses_labels": arm in USES_LABELS,
        "values": [values.get(r, math.nan) for r in range(n_replicates)],
    }


def _comparisons(
    task: BaseTask, figures: Mapping[str, Mapping[int, float]], n_replicates: int
) -> dict[str, Any]:
    def paired(arm: str) -> list[float]:
        return [figures[arm].get(r, math.nan) for r in range(n_replicates)]

    return {
        f"chosen_vs_{arm}": compare_paired(paired("chosen"), paired(arm), mode=task.mode).to_dict()
        for arm in figures
        if arm != "chosen"
    }


def _singles(task: BaseTask, singles: Mapping[int, Sequence[Outcome]]) -> dict[str, Any]:
    rows = {}
    for i, candidate in enumerate(task.candidates):
        found = [by_candidate[i].metrics for by_candidate in singles.values()]
        test = [metrics[f"test_{task.metric}"] for metrics in found]
        rows[candidate.name] = {
            "n": len(candidate),
            "test": fmean(test),
            "std": stdev(test) if len(test) > 1 else math.nan,
            "validation": fmean(metrics[f"val_{task.metric}"] for metrics in found),
            "n_seeds": len(test),
            "false_labels": candidate.name in task.false_labels,
        }
    return rows


def _correlations(
    task: BaseTask, rankings: Sequence[Ranking], records: Sequence[RunRecord]
) -> dict[str, Any]:
    """Correlate over the K probes of the full budget, with and without false labels."""
    probes = _probes(task, records)
    result = _correlation_block("correlations", rankings[0], probes)
    if task.false_labels:
        true = [r for r in probes if not set(r.mixture.names) & set(task.false_labels)]
        result |= _correlation_block("correlations_without_false_labels", rankings[0], true)
        result["false_labels"] = dict(task.false_labels)
    return result


def probe_correlations(task: BaseTask, records: Sequence[RunRecord]) -> list[KeyCorrelations]:
    """Return the correlations over the probes of the full budget, one entry a real sample."""
    return correlate(_probes(task, records))


def _probes(task: BaseTask, records: Sequence[RunRecord]) -> list[RunRecord]:
    return [
        record
        for record in records
        if record.kind == "probe" and record.key["optimizer_steps"] == task.max_steps
    ]


def _correlation_block(name: str, ranking: Ranking, records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the correlations under the first real sample, and the means over all of them."""
    found = correlate(records)
    (first,) = [entry for entry in found if entry.key["real_sha256"] == ranking.real_sha256]
    means = mean_correlations(found).get("probe", {})
    n = len({record.unit for record in records})
    # every candidate there is has been trained on
    too_few = f"no correlation: {n} candidates, and a coefficient needs {MIN_UNITS}"
    return {
        name: {key: value.to_dict() for key, value in first.proxies.items()},
        f"{name}_mean_over_real_samples": {key: asdict(mean) for key, mean in means.items()},
        f"{name}_messages": list(first.messages) if n >= MIN_UNITS else [too_few],
    }


def _budget_messages(
    task: BaseTask, figures: Mapping[str, Mapping[int, float]], n_random: int
) -> list[str]:
    """Say what the arms have alike, and of how many draws the random mixture is the mean."""
    but = ", but for all data, which has more" if "all_unequal" in figures else ""
    said = [
        f"every arm trains on {task.n_distinct:,} distinct examples, {task.max_steps} steps of "
        f"{task.batch_size}{but}"
    ]
    if "random_k" in figures:
        n = n_random * len(figures["random_k"])
        said.append(f"the mixture of k at random is the mean of {n} draws, {n_random} a replicate")
    return said


def _label_messages(task: BaseTask) -> list[str]:
    return [
        f"{false} has false labels; its clean twin is {clean}. Proxies that read inputs only "
        "cannot see labels, so they cannot tell the two apart"
        for false, clean in task.false_labels.items()
    ]


def _wall_s(rankings: Sequence[Ranking], outcomes: Outcomes) -> dict[str, float]:
    def trained(arms: Sequence[str]) -> float:
        return sum(
            outcome.seconds
            for arm in arms
            for found in outcomes.get(arm, {}).values()
            for outcome in found
        )

    return {
        "encode": sum(ranking.wall_s.get("encode", 0.0) for ranking in rankings),
        "score": sum(ranking.wall_s.get("score", 0.0) for ranking in rankings),
        "fit": trained([arm for arm in outcomes if arm not in _TO_CHOOSE]),
        "probes": trained(_TO_CHOOSE),
    }
