"""What the recipes share: the released data's folder, draws of real samples, labels as classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synque_select.benchmark._layout import Task, find_tasks
from synque_select.errors import ConfigError, DataError
from synque_select.functional.correlation import Correlation, correlate_scores
from synque_select.types import Candidate, Examples, RealSample
from synque_select.views import select

__all__ = [
    "DATA_VARIABLE",
    "Classes",
    "RealDraws",
    "agreement_message",
    "distinct",
    "in_memory",
    "picked",
    "released_task",
]

DATA_VARIABLE = "SYNQUE_BENCHMARK_DATA"


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


class Classes:
    """The labels of the candidates as classes 0..C−1, in sorted order.

    A number and its text are one class: released candidates mix 1 and "1", in one file.

    Args:
        candidates: Each with a `label`.

    Raises:
        ConfigError: A candidate has no `label`.
        DataError: There are fewer than two classes.
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

    def sha256(self, examples: Examples) -> str:
        """Hash the labels in their order, for a task's fingerprint."""
        classes = [self.of(record, examples.label) for record in examples]
        return hashlib.sha256(np.asarray(classes, dtype=np.int64).tobytes()).hexdigest()[:16]


def _labels(examples: Examples) -> list[str]:
    if examples.label is None:
        raise ConfigError(f"{examples.where} has no label: give label=, the field that holds it")
    return [str(select(record, examples.label)) for record in examples]


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
