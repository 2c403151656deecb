"""Which example of which candidate each draw of a mixture is: arithmetic, without any data."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from synque_select.types import Mixture

__all__ = ["MixtureSchedule", "longest_epoch"]

BLOCK = 1_000
_KEPT_BLOCKS = 8
_FUZZ = 1e-9  # 3 · (1/3) counts as whole

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def longest_epoch(sizes: Mapping[str, int], mixture: Mixture) -> int:
    """Return the most draws that repeat no example: ⌊min_a N_a / w_a⌋.

    Args:
        sizes: Candidate name to its number of examples N_a.
        mixture: The weights w_a.

    Example:
        >>> longest_epoch({"a": 300, "b": 100}, Mixture({"a": 0.5, "b": 0.5}))
        200
    """
    ratio = min(sizes[name] / weight for name, weight in mixture.weights.items())
    return math.floor(ratio * (1 + _FUZZ))


class MixtureSchedule:
    """Which example of which candidate each draw is; pure and stateless, caches aside.

    - In every block of 1,000 draws (0 to 999, 1,000 to 1,999, …) candidate a is drawn ⌊1000·w_a⌋ or
      ⌈1000·w_a⌉ times; the deficit is carried on, so totals stay within 2 of g·w_a for every g at
      a block's end. The order inside a block is a permutation seeded by (seed, block).
    - The c-th draw of candidate a takes its examples in a random order that is new for each pass
      over them: none comes again before all have been drawn, and none twice in one epoch unless the
      epoch draws more from a than it has.

    Args:
        sizes: Number of examples of each candidate, (K,).
        mixture: Names and weights, in the order of `sizes`.
        seed: Not negative.
        epoch_length: Draws in an epoch; counts are also exact at its end.

    Example:
        >>> schedule = MixtureSchedule([3, 1], Mixture({"a": 0.75, "b": 0.25}), 0, 4)
        >>> sorted(schedule.locate(draw) for draw in range(4))
        [(0, 0), (0, 1), (0, 2), (1, 0)]
    """

    def __init__(
        self, sizes: Sequence[int], mixture: Mixture, seed: int, epoch_length: int
    ) -> None:
        weights = np.array(list(mixture.weights.values()), dtype=np.float64)
        self.weights: _Floats = weights / weights.sum()
        self.sizes = [int(size) for size in sizes]
        self.seed = seed
        self.epoch_length = epoch_length
        # an order depends on the candidate's name, not on which others stand beside it
        self._keys = [zlib.crc32(name.encode()) for name in mixture.names]
        self._totals: list[_Ints] = [np.zeros(len(self.sizes), dtype=np.int64)]
        self._blocks: OrderedDict[int, tuple[list[int], list[int]]] = OrderedDict()
        self._block_cuts: OrderedDict[int, dict[int, _Ints]] = OrderedDict()
        self._orders: list[dict[int, NDArray[np.int32]]] = [{} for _ in self.sizes]

    def locate(self, draw: int) -> tuple[int, int]:
        """Return the candidate's position in the mixture and the example's in the candidate."""
        which, nth = self._block(draw // BLOCK)
        candidate = which[draw % BLOCK]
        passed, place = divmod(nth[draw % BLOCK], self.sizes[candidate])
        return candidate, int(self._order(candidate, passed)[place])

    def counts(self, draw: int) -> _Ints:
        """Return how often each candidate is drawn before `draw`, a block's or an epoch's end."""
        return self._cuts(draw // BLOCK)[draw]

    def _block(self, block: int) -> tuple[list[int], list[int]]:
        """Return for each draw of a block its candidate and its number among that one's draws."""
        return _kept(self._blocks, block, self._make_block)

    def _make_block(self, block: int) -> tuple[list[int], list[int]]:
        counts = list(self._cuts(block).values())
        rng = np.random.default_rng([self.seed, block])
        parts = [
            rng.permutation(np.repeat(np.arange(len(self.sizes)), after - before))
            for before, after in itertools.pairwise(counts)
        ]
        which = np.concatenate(parts)
        nth = np.empty_like(which)
        nth[np.argsort(which, kind="stable")] = np.concatenate(
            [np.arange(first, last) for first, last in zip(counts[0], counts[-1], strict=True)]
        )
        return which.tolist(), nth.tolist()

    def _cuts(self, block: int) -> dict[int, _Ints]:
        """Return the counts before a block's begin, the epochs' ends inside it, and its end."""
        return _kept(self._block_cuts, block, self._make_cuts)

    def _make_cuts(self, block: int) -> dict[int, _Ints]:
        begin, end = block * BLOCK, (block + 1) * BLOCK
        first = (begin // self.epoch_length + 1) * self.epoch_length
        counts, after = self._total(block), self._total(block + 1)
        cuts = {begin: counts}
        for cut in range(first, end, self.epoch_length):
            ideal = cut * self.weights
            counts = _apportion(ideal, counts, np.minimum(after, _ceil(ideal)), cut, after)
            cuts[cut] = counts
        return {**cuts, end: after}

    def _total(self, block: int) -> _Ints:
        """Return how often each candidate is drawn before a block."""
        per_block = BLOCK * self.weights
        while len(self._totals) <= block:
            end = len(self._totals) * BLOCK
            low, high = (self._totals[-1] + part for part in (_floor(per_block), _ceil(per_block)))
            self._totals.append(_apportion(end * self.weights, low, high, end, high))
        return self._totals[block]

    def _order(self, candidate: int, passed: int) -> NDArray[np.int32]:
        """Return the order in which a pass over a candidate takes its examples."""
        known = self._orders[candidate]
        if passed not in known:
            # an order may depend on the one before; go back to one that does not
            first = passed
            while first not in known and any(self._overlap(candidate, first)):
                first -= 1
            for number in range(first, passed + 1):
                if number not in known:
                    known[number] = self._make_order(candidate, number)
            for number in [number for number in known if number < passed - 1]:
                del known[number]
        return known[passed]

    def _make_order(self, candidate: int, passed: int) -> NDArray[np.int32]:
        size = self.sizes[candidate]
        rng = np.random.default_rng([self.seed, self._keys[candidate], passed, 1])
        order = rng.permutation(size).astype(np.int32)
        tail, head = self._overlap(candidate, passed)
        if not tail:
            return order
        drawn = np.zeros(size, dtype=bool)
        drawn[self._orders[candidate][passed - 1][size - tail :]] = True
        fresh = order[~drawn[order]][:head]
        first = np.zeros(size, dtype=bool)
        first[fresh] = True
        return np.concatenate([fresh, order[~first[order]]])

    def _overlap(self, candidate: int, passed: int) -> tuple[int, int]:
        """Return the draws just before and after a pass begins that share an epoch, if they can.

        The examples of the one must not come again in the other. (0, 0) where the pass begins with
        an epoch, or where the epoch draws more than the candidate has.
        """
        size = self.sizes[candidate]
        begin = passed * size
        epoch = int(begin / (self.weights[candidate] * self.epoch_length))
        while epoch > 0 and self._drawn(candidate, epoch) > begin:
            epoch -= 1
        while self._drawn(candidate, epoch + 1) <= begin:
            epoch += 1
        tail = begin - self._drawn(candidate, epoch)
        head = self._drawn(candidate, epoch + 1) - begin
        return (tail, head) if 0 < tail <= size - head else (0, 0)

    def _drawn(self, candidate: int, epoch: int) -> int:
        return int(self.counts(epoch * self.epoch_length)[candidate])


_Made = TypeVar("_Made")


def _kept(cache: OrderedDict[int, _Made], key: int, make: Callable[[int], _Made]) -> _Made:
    """Return what is in the cache, else make it and drop the oldest."""
    if key not in cache:
        cache[key] = make(key)
        if len(cache) > _KEPT_BLOCKS:
            cache.popitem(last=False)
    return cache[key]


def _floor(values: _Floats) -> _Ints:
    return np.floor(values + _FUZZ).astype(np.int64)


def _ceil(values: _Floats) -> _Ints:
    return np.ceil(values - _FUZZ).astype(np.int64)


def _apportion(ideal: _Floats, low: _Ints, high: _Ints, total: int, relaxed: _Ints) -> _Ints:
    """Return whole numbers in low..high that sum to total, nearest to the ideal shares first.

    Where `high` leaves too little room, `relaxed` takes its place.
    """
    if high.sum() < total:
        high = relaxed
    counts = np.clip(_floor(ideal), low, high)
    while gap := total - int(counts.sum()):
        step = 1 if gap > 0 else -1
        room = counts < high if gap > 0 else counts > low
        counts[np.argmax(np.where(room, step * (ideal - counts), -np.inf))] += step
    return counts
