"""From scores and measured performance to the figures of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.case_scores import CONSENSUS, CaseScores
from synque_select.benchmark.layout import Group, Task
from synque_select.functional.benchmark_statistics import (
    Estimate,
    GroupJackknife,
    TopK,
    agreement,
    exact_choice_p,
    gain_share,
    noise_ceiling,
    stratified_jackknife,
    top_k_gain,
)
from synque_select.functional.correlation import MIN_UNITS

__all__ = ["TOP_K", "TaskScores", "analyse", "noise_ceilings", "undefined"]

TOP_K = 3
TaskScores = Mapping[tuple[str, str], CaseScores]
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Column:
    """One proxy (or the consensus) on one task."""

    key: str
    groups: Sequence[Group]
    scores: TaskScores

    def seeds(self, group: Group) -> list[str]:
        """Seeds of the real samples against which the proxy was computed."""
        return [
            seed
            for seed in group.reals
            if (group.name, seed) in self.scores and self.key in self.scores[group.name, seed].keys
        ]

    def over_seeds(self, group: Group, statistic: Callable[[CaseScores], float]) -> float:
        """Mean over the seeds for which it is defined."""
        found = [statistic(self.scores[group.name, seed]) for seed in self.seeds(group)]
        defined = [value for value in found if math.isfinite(value)]
        return sum(defined) / len(defined) if defined else math.nan

    def coefficient(self, group: Group, which: int, kept: NDArray[np.int64] | None = None) -> float:
        """Pearson (0) or Spearman (1) of a group, of all candidates or of those that are kept.

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
        """Mean Spearman over the groups, of each seed that all groups have.

        With a seed that only some have, the groups' differences would pass for those of seeds.
        """
        groups = [g for g in self.groups if math.isfinite(self.spearman[g.name].value)]
        shared = set.intersection(*[{*self.seeds(group)} for group in groups]) if groups else set()
        return {
            seed: _mean(self._of_seed(group, seed) for group in groups) for seed in sorted(shared)
        }

    def _of_seed(self, group: Group, seed: str) -> float:
        scores = self.scores[group.name, seed].oriented(self.key)
        return agreement(scores, group.performance)[1]

    def top(self, group: Group, k: int) -> TopK:
        """Mean over the seeds; chosen is NaN where no seed has a defined choice."""
        parts = [
            top_k_gain(self.scores[group.name, seed].oriented(self.key), group.performance, k)
            for seed in self.seeds(group)
        ]
        without = top_k_gain(group.performance, group.performance, k)
        return TopK(_mean(part.chosen for part in parts), without.blind, without.oracle)


def analyse(
    groups: Sequence[Group], scores: TaskScores, baselines: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of every proxy, and the paired differences of the consensus to each.

    Args:
        groups: Of one task.
        scores: (group, seed) to scores.
        baselines: Keys of proxies that never read the real sample.
    """
    keys = list(dict.fromkeys(key for part in scores.values() for key in part.keys))
    columns = {key: _Column(key, groups, scores) for key in keys}
    found: dict[str, Any] = {"proxies": {key: _figures(c) for key, c in columns.items()}}
    for key in keys:
        if key != CONSENSUS:
            seconds = [part.seconds[key] for part in scores.values() if key in part.seconds]
            found["proxies"][key]["seconds"] = _mean(seconds)
    if CONSENSUS in columns:
        found.update(_comparisons(columns, found["proxies"], baselines))
    return found


def undefined(groups: Sequence[Group], scores: TaskScores, figures: Mapping[str, Any]) -> list[str]:
    """Say where there is no coefficient, and where the consensus lacks a proxy.

    Args:
        groups: Of one task.
        scores: (group, seed) to scores.
        figures: Proxy key to its figures.
    """
    said, usual = [], []
    for group in groups:
        if len(group.candidates) < MIN_UNITS:
            said.append(
                f"{group.name}: {len(group.candidates)} candidates, too few for a coefficient "
                f"(from {MIN_UNITS} on)."
            )
        elif np.ptp(group.performance) == 0:
            said.append(f"{group.name}: all performances are equal, so there is no coefficient.")
        else:
            usual.append(group.name)
    for key, row in figures.items():
        without = [name for name in usual if math.isnan(row["by_group"][name]["spearman"])]
        if without:
            where = ", ".join(without)
            said.append(f"{key}: no coefficient in {where}; its scores are equal or undefined.")
    return said + _thinner(scores)


def _thinner(scores: TaskScores) -> list[str]:
    """Say which rankings have a consensus of fewer proxies than others, or none."""
    everyone = dict.fromkeys(key for part in scores.values() for key in part.members)
    found: dict[str, list[str]] = {}
    for (group, seed), part in scores.items():
        for key in everyone:
            if key not in part.members:
                found.setdefault(key, []).append(f"{group} (seed {seed})")
    return [
        f"{key}: undefined for a candidate, so not in the consensus of {', '.join(where)}."
        for key, where in found.items()
    ]


def _figures(column: _Column) -> dict[str, Any]:
    spearman = stratified_jackknife(list(column.spearman.values()))
    return {
        "pearson": _mean(column.pearson.values()),
        "spearman": spearman.value,
        # a coefficient's interval stays where a coefficient can be
        "low": float(np.clip(spearman.low, -1, 1)),
        "high": float(np.clip(spearman.high, -1, 1)),
        "n_groups": spearman.n_groups,
        "seed_spread": _spread(column.by_seed.values()),
        "by_group": {
            group.name: {
                "pearson": column.pearson[group.name],
                "spearman": column.spearman[group.name].value,
            }
            for group in column.groups
        },
        "top3": _top(column, TOP_K),
    }


def _top(column: _Column, k: int) -> dict[str, Any]:
    """Gain of choosing the best k, over the groups of more than k candidates that are scored."""
    groups = [group for group in column.groups if len(group.candidates) > k]
    tops = [(group, column.top(group, k)) for group in groups]
    tops = [(group, top) for group, top in tops if math.isfinite(top.chosen)]
    if not tops:
        return dict.fromkeys(("chosen", "blind", "oracle", "share", "p"), math.nan)
    parts = [top for _, top in tops]
    chosen = sum(part.chosen for part in parts)
    found: dict[str, Any] = {
        "chosen": chosen / len(parts),
        "blind": _mean(part.blind for part in parts),
        "oracle": _mean(part.oracle for part in parts),
        "share": gain_share(parts),
        "p": exact_choice_p([group.performance for group, _ in tops], k, chosen),
    }
    if len(parts) > 1:
        others = [gain_share(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
        found["share_without_a_group"] = [min(others), max(others)]
    return found


def _comparisons(
    columns: Mapping[str, _Column], figures: Mapping[str, Any], baselines: Sequence[str]
) -> dict[str, Any]:
    consensus = columns[CONSENSUS]
    others = [key for key in columns if key != CONSENSUS]
    known = [k for k in baselines if k in others and math.isfinite(figures[k]["spearman"])]
    singles = [columns[key] for key in others if key not in baselines]
    # one that is defined in few groups only is no match for one of all
    best = max(known, key=lambda k: (figures[k]["n_groups"], figures[k]["spearman"]), default=None)
    return {
        "best_baseline": best,
        "consensus_minus": {key: _difference(consensus, columns[key]) for key in others},
        "groups_below_the_median_proxy": [
            group.name
            for group in consensus.groups
            if math.isfinite(consensus.spearman[group.name].value)
            and consensus.spearman[group.name].value
            < np.nanmedian([single.spearman[group.name].value for single in singles])
        ],
    }


def _difference(first: _Column, second: _Column) -> dict[str, Any]:
    """Paired jackknife of the difference in Spearman, over groups and seeds that both have."""
    both = {p: s for p, s in first.scores.items() if {first.key, second.key} <= {*s.keys}}
    if len(both) < len(first.scores):
        first, second = (_Column(column.key, column.groups, both) for column in (first, second))
    paired = [
        GroupJackknife(a.value - b.value, a.deleted - b.deleted)
        for a, b in zip(first.spearman.values(), second.spearman.values(), strict=True)
    ]
    found = stratified_jackknife(paired)
    return {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "n_groups": found.n_groups,
        "verdict": _verdict(found),
    }


def _verdict(found: Estimate) -> str:
    if math.isnan(found.low):
        return "undefined"
    if found.low > 0:
        return "beats"
    return "is beaten by" if found.high < 0 else "no difference shown"


def noise_ceilings(task: Task, seed: int) -> dict[str, Any]:
    """Return the mean noise ceiling, that of each group, and how each test set's size was found."""
    by_group: dict[str, dict[str, Any]] = {
        group.name: {
            "spearman": math.nan
            if group.n_test is None
            else noise_ceiling(group.performance, group.n_test, seed=seed),
            "n_test": group.n_test,
            "n_test_source": group.n_test_source,
        }
        for group in task.groups
    }
    mean = _mean(part["spearman"] for part in by_group.values())
    return {"noise_ceiling": mean, "noise_ceiling_by_group": by_group}


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _spread(values: Iterable[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
