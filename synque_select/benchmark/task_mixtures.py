"""Mixtures at equal totals: what choosing and filtering gain on a labeled test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.task_folders import LabeledTask
from synque_select.benchmark.task_quality import Learner, Learners, Parts, drawing_order
from synque_select.data.label_sets import labeled_positions
from synque_select.selection.label_filter import LabelFilter, LabelJudges, filter_labels

__all__ = ["ARMS", "Arm", "Choice", "MixtureBench", "MixtureValues"]

Arm = Literal[
    "all",
    "recommended",
    "top3",
    "random3",
    "half",
    "random_half",
    "oracle_half",
    "all_filtered",
    "half_filtered",
    "all_filtered_always",
]
ARMS: tuple[Arm, ...] = get_args(Arm)
# learner to arm to its value in each replicate
MixtureValues: TypeAlias = dict[Learner, dict[Arm, list[float]]]

_TOP = 3
# draws of training examples for each real sample, and random choices in each of these replicates
_N_DRAWS = 2
_N_RANDOM = 2


@dataclass(frozen=True, eq=False)
class Choice:
    """What is known without labels about one real sample.

    Args:
        seed: Seed of the real sample.
        order: Names of the candidates, best first.
        recommended: Names of those that a ranking selects without `top_k`.
        weights: Candidate name to the weight of its vote in the label filter; None for its plain
            accuracy on the labels of the others.
    """

    seed: str
    order: tuple[str, ...]
    recommended: tuple[str, ...]
    weights: Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class MixtureBench:
    """Everything that is trained on in one task: candidates, filters, and the common total.

    Args:
        task: The task.
        learners: Its learners.
        choices: What is known about each real sample.
        oracle: Learner to the candidates, truly best first.
        filters: For each real sample, arm to its label filter.
        seed: Random seed of the draws.
    """

    task: LabeledTask
    learners: Learners
    choices: Sequence[Choice]
    oracle: Mapping[Learner, Sequence[str]]
    filters: Sequence[Mapping[Arm, LabelFilter]]
    seed: int

    @classmethod
    def of(
        cls,
        task: LabeledTask,
        learners: Learners,
        judges: LabelJudges,
        choices: Sequence[Choice],
        oracle: Mapping[Learner, Sequence[str]],
        seed: int,
    ) -> MixtureBench:
        """Filter the labels for each real sample, without reading anything that is measured."""
        filters = [_filters(judges, choice) for choice in choices]
        return cls(task, learners, choices, oracle, filters, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return tuple(candidate.name for candidate in self.task.candidates)

    @property
    def n_half(self) -> int:
        """Number of candidates in the better half."""
        return -(-len(self.names) // 2)

    @cached_property
    def total(self) -> int:
        """Number of training examples of every mixture: what all arms have without repeating any.

        That is the size of three candidates of the smallest size, or less if the filter leaves
        less of the better half, or if fewer are recommended.
        """
        labeled = {c.name: labeled_positions(c.labels) for c in self.task.candidates}
        n_all = {c.name: len(c) for c in self.task.candidates}
        sizes = {name: len(rows) for name, rows in labeled.items()}
        left = [
            sum(
                len(np.intersect1d(each["half_filtered"].positions(n, n_all[n]), labeled[n]))
                for n in choice.order[: self.n_half]
            )
            for choice, each in zip(self.choices, self.filters, strict=True)
        ]
        recommended = [sum(sizes[n] for n in choice.recommended) for choice in self.choices]
        return min(min(_TOP, self.n_half) * min(sizes.values()), *left, *recommended)

    def measure(self) -> Iterator[MixtureValues]:
        """Yield the values of each real sample's replicates.

        All arms of a replicate use the same order of a candidate's examples, so they are paired.
        """
        for place, choice in enumerate(self.choices):
            values: MixtureValues = {name: {arm: [] for arm in ARMS} for name in get_args(Learner)}
            for draw in range(_N_DRAWS):
                for learner, by_arm in values.items():
                    row = self._row(place, choice, draw, learner)
                    for arm, value in row.items():
                        by_arm[arm].append(value)
            yield values

    def _row(self, place: int, choice: Choice, draw: int, learner: Learner) -> dict[Arm, float]:
        # every replicate has draws of its own
        seeds = [self.seed, place, draw]
        orders = {c.name: drawing_order(c, seeds) for c in self.task.candidates}
        random = np.random.default_rng([*seeds, 1])

        def value(among: Sequence[str], arm: Arm | None = None) -> float:
            rows = orders if arm is None else self._filtered(orders, place, arm)
            parts = _parts({name: rows[name] for name in among}, self.total)
            return self.learners.measure(learner, parts)

        def at_random(n: int) -> float:
            some = [random.choice(self.names, n, replace=False).tolist() for _ in range(_N_RANDOM)]
            return float(np.mean([value(each) for each in some]))

        best = choice.order[: self.n_half]
        is_open = {arm: each.record.is_open for arm, each in self.filters[place].items()}
        everything, half = value(self.names), value(best)
        return {
            "all": everything,
            "recommended": value(choice.recommended)
            if {*choice.recommended} != {*self.names}
            else everything,
            "top3": value(choice.order[:_TOP]),
            "random3": at_random(_TOP),
            "half": half,
            "random_half": at_random(self.n_half),
            "oracle_half": value(self.oracle[learner][: self.n_half]),
            "all_filtered": value(self.names, "all_filtered")
            if is_open["all_filtered"]
            else everything,
            "half_filtered": value(best, "half_filtered") if is_open["half_filtered"] else half,
            "all_filtered_always": value(self.names, "all_filtered_always"),
        }

    def _filtered(
        self, orders: Mapping[str, NDArray[np.int64]], place: int, arm: Arm
    ) -> dict[str, NDArray[np.int64]]:
        kept = self.filters[place][arm]
        return {n: rows[np.isin(rows, kept.positions(n, len(rows)))] for n, rows in orders.items()}


def _filters(judges: LabelJudges, choice: Choice) -> dict[Arm, LabelFilter]:
    best = choice.order[: -(-len(choice.order) // 2)]
    return {
        "all_filtered": filter_labels(judges, judges.names, "auto", weights=choice.weights),
        "half_filtered": filter_labels(judges, best, "auto", weights=choice.weights),
        "all_filtered_always": filter_labels(judges, judges.names, 0.5, weights=choice.weights),
    }


def _parts(rows: Parts, total: int) -> Parts:
    counts = _equal_parts([len(each) for each in rows.values()], total)
    return {name: each[:n] for (name, each), n in zip(rows.items(), counts, strict=True)}


def _equal_parts(sizes: Sequence[int], total: int) -> list[int]:
    """Divide a total as equally as the sizes allow; what a small one lacks the others give."""
    counts = [0] * len(sizes)
    left = total
    while left and any(count < size for count, size in zip(counts, sizes, strict=True)):
        free = [i for i, size in enumerate(sizes) if counts[i] < size]
        share = max(1, left // len(free))
        for i in free:
            more = min(share, sizes[i] - counts[i], left)
            counts[i] += more
            left -= more
    return counts
