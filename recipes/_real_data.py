"""What the recipes share: the released folder, draws of real samples, the split, classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from synque_select.benchmark.layout import Task, find_tasks
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples, field_alone
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError
from synque_select.experiment import unseen
from synque_select.functional.correlation import Correlation, correlate_scores

__all__ = [
    "DATA_VARIABLE",
    "SPLIT_SEED",
    "Classes",
    "RealDraws",
    "Split",
    "agreement_message",
    "distinct",
    "in_memory",
    "picked",
    "released_task",
    "split_labeled",
    "taken_out_message",
]

DATA_VARIABLE = "SYNQUE_BENCHMARK_DATA"
SPLIT_SEED = 20_251_103  # validation and test are those of one split, whatever else is drawn
_VALIDATION_SHARE = 1 / 3


def released_task(name: str, data: str | None) -> Task:
    """Read one task of the released SynQuE data.

    Args:
        name: Its folder's name.
        data: A clone of the released repository, or its folder `data`; None for what the
            environment variable SYNQUE_BENCHMARK_DATA names.

    Raises:
        ConfigError: Neither is given.
        DataError: The task is not there, or a file cannot be used.
    """
    folder = data or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise ConfigError(
            f"data is not given and {DATA_VARIABLE} is not set: name the folder `data` of a clone "
            "of the released SynQuE repository, or give files of your own"
        )
    return find_tasks(Path(folder), [name])[0][0]


def picked(examples: Examples, positions: Iterable[int]) -> list[Any]:
    """Return the records at these positions."""
    return [examples[int(i)] for i in positions]


def distinct(examples: Examples) -> list[int]:
    """Return the position of the first example of each content.

    Example:
        >>> distinct(Examples("a", ["x", "y", "x"]))
        [0, 1]
    """
    first: dict[bytes, int] = {}
    for i, row in enumerate(examples.digests):
        first.setdefault(row.tobytes(), i)
    return list(first.values())


def in_memory(candidate: Candidate) -> Candidate:
    """Return the candidate with its records in a list: a small one is read many times."""
    records = list(candidate)
    return Candidate(candidate.name, records, candidate.selector, candidate.label, candidate.source)


@dataclass(frozen=True)
class RealDraws:
    """The real samples of an experiment's replicates.

    Args:
        pool: Everything that a replicate may draw; nothing of it is in validation or test.
        n: Examples a draw.
        given: Samples of the first replicates, as somebody drew them.
        seed: Of the draws.
    """

    pool: RealSample
    n: int
    given: Sequence[RealSample] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.n <= len(self.pool):
            raise ConfigError(
                f"n_real={self.n}: allowed is 2 to {len(self.pool)}, the size of the pool"
            )

    def draw(self, replicate: int) -> RealSample:
        """Return a given sample while there are any, then n of the pool at random.

        Example:
            >>> draws = RealDraws(RealSample("pool", list("abcdef")), n=4)
            >>> list(draws.draw(1).views) == list(draws.draw(1).views)
            True
        """
        if replicate < len(self.given):
            return self.given[replicate]
        order = np.random.default_rng([self.seed, replicate]).permutation(len(self.pool))
        records = picked(self.pool, sorted(order[: self.n]))
        return RealSample(f"real, draw {replicate + 1}", records, self.pool.selector)


class Split(NamedTuple):
    """Labeled real examples, once each, that no real sample can hold.

    Args:
        validation: Positions.
        test: Positions of the others.
        messages: What was taken out, if anything was.
    """

    validation: list[int]
    test: list[int]
    messages: tuple[str, ...]


def split_labeled(
    labeled: Examples, *samples: Examples, n_validation: int | None = None, hint: str = ""
) -> Split:
    """Split labeled real data, without what a real sample can hold, for validation and test.

    Args:
        labeled: All of it.
        samples: Whatever real samples are drawn from.
        n_validation: None for a third of what is left.
        hint: Of the way out, for the message where too few are left.

    Raises:
        DataError: Fewer than two would be for validation or test.

    Example:
        >>> labeled = Examples("labeled", list("abcdefgh"))
        >>> split = split_labeled(labeled, RealSample("real", ["a", "x"]))
        >>> len(split.validation), len(split.test)
        (2, 5)
        >>> split.messages[0][:42]
        '1 of the 8 labeled examples are also among'
    """
    free = {*unseen(labeled, *samples)}
    kept = [i for i in distinct(labeled) if i in free]
    order = np.random.default_rng(SPLIT_SEED).permutation(kept).tolist()
    n = round(len(order) * _VALIDATION_SHARE) if n_validation is None else n_validation
    if min(n, len(order) - n) < 2:
        raise DataError(
            f"{labeled.where}: {len(order)} of its {len(labeled)} examples are distinct and in "
            f"no real sample; 6 are needed, for validation and test{hint}"
        )
    said = taken_out_message(len(labeled), len(labeled) - len(free), len(free) - len(kept))
    return Split(order[:n], order[n:], said)


def taken_out_message(
    n_labeled: int, n_seen: int, n_repeated: int, *, what: str = "examples"
) -> tuple[str, ...]:
    """Say how much of the labeled real data is in neither validation nor test."""
    parts = [
        f"{n_seen} of the {n_labeled:,} labeled {what} are also among those that real samples "
        "are drawn from",
        f"{n_repeated} of the {n_labeled:,} labeled {what} repeat another",
    ]
    given = [part for part, n in zip(parts, (n_seen, n_repeated), strict=True) if n]
    return (f"{', and '.join(given)}: left out of validation and test",) if given else ()


class Classes:
    """The labels of the candidates as classes 0..C−1, in sorted order.

    A number and its text are one class: released candidates mix 1 and "1", in one file.

    Args:
        candidates: Each with a `label`.

    Raises:
        ConfigError: A candidate has no `label`.
        DataError: There are fewer than two classes, or an example has no label.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        found = {label for candidate in candidates for label in _labels(candidate)}
        if len(found) < 2:
            raise DataError(f"the candidates have {len(found)} class; 2 or more are needed")
        self._position = {label: i for i, label in enumerate(sorted(found))}

    def __len__(self) -> int:
        return len(self._position)

    def of(self, record: Any, label: Any) -> int:
        """Return the class of a record.

        Raises:
            DataError: No candidate has that label.
        """
        value = str(select(record, label))
        if value not in self._position:
            known = ", ".join(map(repr, self._position))
            raise DataError(f"label {value!r}: the candidates have {known}")
        return self._position[value]

    def check(self, examples: Examples) -> None:
        """Refuse examples of which one has no label, or one that no candidate has.

        Raises:
            DataError: The message names the example.
        """
        for i, label in enumerate(_labels(examples)):
            if label not in self._position:
                known = ", ".join(map(repr, self._position))
                raise DataError(f"{_place(examples, i)}={label!r}; the candidates have {known}")

    def sha256(self, examples: Examples) -> str:
        """Hash the labels in their order, for a task's fingerprint."""
        classes = [self._position[label] for label in _labels(examples)]
        return hashlib.sha256(np.asarray(classes, dtype=np.int64).tobytes()).hexdigest()[:16]


def _labels(examples: Examples) -> list[str]:
    if examples.label is None:
        raise ConfigError(f"{examples.where} has no label: give label=, the field that holds it")
    alone = field_alone(examples.dataset, examples.label)  # no image is opened for its label
    labels = []
    for i, record in enumerate(examples if alone is None else alone):
        value = select(record, examples.label)
        if value is None or value != value or not str(value).strip():
            raise DataError(f"{_place(examples, i)}={value!r}; expected a class")
        labels.append(str(value))
    return labels


def _place(examples: Examples, i: int) -> str:
    return f"{examples.where}, example {i} (counted from 0): {examples.label}"


def agreement_message(
    test: Mapping[str, float],
    released: Mapping[str, float],
    what: str,
    *,
    mode: Literal["max", "min"] = "max",
) -> str:
    """Say how our figures of the single candidates agree with the released ones.

    Args:
        test: Candidate to our mean test figure.
        released: Candidate to the released performance, higher is better.
        what: What the released figure is, in words.
        mode: Whether a larger ("max") or a smaller ("min") figure of ours is better.
    """
    names = [name for name in test if name in released]
    found = correlate_scores(
        [test[name] for name in names],
        [released[name] for name in names],
        higher_is_better=mode == "max",
        mode="max",
    )
    return f"our figures of the single candidates against {what}: {_spearman(found)}"


def _spearman(found: Correlation) -> str:
    value = found.spearman
    if np.isnan(value.value):
        return found.message or f"no coefficient over {found.n} candidates"
    interval = ""
    if value.low is not None and value.high is not None and not np.isnan(value.low):
        interval = f" [{value.low:+.2f}, {value.high:+.2f}]"
    return (
        f"Spearman {value.value:+.2f}{interval}, p {value.p:.3g}, n {found.n} candidates: "
        f"{found.verdict}"
    )
