"""Real data of the recipes: the released data, draws of real samples, the split, classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from synque_select.benchmark.layout import Group, Task, find_tasks
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples, field_alone
from synque_select.data.sources import load_dataset_file
from synque_select.data.views import Selector, select
from synque_select.errors import ConfigError, DataError
from synque_select.experiment import unseen
from synque_select.functional.correlation import Correlation, correlate_scores
from synque_select.utils.wording import counted

__all__ = [
    "DATA_VARIABLE",
    "SPLIT_SEED",
    "Classes",
    "Draws",
    "RealDraws",
    "Split",
    "agreement_message",
    "distinct",
    "in_memory",
    "labeled_file",
    "released_task",
    "removed_message",
    "selected",
    "split_labeled",
    "union",
]

DATA_VARIABLE = "SYNQUE_BENCHMARK_DATA"
# one split of validation and test, whatever the seed of a task is
SPLIT_SEED = 20_251_103
_VALIDATION_SHARE = 1 / 3


def released_task(name: str, path: str | None) -> Task:
    """Read one task of the released SynQuE data.

    Args:
        name: Name of the task's directory.
        path: A clone of the released repository, or its directory `data`; None for the value of
            the environment variable SYNQUE_BENCHMARK_DATA.

    Raises:
        ConfigError: There is neither a path nor a value.
        DataError: The task is missing, or a file cannot be used.
    """
    where = path or os.environ.get(DATA_VARIABLE)
    if not where:
        raise ConfigError(
            f"no path of the released SynQuE data, and {DATA_VARIABLE} is not set: give the "
            "directory `data` of a clone of the released repository, or data of your own"
        )
    return find_tasks(Path(where), [name])[0][0]


def labeled_file(group: Group, view: Selector, label: Selector | None) -> Examples:
    """Return the labeled real data of one group of the released data.

    Raises:
        DataError: The file is missing.
    """
    path = group.labeled
    if path is None or not path.is_file():
        raise DataError(f"{group.name}: no labeled real data; expected the file {path}")
    return Examples("labeled", load_dataset_file(path), view, label, str(path))


def selected(examples: Examples, positions: Iterable[int]) -> list[Any]:
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


def union(samples: Sequence[RealSample]) -> RealSample:
    """Return the distinct examples of several real samples.

    Example:
        >>> list(union([RealSample("a", ["x", "y"]), RealSample("b", ["y", "z"])]))
        ['x', 'y', 'z']
    """
    view = samples[0].selector
    records = [record for sample in samples for record in sample]
    positions = distinct(Examples("pool", records, view))
    return RealSample("pool", [records[i] for i in positions], view)


def in_memory(candidate: Candidate) -> Candidate:
    """Return the candidate with its records in a list: a small one is read many times."""
    records = list(candidate)
    return Candidate(candidate.name, records, candidate.selector, candidate.label, candidate.source)


class Draws(Protocol):
    """The real samples of an experiment's replicates."""

    @property
    def pool(self) -> RealSample:
        """Every example that a replicate may draw; none of it is in validation or test."""
        ...

    def draw(self, replicate: int) -> RealSample:
        """Return the real sample of a replicate, the same one each time."""
        ...


@dataclass(frozen=True)
class RealDraws:
    """Random draws from a pool, after the samples that are given.

    Args:
        pool: Every example that a replicate may draw; none of it is in validation or test.
        n: Number of examples in a draw.
        given: Samples of the first replicates, as released.
        seed: Random seed of the draws.

    Raises:
        ConfigError: `n` is not from 2 to the size of the pool.
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
        """Return the given sample of that number if there is one, else n of the pool at random.

        Example:
            >>> draws = RealDraws(RealSample("pool", list("abcdef")), n=4)
            >>> list(draws.draw(1).views) == list(draws.draw(1).views)
            True
        """
        if replicate < len(self.given):
            return self.given[replicate]
        order = np.random.default_rng([self.seed, replicate]).permutation(len(self.pool))
        records = selected(self.pool, sorted(order[: self.n]))
        return RealSample(f"real, draw {replicate + 1}", records, self.pool.selector)


class Split(NamedTuple):
    """Distinct labeled real examples that no real sample can hold.

    Args:
        validation: Positions for validation.
        test: Positions for test.
        messages: What was removed, if anything was.
    """

    validation: list[int]
    test: list[int]
    messages: tuple[str, ...]


def split_labeled(
    labeled: Examples, *samples: Examples, n_validation: int | None = None, hint: str = ""
) -> Split:
    """Split labeled real data, without what a real sample can hold, for validation and test.

    Args:
        labeled: All labeled real examples.
        samples: Everything that real samples are drawn from.
        n_validation: Number of examples for validation; None for a third of those that remain.
        hint: What else may help, for the message if too few remain.

    Raises:
        DataError: Fewer than two would remain for validation or test.

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
            f"{labeled.where}: {len(order)} of its {counted(len(labeled), 'example')} are "
            f"distinct and in no real sample; 6 are needed, for validation and test{hint}"
        )
    removed = removed_message(len(labeled), len(labeled) - len(free), len(free) - len(kept))
    return Split(order[:n], order[n:], removed)


def removed_message(
    n_labeled: int, n_seen: int, n_repeated: int, *, what: str = "examples"
) -> tuple[str, ...]:
    """Say how much of the labeled real data is in neither validation nor test."""
    parts = {
        f"{n_seen} of the {n_labeled:,} labeled {what} are also among those that real samples "
        "are drawn from": n_seen,
        f"{n_repeated} of the {n_labeled:,} labeled {what} are duplicates": n_repeated,
    }
    reasons = [part for part, n in parts.items() if n]
    return (f"{', and '.join(reasons)}: removed from validation and test",) if reasons else ()


class Classes:
    """The labels of the candidates as classes 0..C−1, in sorted order.

    A number and its text are one class: some released candidates have both 1 and "1".

    Args:
        candidates: Candidates with a `label`.

    Raises:
        ConfigError: A candidate has no `label`.
        DataError: There are fewer than two classes, or an example has no label.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        labels = {label for candidate in candidates for label in _labels(candidate)}
        if len(labels) < 2:
            raise DataError(f"number of classes in the candidates: {len(labels)}; 2 are needed")
        self._position = {label: i for i, label in enumerate(sorted(labels))}

    def __len__(self) -> int:
        return len(self._position)

    def of(self, record: object, label: Selector) -> int:
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
        """Refuse examples without a label, or with a label that no candidate has.

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
        raise ConfigError(f"{examples.where} has no label: give label=, the field with the label")
    alone = field_alone(examples.dataset, examples.label)  # images need not be decoded for labels
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
    """Say how the test figures of the candidates alone agree with the released ones.

    Args:
        test: Candidate to its mean test figure.
        released: Candidate to the released performance, higher is better.
        what: Name of the released figure.
        mode: "max" if a larger test figure is better, else "min".
    """
    names = [name for name in test if name in released]
    correlation = correlate_scores(
        [test[name] for name in names],
        [released[name] for name in names],
        higher_is_better=mode == "max",
        mode="max",
    )
    return f"our figures of the candidates alone against {what}: {_spearman(correlation)}"


def _spearman(correlation: Correlation) -> str:
    value = correlation.spearman
    if np.isnan(value.value):
        return correlation.message or f"no coefficient over {counted(correlation.n, 'candidate')}"
    interval = ""
    if value.low is not None and value.high is not None and not np.isnan(value.low):
        interval = f" [{value.low:+.2f}, {value.high:+.2f}]"
    return (
        f"Spearman {value.value:+.2f}{interval}, p {value.p:.3g}, n "
        f"{counted(correlation.n, 'candidate')}: {correlation.verdict}"
    )
