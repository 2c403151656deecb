"""From scores and measured performance to the figures of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark._layout import Group, Task
from synque_select.benchmark._scoring import CONSENSUS, CaseScores
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

__all__ = ["TOP_K", "TaskScores", "analyse", "noise_ceilings", "too_few"]

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
        return [seed for seed in group.reals if (group.name, seed) in self.scores]

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
        """Mean Spearman over the groups, of each seed."""
        found: dict[str, list[float]] = {}
        for group in self.groups:
            if len(group.candidates) < MIN_UNITS:
                continue
            for seed in self.seeds(group):
                scores = self.scores[group.name, seed].oriented(self.key)
                found.setdefault(seed, []).append(agreement(scores, group.performance)[1])
        return {seed: _mean(values) for seed, values in found.items()}

    def top(self, group: Group, k: int) -> TopK:
        parts = [
            top_k_gain(self.scores[group.name, seed].oriented(self.key), group.performance, k)
            for seed in self.seeds(group)
        ]
        chosen = float(np.mean([part.chosen for part in parts]))
        return TopK(chosen, parts[0].blind, parts[0].oracle)


def analyse(
    groups: Sequence[Group], scores: TaskScores, baselines: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of every proxy, and the paired differences of the consensus to each.

    Args:
        groups: Of one task.
        scores: (group, seed) to scores.
        baselines: Keys of proxies that never read the real sample.
    """
    keys = _common_keys(list(scores.values()))
    columns = {key: _Column(key, groups, scores) for key in keys}
    found: dict[str, Any] = {"proxies": {key: _figures(c) for key, c in columns.items()}}
    for key in keys:
        if key != CONSENSUS:
            found["proxies"][key]["seconds"] = _mean(p.seconds[key] for p in scores.values())
    if CONSENSUS in columns:
        found.update(_comparisons(columns, found["proxies"], baselines))
    return found


def too_few(groups: Sequence[Group]) -> tuple[str, ...]:
    """Say which groups have too few candidates for a coefficient."""
    return tuple(
        f"{group.name}: {len(group.candidates)} candidates, too few for a coefficient (from "
        f"{MIN_UNITS} on)."
        for group in groups
        if len(group.candidates) < MIN_UNITS
    )


def _common_keys(parts: Sequence[CaseScores]) -> list[str]:
    return [key for key in parts[0].keys if all(key in part.keys for part in parts)]


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


def _top(column: _Column, k: int) -> dict[str, Any] | None:
    """Gain of choosing the best k; None where no group has more than k candidates."""
    groups = [group for group in column.groups if len(group.candidates) > k]
    if not groups:
        return None
    parts = [column.top(group, k) for group in groups]
    others = [gain_share(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    chosen = sum(part.chosen for part in parts)
    found: dict[str, Any] = {
        "chosen": chosen / len(parts),
        "blind": _mean(part.blind for part in parts),
        "oracle": _mean(part.oracle for part in parts),
        "share": gain_share(parts),
        "p": exact_choice_p([group.performance for group in groups], k, chosen),
    }
    if math.isnan(chosen):
        found["p"] = math.nan
    if len(parts) > 1:
        found["share_without_a_group"] = [min(others), max(others)]
    return found


def _comparisons(
    columns: Mapping[str, _Column], figures: Mapping[str, Any], baselines: Sequence[str]
) -> dict[str, Any]:
    consensus = columns[CONSENSUS]
    others = [key for key in columns if key != CONSENSUS]
    known = [k for k in baselines if k in others and math.isfinite(figures[k]["spearman"])]
    singles = [columns[key] for key in others if key not in baselines]
    best = max(known, key=lambda key: float(figures[key]["spearman"]), default=None)
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
    """Paired jackknife of the difference in Spearman, over groups in which both are defined."""
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
