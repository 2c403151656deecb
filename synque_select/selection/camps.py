"""Two camps of candidates whose labels contradict each other systematically."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synque_select.data.preview import shown_view
from synque_select.data.views import View
from synque_select.functional.camps import (
    Contradiction,
    class_readings,
    judges_of,
    renamed_class,
    split_by_agreement,
    systematic_contradictions,
)
from synque_select.functional.label_consistency import Predictions
from synque_select.types import ContestedExample
from synque_select.utils.wording import listed, percent, printable

__all__ = ["Camps", "find_camps"]

# a camp of one is an outlier, which the label checks name; two pairs are the least that can differ
_MIN_CANDIDATES = 4
_N_EXAMPLES = 20
# of all pairs of candidates and of classes: 512 MiB; with more classes, the frequent ones
_MOST_READINGS = 2**26
# of these, the ones whose text is shown, and how much of it
_N_SHOWN = 3
_MOST_CHARS = 80
_ASK = (
    "A few labels of real examples can say which one is right: `synque-select ask --candidates … "
    "--real … --label …` chooses the examples, and `rank --answers` takes the labels."
)


@dataclass(frozen=True)
class Camps:
    """Two groups of candidates that read at least one class differently.

    Args:
        names: The candidates of each camp.
        classes: The classes.
        contradictions: What one camp reads as something else; at least one.
        examples: Positions of examples of the largest contradiction: name of the candidate, and
            position in it. Most of the other camp's classifiers contradict their labels.
    """

    names: tuple[tuple[str, ...], tuple[str, ...]]
    classes: tuple[str, ...]
    contradictions: tuple[Contradiction, ...]
    examples: tuple[tuple[str, int], ...]

    @property
    def sentence(self) -> str:
        """Say who contradicts whom, and about which class, without a full stop."""
        largest = self.contradictions[0]
        readers, others = self.names[largest.readers], self.names[1 - largest.readers]
        label, read_as = self.classes[largest.label], self.classes[largest.read_as]
        if largest.is_renamed:
            return (
                "the candidates form two camps whose labels contradict each other: "
                f"{listed(others)} give {read_as!r} the name {label!r} (classifiers trained on "
                f"{listed(readers)} call {percent(largest.share)} of it {read_as!r})"
            )
        return (
            "the candidates form two camps whose labels contradict each other: what "
            f"{listed(others)} call {label!r}, classifiers trained on {listed(readers)} call "
            f"{read_as!r} ({percent(largest.share)} of the examples)"
        )

    def at(self, rows: Mapping[str, NDArray[np.int64]]) -> Camps:
        """Return the camps of candidates of which those judged were a part.

        Args:
            rows: Candidate name to the positions of its judged examples.
        """
        return replace(self, examples=tuple((n, int(rows[n][i])) for n, i in self.examples))

    def contested(self, views: Mapping[str, Sequence[View]]) -> tuple[ContestedExample, ...]:
        """Return the examples as a page and a file show them.

        Args:
            views: Candidate name to what is shown of its examples.
        """
        largest = self.contradictions[0]
        label, read_as = self.classes[largest.label], self.classes[largest.read_as]
        return tuple(
            ContestedExample(name, position, shown_view(views[name][position]), label, read_as)
            for name, position in self.examples
        )

    def messages(self, views: Mapping[str, Sequence[View]]) -> tuple[str, str]:
        """Say who contradicts whom, and how to find out which camp is right.

        Args:
            views: Candidate name to what is shown of its examples, of which the beginnings of a few
                texts are named; images are numbered only.
        """
        return f"{self.sentence}.", self._advice(views)

    def _advice(self, views: Mapping[str, Sequence[View]]) -> str:
        advice = f"The larger camp need not be right. {_ASK}"
        if not self.examples:
            return advice
        name, largest = self.examples[0][0], self.contradictions[0]
        numbers = [position for _, position in self.examples]
        label, read_as = self.classes[largest.label], self.classes[largest.read_as]
        shown = [
            f"{i}: {_beginning(text)!r}"
            for i in numbers[:_N_SHOWN]
            if isinstance(text := views[name][i], str)
        ]
        rest = [str(i) for i in numbers[len(shown) :]]
        more = "and " if shown and rest else ""
        return (
            f"{advice} Or read examples of {name}, counted from 0, that it labels {label!r} and "
            f"the classifiers of the other camp call {read_as!r}: "
            f"{'; '.join([*shown, *([more + ', '.join(rest)] if rest else [])])}. "
            f"All {len(numbers)} are in labels.json (--json), with both readings."
        )


def _beginning(text: str) -> str:
    words = printable(" ".join(text.split()))
    return words if len(words) <= _MOST_CHARS else f"{words[: _MOST_CHARS - 3]}..."


def find_camps(
    predictions: Predictions,
    labels: Sequence[NDArray[np.int64]],
    *,
    names: Sequence[str],
    classes: Sequence[str],
    contents: Sequence[object] | None = None,
) -> Camps | None:
    """Find two camps of candidates whose labels contradict each other.

    The candidates are split by whom they agree with. The two parts are camps if the classifiers of
    one give most examples of a class of the other to one other class, while the other's own
    classifiers, each without the candidate it was trained on, predict the label. So a class that is
    hard for everybody, noise in all labels, or a single bad candidate makes no camps. Two
    candidates among many may be too few to be found, and a class that a camp reads differently in
    a part of its examples only is not found either.

    Args:
        predictions: What the heads of the candidates, or of some of them, predict for each other's
            examples.
        labels: K arrays (N_k,) int64, the class of each example.
        names: The K names.
        classes: The C classes.
        contents: What is equal for candidates with the same inputs; None if no two have them. A
            head knows the examples that it was trained on, so that such candidates do not judge
            each other.

    Returns:
        The camps; None if there are none, or fewer than 4 candidates that judge.
    """
    judges = judges_of(predictions)
    if len(judges) < _MIN_CANDIDATES:
        return None
    counts = np.stack([np.bincount(y, minlength=len(classes)) for y in labels])
    looked_at = _most_frequent(counts, len(judges))
    readings = class_readings(predictions, labels, looked_at)
    if contents is not None:
        known: dict[object, int] = {}
        numbers = np.array([known.setdefault(one, len(known)) for one in contents])
        readings[numbers[judges][:, None] == numbers] = np.nan
    if not np.isfinite(readings).any():  # no candidate judges another
        return None
    camp = split_by_agreement(readings, judges)
    contradictions = systematic_contradictions(readings, camp, judges)
    if not contradictions:
        renamed = renamed_class(readings, counts[:, looked_at], judges)
        if renamed is None:
            return None
        camp, contradictions = renamed[0], [renamed[1]]
    contradictions = [
        replace(one, label=int(looked_at[one.label]), read_as=int(looked_at[one.read_as]))
        for one in contradictions
    ]
    first, second = (tuple(n for n, c in zip(names, camp, strict=True) if c == s) for s in (0, 1))
    examples = _examples(predictions, labels, camp, contradictions[0])
    return Camps(
        (first, second),
        tuple(classes),
        tuple(contradictions),
        tuple((names[k], position) for k, position in examples),
    )


def _most_frequent(counts: NDArray[np.int64], n_judges: int) -> NDArray[np.int64]:
    """Return the classes to compare, ascending: all, or as many as memory allows for K candidates.

    Args:
        counts: (K, C) number of examples of each class in each candidate.
        n_judges: Number of candidates that judge.
    """
    n_candidates, n_classes = counts.shape
    most = max(2, math.isqrt(_MOST_READINGS // (n_judges * n_candidates)))
    if n_classes <= most:
        return np.arange(n_classes)
    return np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:most])


def _examples(
    predictions: Predictions,
    labels: Sequence[NDArray[np.int64]],
    camp: NDArray[np.bool_],
    largest: Contradiction,
) -> list[tuple[int, int]]:
    """Return examples on which the readers are most of one mind, up to 20 of one candidate."""
    heads = np.flatnonzero(camp[predictions.owners] == bool(largest.readers))
    best: list[tuple[int, int]] = []
    for k in np.flatnonzero(camp != bool(largest.readers)).tolist():
        rows = np.flatnonzero(labels[k] == largest.label)
        share = (predictions.classes[k][np.ix_(heads, rows)] == largest.read_as).mean(axis=0)
        order = np.argsort(-share, kind="stable")[:_N_EXAMPLES]
        examples = [(k, int(rows[i])) for i in order if share[i] > 0.5]
        best = max(best, examples, key=len)
    return best
