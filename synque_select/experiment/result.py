"""The result of an experiment from the outcomes of its fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from synque_select.experiment.fits import Outcome
from synque_select.experiment.policies import (
    PolicyRun,
    policy_arm,
    policy_comparisons,
    policy_messages,
)
from synque_select.experiment.sampling import sampling_arm, sampling_messages
from synque_select.experiment.task import BaseTask
from synque_select.functional.correlation import MIN_UNITS
from synque_select.functional.paired import PairedComparison, compare_paired, holm_verdicts
from synque_select.records.correlation import KeyCorrelations, correlate, mean_correlations
from synque_select.records.experiment_result import (
    ArmResult,
    CandidateResult,
    ExperimentBudget,
    ExperimentData,
    ExperimentResult,
    Metric,
    ProxyCorrelations,
)
from synque_select.types import Ranking, RunRecord
from synque_select.utils.wording import counted

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
    "none",
)
USES_LABELS = frozenset(("best_single_by_validation", "oracle_k", "probed_k", "tuned"))
# words of a metric's name that say that it is a share, from 0 to 1
_SHARES = frozenset(("acc", "accuracy", "auc", "auroc", "f1", "precision", "recall"))
_SEARCHES = ("single", "short", "trial")  # fits that only serve to select candidates
_DERIVED = ("mean_single", "best_single", "best_single_by_validation")

Outcomes = Mapping[str, Mapping[int, Sequence[Outcome]]]
_Figures = Mapping[str, Mapping[int, float]]


def experiment_result(
    task: BaseTask,
    rankings: Sequence[Ranking],
    outcomes: Outcomes,
    records: Sequence[RunRecord],
    *,
    arms: Sequence[str],
    top_k: int,
    n_random: int,
    policies: Sequence[PolicyRun] = (),
    policy_start: str = "chosen",
    sampling: Sequence[str] = (),
    messages: Sequence[str] = (),
    seconds: float = math.nan,
) -> ExperimentResult:
    """Summarize the outcomes of all fits.

    Args:
        task: The task.
        rankings: One ranking per replicate.
        outcomes: Arm to replicate to outcomes; the outcomes of "single" are in the order of the
            candidates.
        records: One run record per fit and real sample.
        arms: The arms that were asked for.
        top_k: Number of selected candidates.
        n_random: Number of random mixtures per replicate.
        policies: How each policy was run, in the first replicate.
        policy_start: Arm of the mixture that the policies start from, and `sampling` draws from.
        sampling: The other ways of drawing from it.
        messages: What else a reader of the figures must know.
        seconds: Wall time of the run.
    """
    figures = _arm_figures(task, rankings, outcomes)
    further = [*(policy_arm(run.policy) for run in policies), *map(sampling_arm, sampling)]
    order = [*(arm for arm in ARMS if arm in arms), *further]
    figures = {arm: figures[arm] for arm in order if arm in figures}
    n_replicates = len(outcomes["chosen"])
    singles = _singles(task, outcomes["single"])
    metrics = {
        arm: {r: [outcome.metrics for outcome in fits] for r, fits in by_replicate.items()}
        for arm, by_replicate in outcomes.items()
    }
    probes = _probes(task, records)
    honest = [r for r in probes if not set(r.mixture.names) & set(task.false_labels)]
    return ExperimentResult(
        metric=Metric(f"test_{task.metric}", task.mode),
        replicates=n_replicates,
        recipe=task.name,
        budget=ExperimentBudget(task.n_distinct, task.max_steps, task.batch_size, top_k, n_random),
        data=ExperimentData(
            len(task.candidates), rankings[0].n_real, len(task.validation), len(task.test)
        ),
        arms={arm: _arm(arm, values, n_replicates) for arm, values in figures.items()},
        comparisons=_comparisons(task, figures, n_replicates, policies, sampling, policy_start),
        candidates=singles,
        correlations=_correlations(rankings[0], probes),
        without_false_labels=_correlations(rankings[0], honest) if task.false_labels else None,
        false_labels=dict(task.false_labels),
        packages=dict(rankings[0].packages),
        messages=(
            *_budget_messages(task, figures, n_random),
            *_untrained_messages(figures),
            *policy_messages(task, policies, policy_start),
            *sampling_messages(sampling, policy_start),
            *messages,
            *task.messages({name: single.test for name, single in singles.items()}),
            *task.arm_messages(metrics),
            *_label_messages(task),
        ),
        wall_s=_wall_s(rankings, outcomes),
        seconds=seconds,
    )


def _arm_figures(
    task: BaseTask, rankings: Sequence[Ranking], outcomes: Outcomes
) -> dict[str, dict[int, float]]:
    """Return arm to replicate to test figure; the arms of single candidates are derived."""
    test, val = f"test_{task.metric}", f"val_{task.metric}"
    figures = {
        arm: {r: fmean(outcome.metrics[test] for outcome in fits) for r, fits in runs.items()}
        for arm, runs in outcomes.items()
        if arm not in _SEARCHES
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


def _arm(arm: str, values: Mapping[int, float], n_replicates: int) -> ArmResult:
    figures = list(values.values())
    return ArmResult(
        mean=fmean(figures) if figures else math.nan,
        std=stdev(figures) if len(figures) > 1 else math.nan,
        n=len(figures),
        uses_labels=arm in USES_LABELS,
        values=tuple(values.get(r, math.nan) for r in range(n_replicates)),
    )


def _comparisons(
    task: BaseTask,
    figures: _Figures,
    n_replicates: int,
    policies: Sequence[PolicyRun],
    sampling: Sequence[str],
    policy_start: str,
) -> dict[str, PairedComparison]:
    def by_replicate(arm: str) -> list[float]:
        return [figures[arm].get(r, math.nan) for r in range(n_replicates)]

    bound = _largest_difference(task.metric, figures)
    keys = [run.policy for run in policies]
    sampled = [arm for arm in map(sampling_arm, sampling) if arm in figures]
    changing = {*map(policy_arm, keys), *sampled}
    static = [arm for arm in figures if arm not in changing]
    chosen = by_replicate("chosen")
    alone = {
        f"chosen_vs_{arm}": compare_paired(chosen, by_replicate(arm), mode=task.mode, bound=bound)
        for arm in static
        if arm != "chosen"
    }
    if "none" in figures:
        untrained = by_replicate("none")
        alone |= {
            f"{arm}_vs_none": compare_paired(
                by_replicate(arm), untrained, mode=task.mode, bound=bound
            )
            for arm in static
            if arm not in ("chosen", "none")
        }
    alone |= policy_comparisons(figures, keys, policy_start, mode=task.mode, bound=bound)
    alone |= {
        f"{arm}_vs_{policy_start}": compare_paired(
            by_replicate(arm), by_replicate(policy_start), mode=task.mode, bound=bound
        )
        for arm in sampled
    }
    return holm_verdicts(alone, mode=task.mode)


def _largest_difference(metric: str, figures: _Figures) -> float:
    """Return the largest possible difference of two values of a metric: inf if it is not known."""
    # the values as well as the name: an accuracy may be logged in percent
    values = [value for arm in figures.values() for value in arm.values() if math.isfinite(value)]
    is_share = not _SHARES.isdisjoint(metric.lower().split("_"))
    return 1.0 if is_share and all(0 <= value <= 1 for value in values) else math.inf


def _singles(
    task: BaseTask, singles: Mapping[int, Sequence[Outcome]]
) -> dict[str, CandidateResult]:
    results = {}
    for i, candidate in enumerate(task.candidates):
        metrics = [by_candidate[i].metrics for by_candidate in singles.values()]
        test = [of_seed[f"test_{task.metric}"] for of_seed in metrics]
        results[candidate.name] = CandidateResult(
            n=len(candidate),
            test=fmean(test),
            std=stdev(test) if len(test) > 1 else math.nan,
            validation=fmean(of_seed[f"val_{task.metric}"] for of_seed in metrics),
            n_seeds=len(test),
            false_labels=candidate.name in task.false_labels,
        )
    return results


def probe_correlations(task: BaseTask, records: Sequence[RunRecord]) -> list[KeyCorrelations]:
    """Return the correlations over the probes of the full budget, one entry per real sample."""
    return correlate(_probes(task, records))


def _probes(task: BaseTask, records: Sequence[RunRecord]) -> list[RunRecord]:
    return [
        record
        for record in records
        if record.kind == "probe" and record.key["optimizer_steps"] == task.max_steps
    ]


def _correlations(ranking: Ranking, records: Sequence[RunRecord]) -> ProxyCorrelations:
    """Correlate under the first real sample, and average over all real samples."""
    by_sample = correlate(records)
    (first,) = [entry for entry in by_sample if entry.key["real_sha256"] == ranking.real_sha256]
    n = len({record.unit for record in records})
    # not the usual advice to train on more units: these are all the candidates there are
    too_few = f"no correlation: {counted(n, 'candidate')}, and a coefficient needs {MIN_UNITS}"
    return ProxyCorrelations(
        dict(first.proxies),
        mean_correlations(by_sample).get("probe", {}),
        first.messages if n >= MIN_UNITS else (too_few,),
    )


def _budget_messages(task: BaseTask, figures: _Figures, n_random: int) -> list[str]:
    """State the common budget of the arms, and how many draws the random mixture averages."""
    other = {"all_unequal": "all data, which has more", "none": "none, which does not train"}
    exceptions = " and ".join(words for arm, words in other.items() if arm in figures)
    messages = [
        f"every arm trains on {counted(task.n_distinct, 'distinct example')} for "
        f"{counted(task.max_steps, 'step')} of "
        f"{task.batch_size}{', except ' if exceptions else ''}{exceptions}"
    ]
    if "random_k" in figures:
        n = n_random * len(figures["random_k"])
        messages.append(
            f"the random mixture is the mean of {counted(n, 'draw')}, {n_random} per replicate"
        )
    return messages


def _untrained_messages(figures: _Figures) -> list[str]:
    """Say if the model as it is has random weights: replicates have the same test data."""
    values = list(figures.get("none", {}).values())
    # not ==: a pretrained model may vary in the last digits on a GPU
    if all(math.isclose(value, values[0], rel_tol=1e-3) for value in values):
        return []
    return [
        "the model as it is differs between replicates, as some of its weights are random before "
        "training: read its result as chance, not as zero-shot performance"
    ]


def _label_messages(task: BaseTask) -> list[str]:
    return [
        f"{false} has false labels; its clean twin is {clean}. Proxies that read inputs only "
        "cannot distinguish the two"
        for false, clean in task.false_labels.items()
    ]


def _wall_s(rankings: Sequence[Ranking], outcomes: Outcomes) -> dict[str, float]:
    def trained(arms: Sequence[str]) -> float:
        return sum(
            outcome.seconds
            for arm in arms
            for fits in outcomes.get(arm, {}).values()
            for outcome in fits
        )

    return {
        "encode": sum(ranking.wall_s.get("encode", 0.0) for ranking in rankings),
        "score": sum(ranking.wall_s.get("score", 0.0) for ranking in rankings),
        "fit": trained([arm for arm in outcomes if arm not in _SEARCHES]),
        "probes": trained(_SEARCHES),
    }
