"""How often each candidate is drawn: whole numbers near the shares, in blocks of 1,000 draws."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "ROUNDING", "BlockCounts", "Counts", "EpochCounts", "Floats", "Ints", "kept"]

BLOCK = 1_000
# 3 · (1/3) may come out just below 1, and floor would then lose a draw
ROUNDING = 1e-9
_KEPT_BLOCKS = 8

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")


class Counts(Protocol):
    """Says how often each candidate is drawn, by blocks of 1,000 draws."""

    def cuts(self, block: int) -> dict[int, Ints]:
        """Return the counts (K,) at the start of a block, inside it, and at its end, by draw.

        The order of draws is random only between two cuts.
        """


class BlockCounts:
    """Counts of weights that do not change: ⌊1000·w_a⌋ or ⌈1000·w_a⌉ in each block.

    The remainder is carried over, so that totals stay within 2 of g·w_a at the end of each block.

    Args:
        weights: (K,) weights that sum to 1.

    Example:
        >>> BlockCounts(np.array([0.7505, 0.2495])).cuts(1)[2000].tolist()
        [1501, 499]
    """

    def __init__(self, weights: Floats) -> None:
        self.weights = weights
        self._totals: list[Ints] = [np.zeros(len(weights), dtype=np.int64)]

    def cuts(self, block: int) -> dict[int, Ints]:
        """Return the counts at the start and at the end of a block."""
        return {block * BLOCK: self.total(block), (block + 1) * BLOCK: self.total(block + 1)}

    def total(self, block: int) -> Ints:
        """Return how often each candidate is drawn before a block, (K,)."""
        per_block = BLOCK * self.weights
        while len(self._totals) <= block:
            end = len(self._totals) * BLOCK
            low, high = (self._totals[-1] + part for part in (_floor(per_block), _ceil(per_block)))
            self._totals.append(_apportion(end * self.weights, low, high, end, high))
        return self._totals[block]


class EpochCounts(BlockCounts):
    """Counts that are exact at the end of each epoch, too.

    Args:
        weights: (K,) weights that sum to 1.
        epoch_length: Draws per epoch.
    """

    def __init__(self, weights: Floats, epoch_length: int) -> None:
        super().__init__(weights)
        self._epoch_length = epoch_length
        self._cuts: OrderedDict[int, dict[int, Ints]] = OrderedDict()

    def cuts(self, block: int) -> dict[int, Ints]:
        """Return the counts at the start of a block, at epoch ends inside it, and at its end."""
        return kept(self._cuts, block, self._make_cuts)

    def at(self, draw: int) -> Ints:
        """Return how often each candidate is drawn before the end of a block or epoch at `draw`."""
        return self.cuts(draw // BLOCK)[draw]

    def _make_cuts(self, block: int) -> dict[int, Ints]:
        begin, end = block * BLOCK, (block + 1) * BLOCK
        first = (begin // self._epoch_length + 1) * self._epoch_length
        counts, after = self.total(block), self.total(block + 1)
        cuts = {begin: counts}
        for cut in range(first, end, self._epoch_length):
            ideal = cut * self.weights
            counts = _apportion(ideal, counts, np.minimum(after, _ceil(ideal)), cut, after)
            cuts[cut] = counts
        return {**cuts, end: after}


def kept(
    cache: OrderedDict[_Key, _Made],
    key: _Key,
    make: Callable[[_Key], _Made],
    *,
    most: int = _KEPT_BLOCKS,
) -> _Made:
    """Return the cached value of a key, or make it and drop the oldest one."""
    if key not in cache:
        cache[key] = make(key)
        if len(cache) > most:
            cache.popitem(last=False)
    return cache[key]


def _floor(values: Floats) -> Ints:
    return np.floor(values + ROUNDING).astype(np.int64)


def _ceil(values: Floats) -> Ints:
    return np.ceil(values - ROUNDING).astype(np.int64)


def _apportion(ideal: Floats, low: Ints, high: Ints, total: int, relaxed: Ints) -> Ints:
    """Return integers from low to high that sum to total and are nearest to the ideal shares.

    If the sum of `high` is below the total, `relaxed` is the upper limit.
    """
    if high.sum() < total:
        high = relaxed
    counts = np.clip(_floor(ideal), low, high)
    # largest remainder, one draw at a time: a count that has reached its limit passes on its turn
    while gap := total - int(counts.sum()):
        step = 1 if gap > 0 else -1
        room = counts < high if gap > 0 else counts > low
        counts[np.argmax(np.where(room, step * (ideal - counts), -np.inf))] += step
    return counts
