"""From scores and measured performance to the figures of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.case_scores import CONSENSUS, CaseScores
from synque_select.benchmark.layout import Group, Task
from synque_select.benchmark.result import (
    Analysis,
    Comparison,
    Difference,
    GroupCeiling,
    GroupCorrelation,
    ProxyFigures,
    TopFigures,
)
from synque_select.functional.benchmark_statistics import (
    Estimate,
    GroupJackknife,
    TopK,
    agreement,
    gain_share,
    noise_ceiling,
    random_choice_p_value,
    stratified_jackknife,
    top_k_gain,
)
from synque_select.functional.correlation import MIN_UNITS
from synque_select.functional.paired import holm
from synque_select.utils.wording import counted

__all__ = ["TOP_K", "TaskScores", "analyse", "noise_ceilings", "undefined"]

TOP_K = 3
_ALPHA = 0.05
TaskScores = Mapping[tuple[str, str], CaseScores]


@dataclass(frozen=True)
class _Column:
    """One proxy (or the consensus) on one task."""

    key: str
    groups: Sequence[Group]
    scores: TaskScores

    def seeds(self, group: Group) -> list[str]:
        """Return the seeds of the real samples for which the proxy was computed."""
        return [
            seed
            for seed in group.reals
            if (group.name, seed) in self.scores and self.key in self.scores[group.name, seed].keys
        ]

    def over_seeds(self, group: Group, statistic: Callable[[CaseScores], float]) -> float:
        """Return the mean of a statistic over the seeds for which it is defined."""
        return _mean(statistic(self.scores[group.name, seed]) for seed in self.seeds(group))

    def coefficient(self, group: Group, which: int, kept: NDArray[np.int64] | None = None) -> float:
        """Return Pearson (0) or Spearman (1) of a group, for all candidates or for those kept.

        NaN in a group of fewer than 5 candidates.
        """
        if len(group.candidates) < MIN_UNITS:
            return math.nan
        performance = group.performance if kept is None else group.performance[kept]
        return self.over_seeds(
            group, lambda scores: agreement(scores.oriented(self.key, kept), performance)[which]
        )

    @cached_property
    def pearson(self) -> dict[str, float]:
        return {group.name: self.coefficient(group, 0) for group in self.groups}

    @cached_property
    def spearman(self) -> dict[str, GroupJackknife]:
        return {group.name: self._jackknife(group) for group in self.groups}

    def _jackknife(self, group: Group) -> GroupJackknife:
        everyone = np.arange(len(group.candidates))
        deleted = [self.coefficient(group, 1, np.delete(everyone, i)) for i in everyone]
        return GroupJackknife(self.coefficient(group, 1), np.array(deleted))

    @cached_property
    def by_seed(self) -> dict[str, float]:
        """Mean Spearman over the groups, for each seed that all groups have.

        Seeds that only some groups have are left out: the difference between groups would count
        as a difference between seeds.
        """
        groups = [g for g in self.groups if math.isfinite(self.spearman[g.name].value)]
        shared = set.intersection(*[{*self.seeds(group)} for group in groups]) if groups else set()
        return {
            seed: _mean(self._spearman_of_seed(group, seed) for group in groups)
            for seed in sorted(shared)
        }

    def _spearman_of_seed(self, group: Group, seed: str) -> float:
        scores = self.scores[group.name, seed].oriented(self.key)
        return agreement(scores, group.performance)[1]

    def top(self, group: Group, k: int) -> TopK:
        """Return the mean gain over the seeds; chosen is NaN if it is defined for no seed."""
        parts = [
            top_k_gain(self.scores[group.name, seed].oriented(self.key), group.performance, k)
            for seed in self.seeds(group)
        ]
        # blind and oracle do not depend on the scores: rank by the performance itself
        bounds = top_k_gain(group.performance, group.performance, k)
        return TopK(_mean(part.chosen for part in parts), bounds.blind, bounds.oracle)


def analyse(groups: Sequence[Group], scores: TaskScores, baselines: Sequence[str]) -> Analysis:
    """Return the figures of every proxy, and the paired differences between it and the consensus.

    Args:
        groups: Groups of one task.
        scores: (group, seed) to scores.
        baselines: Keys of the proxies that never read the real sample.
    """
    keys = list(dict.fromkeys(key for part in scores.values() for key in part.keys))
    columns = {key: _Column(key, groups, scores) for key in keys}
    proxies = {key: _figures(column, _seconds(key, scores)) for key, column in columns.items()}
    comparison = _compared(columns, proxies, baselines) if CONSENSUS in columns else None
    return Analysis(proxies, comparison)


def _seconds(key: str, scores: TaskScores) -> float | None:
    if key == CONSENSUS:
        return None
    return _mean(part.seconds[key] for part in scores.values() if key in part.seconds)


def undefined(
    groups: Sequence[Group], scores: TaskScores, figures: Mapping[str, ProxyFigures]
) -> list[str]:
    """Return sentences on where a coefficient is undefined and which rankings lack a proxy.

    Args:
        groups: Groups of one task.
        scores: (group, seed) to scores.
        figures: Proxy key to its figures.
    """
    messages, usual = [], []
    for group in groups:
        if len(group.candidates) < MIN_UNITS:
            messages.append(
                f"{group.name}: {counted(len(group.candidates), 'candidate')}, too few for a "
                f"coefficient (at least {MIN_UNITS})."
            )
        elif np.ptp(group.performance) == 0:
            messages.append(
                f"{group.name}: all performances are equal, so no coefficient is defined."
            )
        else:
            usual.append(group.name)
    for key, row in figures.items():
        missing = [name for name in usual if math.isnan(row.by_group[name].spearman)]
        if missing:
            where = ", ".join(missing)
            messages.append(f"{key}: no coefficient in {where}; its scores are equal or undefined.")
    return messages + _incomplete_consensus(scores)


def _incomplete_consensus(scores: TaskScores) -> list[str]:
    """Return sentences on the rankings whose consensus lacks a proxy that others have."""
    everyone = dict.fromkeys(key for part in scores.values() for key in part.members)
    lacking: dict[str, list[str]] = {}
    for (group, seed), part in scores.items():
        for key in everyone:
            if key not in part.members:
                lacking.setdefault(key, []).append(f"{group} (seed {seed})")
    return [
        f"{key}: undefined for a candidate, so not in the consensus of {', '.join(where)}."
        for key, where in lacking.items()
    ]


def _figures(column: _Column, seconds: float | None) -> ProxyFigures:
    spearman = stratified_jackknife(list(column.spearman.values()))
    return ProxyFigures(
        pearson=_mean(column.pearson.values()),
        spearman=spearman.value,
        # the t-interval knows no bounds, a correlation does
        low=float(np.clip(spearman.low, -1, 1)),
        high=float(np.clip(spearman.high, -1, 1)),
        n_groups=spearman.n_groups,
        seed_spread=_spread(column.by_seed.values()),
        by_group={
            group.name: GroupCorrelation(
                column.pearson[group.name], column.spearman[group.name].value
            )
            for group in column.groups
        },
        top3=_top(column, TOP_K),
        seconds=seconds,
    )


def _top(column: _Column, k: int) -> TopFigures:
    """Gain of selecting the best k, over the scored groups of more than k candidates."""
    groups = [group for group in column.groups if len(group.candidates) > k]
    tops = [(group, column.top(group, k)) for group in groups]
    tops = [(group, top) for group, top in tops if math.isfinite(top.chosen)]
    if not tops:
        return TopFigures(math.nan, math.nan, math.nan, math.nan, math.nan)
    parts = [top for _, top in tops]
    chosen = sum(part.chosen for part in parts)
    others = [gain_share(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    return TopFigures(
        chosen=chosen / len(parts),
        blind=_mean(part.blind for part in parts),
        oracle=_mean(part.oracle for part in parts),
        share=gain_share(parts),
        p=random_choice_p_value([group.performance for group, _ in tops], k, chosen),
        share_without_a_group=(min(others), max(others)) if len(parts) > 1 else None,
    )


def _compared(
    columns: Mapping[str, _Column], figures: Mapping[str, ProxyFigures], baselines: Sequence[str]
) -> Comparison:
    consensus = columns[CONSENSUS]
    others = [key for key in columns if key != CONSENSUS]
    known = [key for key in baselines if key in others and math.isfinite(figures[key].spearman)]
    singles = [columns[key] for key in others if key not in baselines]
    # most groups first: a baseline that is defined in a few easy groups must not win
    best = max(known, key=lambda key: (figures[key].n_groups, figures[key].spearman), default=None)
    return Comparison(
        best_baseline=best,
        consensus_minus=_with_verdicts(
            {key: _difference(consensus, columns[key]) for key in others}
        ),
        groups_below_the_median_proxy=tuple(
            group.name
            for group in consensus.groups
            if math.isfinite(consensus.spearman[group.name].value)
            and consensus.spearman[group.name].value
            < np.nanmedian([single.spearman[group.name].value for single in singles])
        ),
    )


def _difference(first: _Column, second: _Column) -> Estimate:
    """Paired jackknife of the difference in Spearman, over groups and seeds that both have."""
    both = {p: s for p, s in first.scores.items() if {first.key, second.key} <= {*s.keys}}
    if len(both) < len(first.scores):
        first, second = (_Column(column.key, column.groups, both) for column in (first, second))
    # candidate by candidate: what both proxies lose with it cancels, so the interval is narrower
    paired = [
        GroupJackknife(a.value - b.value, a.deleted - b.deleted)
        for a, b in zip(first.spearman.values(), second.spearman.values(), strict=True)
    ]
    return stratified_jackknife(paired)


def _with_verdicts(estimates: Mapping[str, Estimate]) -> dict[str, Difference]:
    """Decide all differences of a table together: each alone would be wrong in 5 % of tables."""
    adjusted = holm([estimate.p for estimate in estimates.values()]).tolist()
    return {
        key: Difference(
            difference=estimate.value,
            # as in `_figures`: two coefficients differ by 2 at most
            low=float(np.clip(estimate.low, -2, 2)),
            high=float(np.clip(estimate.high, -2, 2)),
            n_groups=estimate.n_groups,
            verdict=_verdict(estimate.value, p_holm),
            p=estimate.p,
            p_holm=p_holm,
        )
        for (key, estimate), p_holm in zip(estimates.items(), adjusted, strict=True)
    }


def _verdict(difference: float, p_holm: float) -> str:
    if math.isnan(p_holm):
        return "undefined"
    if p_holm < _ALPHA:
        return "beats" if difference > 0 else "is beaten by"
    return "no difference shown"


def noise_ceilings(task: Task, seed: int) -> tuple[float, dict[str, GroupCeiling]]:
    """Return the mean noise ceiling, and the ceiling of each group.

    Args:
        task: The task.
        seed: Random seed of the simulated test sets.
    """
    by_group = {
        group.name: GroupCeiling(
            spearman=math.nan
            if group.n_test is None
            else noise_ceiling(group.performance, group.n_test, seed=seed),
            n_test=group.n_test,
            n_test_source=group.n_test_source,
        )
        for group in task.groups
    }
    return _mean(ceiling.spearman for ceiling in by_group.values()), by_group


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _spread(values: Iterable[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
