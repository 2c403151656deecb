"""All examples of a candidate of which only some, drawn at random, are read by most proxies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synque_select.functional.ngram import N_BUCKETS, NGramLevel, counts_by_hash
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

__all__ = [
    "LEAST_DRAWN",
    "LabelCounts",
    "Population",
    "Reservoir",
    "ReservoirOptions",
    "TextCounts",
]

LEAST_DRAWN = 100
# labels that are free texts, such as queries, are not classes, and would fill the memory
_MOST_LABELS = 10_000
_LEVEL: NGramLevel = "word"
_MAX_ORDER = 2


class ReservoirOptions(NamedTuple):
    """How many examples of a candidate are drawn.

    Args:
        size: Number of examples; a candidate with fewer is used whole.
        seed: Random seed, not negative.
    """

    size: int
    seed: int = 0

    @classmethod
    def of(cls, size: int | None, seed: int = 0) -> ReservoirOptions | None:
        """Return checked options; None without a size.

        Raises:
            ConfigError: The size is below 100, or the seed is negative.
        """
        if size is None:
            return None
        return cls(check_int("reservoir", size, LEAST_DRAWN), check_int("seed", seed, 0))


@dataclass(frozen=True, eq=False)
class Population:
    """What one pass over all examples of a candidate has found.

    Args:
        n: N, the number of examples.
        sha256: SHA-256 of all views in their order, in hexadecimal; that of a candidate which is
            read whole.
        positions: Positions of the drawn examples, ascending, int64.
        seed: Random seed of the draw.
        ngrams: Counts of the hashed words and pairs of words under each hash function, as
            `counts_by_hash` returns them for its defaults; () for images.
        labels: Label to number of examples; None without labels, or if more than 10,000 differ.

    Example:
        >>> all_of_it = Population(5000, "0" * 64, np.arange(100))
        >>> all_of_it.note
        '100 of 5,000 examples, drawn at random (seed 0), are scored'
    """

    n: int
    sha256: str
    positions: NDArray[np.int64]
    seed: int = 0
    ngrams: tuple[NDArray[np.int64], ...] = ()
    labels: Mapping[str, int] | None = None

    @property
    def note(self) -> str:
        """A sentence without its subject, the candidate, on which examples are scored."""
        exact = "; n-grams are those of all" if self.ngrams else ""
        return (
            f"{len(self.positions):,} of {counted(self.n, 'example')}, drawn at random (seed "
            f"{self.seed}), are scored{exact}"
        )

    def has_ngrams(self, *, level: NGramLevel, max_order: int, n_buckets: int) -> bool:
        """Whether these n-grams were counted over all examples; see `hash_ngrams`."""
        return bool(self.ngrams) and (level, max_order, n_buckets) == (
            _LEVEL,
            _MAX_ORDER,
            N_BUCKETS,
        )


class Reservoir:
    """Draws examples from a stream whose length is not known, each with the same probability.

    After n examples, every set of `size` of them is equally likely (without replacement). The draw
    depends on the seed, the name and the number of examples alone.

    Args:
        options: Number of examples, and random seed.
        name: Name of the candidate: draws from two candidates are independent.

    Attributes:
        n: Number of examples so far.
        positions: Positions of the drawn ones, by slot.

    Source:
        Li 1994, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", algorithm L.

    Example:
        >>> reservoir = Reservoir(ReservoirOptions(3), "a")
        >>> [reservoir.place() for _ in range(4)][:3]
        [0, 1, 2]
        >>> reservoir.skip_to(1000)
        >>> len(reservoir.positions), reservoir.n
        (3, 1000)
    """

    def __init__(self, options: ReservoirOptions, name: str) -> None:
        self.n = 0
        self.positions: list[int] = []
        self._size = options.size
        self._rng = np.random.default_rng([options.seed, *name.encode()])
        self._log_w = 0.0  # the logarithm of the largest key in the reservoir
        self._next = 0  # the next position that is taken

    def place(self) -> int | None:
        """Count an example; return the slot that it takes, or None if it is not drawn."""
        position = self.n
        self.n += 1
        if position < self._next:
            return None
        if position < self._size:
            slot = position
            self.positions.append(position)
        else:
            slot = int(self._rng.integers(self._size))
            self.positions[slot] = position
        self._next = position + 1 if position + 1 < self._size else self._jump(position)
        return slot

    def skip_to(self, n: int) -> None:
        """Count examples up to the n-th at once."""
        while self._next < n:
            self.n = self._next
            self.place()
        self.n = max(self.n, n)

    def _jump(self, position: int) -> int:
        # 1 − u is in (0, 1], so that its logarithm is finite
        self._log_w += math.log(1 - self._rng.random()) / self._size
        w = math.exp(self._log_w)
        passed = math.log(1 - self._rng.random()) / math.log1p(-w) if w < 1 else 0.0
        return position + 1 + math.floor(passed)


class TextCounts:
    """Counts the n-grams of texts that come one by one, in bounded memory."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._n_characters = 0
        self._totals = [counts.numpy() for counts in counts_by_hash([])]

    def add(self, text: str) -> None:
        """Count a text."""
        self._waiting.append(text)
        self._n_characters += len(text)
        if len(self._waiting) == 4096 or self._n_characters > 1 << 20:
            self._flush()

    def totals(self) -> tuple[NDArray[np.int64], ...]:
        """Return the counts of all texts so far, under each hash function."""
        self._flush()
        return tuple(self._totals)

    def _flush(self) -> None:
        counted = counts_by_hash(self._waiting, level=_LEVEL, max_order=_MAX_ORDER)
        for total, counts in zip(self._totals, counted, strict=True):
            total += counts.numpy()
        self._waiting.clear()
        self._n_characters = 0


class LabelCounts:
    """Counts labels, unless too many differ.

    Example:
        >>> counts = LabelCounts()
        >>> for label in ("pos", "neg", "pos"):
        ...     counts.add(label)
        >>> counts.total()
        {'pos': 2, 'neg': 1}
    """

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()

    def add(self, label: str) -> None:
        """Count a label."""
        if self._counts is not None:
            self._counts[label] += 1
            if len(self._counts) > _MOST_LABELS:
                self._counts = None

    def total(self) -> dict[str, int] | None:
        """Return the number of examples by label; None if more than 10,000 labels differ."""
        return None if self._counts is None else dict(self._counts)
