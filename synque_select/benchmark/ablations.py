"""Ablations of the benchmark: decoys of other groups, smaller real samples, spoilt candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from synque_select.benchmark.analysis import analyse
from synque_select.benchmark.case_scores import Case, CaseScorer, CaseScores
from synque_select.benchmark.corruptions import Corruption, corrupted
from synque_select.benchmark.judgements import judged_columns
from synque_select.benchmark.layout import Group, Task
from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import DataError
from synque_select.functional.benchmark_statistics import own_before_decoys

__all__ = ["against_decoys", "at_sample_size", "reactions"]

# of a column's range: what float32 and a solver's tolerance make of equal content
_ROUNDING = 1e-5
Progress = Callable[[Iterable[Case], int], Iterable[Case]]


def against_decoys(task: Task, scorer: CaseScorer, bar: Progress) -> dict[str, Any]:
    """Rank each group's candidates together with those of all other groups.

    Returns:
        Proxy key to {"auc", "by_group"}: how often an own candidate stands before a decoy.
    """
    if len(task.groups) < 2:
        return {"message": f"{task.name} has one group: there are no decoys"}
    named = {
        group.name: [_renamed(c, f"{group.name}/{c.name}") for c in group.candidates]
        for group in task.groups
    }
    cases = []
    for group in task.groups:
        decoys = [c for name, others in named.items() if name != group.name for c in others]
        for seed, real in group.reals.items():
            pool = [*named[group.name], *decoys]
            cases.append(Case(task.name, group.name, seed, "decoys", pool, real))
    own = {group.name: len(group.candidates) for group in task.groups}

    def auc(case: Case, scores: CaseScores, key: str) -> float:
        is_own = np.arange(len(case.candidates)) < own[case.group]
        return own_before_decoys(scores.oriented(key), is_own)

    return _by_group(cases, scorer, bar, {"auc": auc})


def at_sample_size(
    task: Task,
    scorer: CaseScorer,
    size: int,
    baselines: Sequence[str],
    bar: Progress,
    judged: Sequence[str] = (),
) -> dict[str, Any]:
    """Give every ranking only `size` random examples of its real sample; nested by size.

    Args:
        task: The task.
        scorer: Scores the cases.
        size: How many real examples.
        baselines: Keys of proxies that never read them.
        bar: Shows progress.
        judged: Keys of LENS proxies that the released judgements stand for.

    Returns:
        The figures as for the whole sample, or a message where every sample is smaller.
    """
    cases, groups, rows = [], [], {}
    for group in task.groups:
        enough = {seed: real for seed, real in group.reals.items() if len(real) >= size}
        if enough:
            groups.append(group)
        for seed, real in enough.items():
            order = np.random.default_rng([scorer.seed, len(real)]).permutation(len(real))
            part = [real[int(i)] for i in order[:size]]
            small = RealSample(f"{real.name}, {size} examples", part, real.view)
            candidates = group.candidates
            rows[group.name, seed] = order[:size]
            cases.append(Case(task.name, group.name, seed, f"size {size}", candidates, small))
    if not cases:
        return {"message": f"no real sample of {task.name} has {size} examples"}
    columns, _ = judged_columns(task.folder, cases, judged, rows)
    scores = {
        (case.group, case.seed): scorer.scores(case).joined(columns.get((case.group, case.seed)))
        for case in bar(cases, len(cases))
    }
    return analyse(groups, scores, baselines)


def reactions(
    task: Task, scorer: CaseScorer, corruption: Corruption, tasks: Sequence[Task], bar: Progress
) -> dict[str, Any]:
    """Rank every candidate beside its spoilt twin.

    Args:
        task: Whose candidates are spoilt.
        scorer: Scores the cases.
        corruption: What is done to them.
        tasks: All that may give texts of other groups.
        bar: Shows progress.

    Returns:
        Proxy key to {"noticed": how often the twin scores worse (ties half), "shift": by how many
        standard deviations of the candidates' scores, "by_group"}.
    """
    cases = []
    try:
        for group in task.groups:
            foreign = _foreign_texts(tasks, group) if corruption.kind == "off_topic" else []
            twins = [corrupted(c, corruption, foreign, scorer.seed) for c in group.candidates]
            pool = [*group.candidates, *twins]
            for seed, real in group.reals.items():
                cases.append(Case(task.name, group.name, seed, str(corruption), pool, real))
    except DataError as error:
        return {"message": f"{task.name}, {corruption}: {error}"}
    return _by_group(cases, scorer, bar, {"noticed": _noticed, "shift": _shift})


def _foreign_texts(tasks: Iterable[Task], group: Group) -> list[str]:
    """All texts of the candidates of other groups, of every task."""
    others = (g for task in tasks for g in task.groups if g.name != group.name)
    return [str(text) for other in others for c in other.candidates for text in c.views]


def _noticed(case: Case, scores: CaseScores, key: str) -> float:
    clean, spoilt = _halves(scores, key)
    return float(((clean > spoilt) + 0.5 * (clean == spoilt)).mean())


def _shift(case: Case, scores: CaseScores, key: str) -> float:
    clean, spoilt = _halves(scores, key)
    spread = clean.std(ddof=1)
    return float((spoilt - clean).mean() / spread) if spread > 0 else math.nan


def _halves(scores: CaseScores, key: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    clean, spoilt = np.split(scores.with_ties(_ROUNDING).oriented(key), 2)
    return clean, spoilt


def _by_group(
    cases: Sequence[Case],
    scorer: CaseScorer,
    bar: Progress,
    statistics: dict[str, Callable[[Case, CaseScores, str], float]],
) -> dict[str, Any]:
    """Mean over seeds within a group, then over groups, of each proxy's statistics."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for case in bar(cases, len(cases)):
        scores = scorer.scores(case)
        for key in scores.keys:
            for name, statistic in statistics.items():
                by_group = found.setdefault(key, {}).setdefault(name, {})
                by_group.setdefault(case.group, []).append(statistic(case, scores, key))
    return {key: _means(parts) for key, parts in found.items()}


def _means(parts: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    by_name = {
        name: {group: float(np.mean(values)) for group, values in groups.items()}
        for name, groups in parts.items()
    }
    groups = next(iter(by_name.values()))
    return {
        **{name: float(np.mean(list(values.values()))) for name, values in by_name.items()},
        "by_group": {g: {name: values[g] for name, values in by_name.items()} for g in groups},
    }


def _renamed(candidate: Candidate, name: str) -> Candidate:
    return Candidate(name, candidate.dataset, candidate.view, candidate.label, candidate.source)
