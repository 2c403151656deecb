"""Ablations of the benchmark: decoys, smaller real samples, corrupted candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.analysis import analyse
from synque_select.benchmark.case_scores import Case, CaseScorer, CaseScores
from synque_select.benchmark.corruptions import Corruption, corrupted
from synque_select.benchmark.judgments import judged_columns
from synque_select.benchmark.layout import Group, Task
from synque_select.benchmark.result import (
    Analysis,
    DecoyFigures,
    Decoys,
    Reaction,
    ReactionFigures,
    Reactions,
)
from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import DataError
from synque_select.functional.benchmark_statistics import own_vs_decoys_auc
from synque_select.utils.wording import counted

__all__ = ["against_decoys", "at_sample_size", "reactions"]

# share of a column's range within which float32 and a solver's tolerance place equal content
_ROUNDING = 1e-5
Progress = Callable[[Iterable[Case], int], Iterable[Case]]
_Statistic = Callable[[Case, CaseScores, str], float]


def against_decoys(task: Task, scorer: CaseScorer, bar: Progress) -> Decoys:
    """Rank the candidates of each group together with those of all other groups.

    Args:
        task: The task.
        scorer: Scores the cases.
        bar: Shows progress.

    Returns:
        Proxy key to how often an own candidate is ranked above a decoy; a sentence if the task has
        a single group.
    """
    if len(task.groups) < 2:
        return f"{task.name} has one group: no decoys"
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
        return own_vs_decoys_auc(scores.oriented(key), is_own)

    by_key = _mean_over_seeds(cases, scorer, bar, {"auc": auc})
    return {
        key: DecoyFigures(_mean(parts["auc"].values()), parts["auc"])
        for key, parts in by_key.items()
    }


def at_sample_size(
    task: Task,
    scorer: CaseScorer,
    size: int,
    baselines: Sequence[str],
    bar: Progress,
    judged: Sequence[str] = (),
) -> Analysis | str:
    """Score every ranking with only `size` random examples of its real sample.

    Smaller samples are subsets of larger ones.

    Args:
        task: The task.
        scorer: Scores the cases.
        size: Number of real examples.
        baselines: Keys of the proxies that never read them.
        bar: Shows progress.
        judged: Keys of the LENS proxies that are computed from the released judgments.

    Returns:
        The figures as for the whole sample; a sentence if every real sample is smaller.
    """
    cases, groups, rows = [], [], {}
    for group in task.groups:
        enough = {seed: real for seed, real in group.reals.items() if len(real) >= size}
        if enough:
            groups.append(group)
        for seed, real in enough.items():
            # the same permutation for every size makes the samples nested
            order = np.random.default_rng([scorer.seed, len(real)]).permutation(len(real))
            part = [real[int(i)] for i in order[:size]]
            small = RealSample(f"{real.name}, {counted(size, 'example')}", part, real.view)
            candidates = group.candidates
            rows[group.name, seed] = order[:size]
            cases.append(Case(task.name, group.name, seed, f"size {size}", candidates, small))
    if not cases:
        return f"no real sample of {task.name} has {counted(size, 'example')}"
    columns, _ = judged_columns(task.folder, cases, judged, rows)
    scores = {
        (case.group, case.seed): scorer.scores(case).joined(columns.get((case.group, case.seed)))
        for case in bar(cases, len(cases))
    }
    return analyse(groups, scores, baselines)


def reactions(
    task: Task, scorer: CaseScorer, corruption: Corruption, tasks: Sequence[Task], bar: Progress
) -> Reactions:
    """Rank every candidate together with its corrupted twin.

    Args:
        task: The task whose candidates are corrupted.
        scorer: Scores the cases.
        corruption: The corruption.
        tasks: All tasks whose texts may be used as those of other groups.
        bar: Shows progress.

    Returns:
        Proxy key to its reaction; a sentence if the corruption cannot be applied.
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
        return f"{task.name}, {corruption}: {error}"
    by_key = _mean_over_seeds(cases, scorer, bar, {"noticed": _noticed, "shift": _shift})
    return {key: _reaction(parts) for key, parts in by_key.items()}


def _reaction(parts: dict[str, dict[str, float]]) -> ReactionFigures:
    noticed, shift = parts["noticed"], parts["shift"]
    return ReactionFigures(
        Reaction(_mean(noticed.values()), _mean(shift.values())),
        {group: Reaction(noticed[group], shift[group]) for group in noticed},
    )


def _foreign_texts(tasks: Iterable[Task], group: Group) -> list[str]:
    """Return all texts of the candidates of other groups, of every task."""
    others = (g for task in tasks for g in task.groups if g.name != group.name)
    return [str(text) for other in others for c in other.candidates for text in c.views]


def _noticed(case: Case, scores: CaseScores, key: str) -> float:
    clean, spoilt = _halves(scores, key)
    return float(((clean > spoilt) + 0.5 * (clean == spoilt)).mean())


def _shift(case: Case, scores: CaseScores, key: str) -> float:
    clean, spoilt = _halves(scores, key)
    spread = clean.std(ddof=1)
    return float((spoilt - clean).mean() / spread) if spread > 0 else math.nan


def _halves(scores: CaseScores, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # a twin with the same inputs must tie with its candidate, whatever the rounding
    clean, spoilt = np.split(scores.with_ties(_ROUNDING).oriented(key), 2)
    return clean, spoilt


def _mean_over_seeds(
    cases: Sequence[Case], scorer: CaseScorer, bar: Progress, statistics: dict[str, _Statistic]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return proxy key to statistic to group to its mean over the seeds."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for case in bar(cases, len(cases)):
        scores = scorer.scores(case)
        for key in scores.keys:
            for name, statistic in statistics.items():
                by_group = values.setdefault(key, {}).setdefault(name, {})
                by_group.setdefault(case.group, []).append(statistic(case, scores, key))
    return {
        key: {
            name: {group: _mean(of_group) for group, of_group in by_group.items()}
            for name, by_group in parts.items()
        }
        for key, parts in values.items()
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _renamed(candidate: Candidate, name: str) -> Candidate:
    return Candidate(name, candidate.dataset, candidate.view, candidate.label, candidate.source)
