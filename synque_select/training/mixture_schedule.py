"""The map from draws of a mixture to examples of candidates: arithmetic, without any data."""

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
_KEPT_WINDOWS = 1_000
# 3 · (1/3) may come out just below 1, and floor would then lose a draw
_ROUNDING = 1e-9

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def longest_epoch(sizes: Mapping[str, int], mixture: Mixture) -> int:
    """Return the largest number of draws without repeated examples: ⌊min_a N_a / w_a⌋.

    Args:
        sizes: Candidate name to its number of examples N_a.
        mixture: The weights w_a.

    Example:
        >>> longest_epoch({"a": 300, "b": 100}, Mixture({"a": 0.5, "b": 0.5}))
        200
    """
    ratio = min(sizes[name] / weight for name, weight in mixture.weights.items())
    return math.floor(ratio * (1 + _ROUNDING))


class MixtureSchedule:
    """Maps each draw to an example of a candidate; pure and stateless, apart from caches.

    - In every block of 1,000 draws (0 to 999, 1,000 to 1,999, …) candidate a is drawn ⌊1000·w_a⌋ or
      ⌈1000·w_a⌉ times; the remainder is carried over, so totals stay within 2 of g·w_a for every g
      at the end of a block. The order in a block is a permutation seeded by (seed, block).
    - The draws of candidate a take its examples in a random order that is new for each pass over
      them: no example is repeated before all have been drawn, and none twice in one epoch, unless
      the epoch draws more from a than it has.
    - Of a candidate that is read as a stream, windows of examples come in their order, each in a
      random order that is new for each pass.

    Args:
        sizes: Number of examples of each candidate, (K,).
        mixture: Names and weights, in the order of `sizes`.
        seed: Random seed, not negative.
        epoch_length: Draws per epoch; counts are exact at the end of each epoch, too.
        windows: Number of examples in a window of each candidate, None for one that can be
            accessed by position; None if all can.

    Example:
        >>> schedule = MixtureSchedule([3, 1], Mixture({"a": 0.75, "b": 0.25}), 0, 4)
        >>> sorted(schedule.locate(draw) for draw in range(4))
        [(0, 0), (0, 1), (0, 2), (1, 0)]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        mixture: Mixture,
        seed: int,
        epoch_length: int,
        *,
        windows: Sequence[int | None] | None = None,
    ) -> None:
        weights = np.array(list(mixture.weights.values()), dtype=np.float64)
        self.weights: _Floats = weights / weights.sum()
        self.sizes = [int(size) for size in sizes]
        self.seed = seed
        self.epoch_length = epoch_length
        # by name, so that a candidate's order does not depend on the others in the mixture
        self._keys = [zlib.crc32(name.encode()) for name in mixture.names]
        self._totals: list[_Ints] = [np.zeros(len(self.sizes), dtype=np.int64)]
        self._blocks: OrderedDict[int, tuple[list[int], list[int]]] = OrderedDict()
        self._block_cuts: OrderedDict[int, dict[int, _Ints]] = OrderedDict()
        self._orders: list[dict[int, NDArray[np.int32]]] = [{} for _ in self.sizes]
        self._windows = [None] * len(self.sizes) if windows is None else list(windows)
        self._window_orders: OrderedDict[tuple[int, int, int], list[int]] = OrderedDict()

    def locate(self, draw: int) -> tuple[int, int]:
        """Return the index of the candidate in the mixture, and of the example in the candidate."""
        which, nth = self._block(draw // BLOCK)
        candidate = which[draw % BLOCK]
        passed, place = divmod(nth[draw % BLOCK], self.sizes[candidate])
        window = self._windows[candidate]
        if window is not None:
            number, place = divmod(place, window)
            key = (candidate, passed, number)
            order = _kept(self._window_orders, key, self._make_window_order, most=_KEPT_WINDOWS)
            return candidate, number * window + order[place]
        return candidate, int(self._order(candidate, passed)[place])

    def counts(self, draw: int) -> _Ints:
        """Return how often each candidate is drawn before the end of a block or epoch at `draw`."""
        return self._cuts(draw // BLOCK)[draw]

    def _block(self, block: int) -> tuple[list[int], list[int]]:
        """Return for each draw of a block its candidate, and its number among that one's draws."""
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
        """Return the counts at the start of a block, at epoch ends inside it, and at its end."""
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
        """Return the order of the examples in a pass over a candidate."""
        known = self._orders[candidate]
        if passed not in known:
            # an order may depend on the previous one: go back to one that does not
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
        # the examples that this epoch drew at the end of the previous pass must not come again in
        # it: the first draws of this pass are taken from the others
        tail, head = self._overlap(candidate, passed)
        if not tail:
            return order
        drawn = np.zeros(size, dtype=bool)
        drawn[self._orders[candidate][passed - 1][size - tail :]] = True
        fresh = order[~drawn[order]][:head]
        first = np.zeros(size, dtype=bool)
        first[fresh] = True
        return np.concatenate([fresh, order[~first[order]]])

    def _make_window_order(self, key: tuple[int, int, int]) -> list[int]:
        candidate, passed, number = key
        window = self._windows[candidate]
        assert window is not None
        rng = np.random.default_rng([self.seed, self._keys[candidate], passed, 2, number])
        n = min(window, self.sizes[candidate] - number * window)
        order: list[int] = rng.permutation(n).tolist()
        return order

    def _overlap(self, candidate: int, passed: int) -> tuple[int, int]:
        """Return how many draws before and after the start of a pass are in the same epoch.

        The examples of the former must not be repeated in the latter. (0, 0) if the pass begins
        with an epoch, or if the epoch draws more than the candidate has.
        """
        size = self.sizes[candidate]
        begin = passed * size
        # a first guess by the ideal counts, corrected by the real ones, which differ by rounding
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


_Key = TypeVar("_Key")
_Made = TypeVar("_Made")


def _kept(
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


def _floor(values: _Floats) -> _Ints:
    return np.floor(values + _ROUNDING).astype(np.int64)


def _ceil(values: _Floats) -> _Ints:
    return np.ceil(values - _ROUNDING).astype(np.int64)


def _apportion(ideal: _Floats, low: _Ints, high: _Ints, total: int, relaxed: _Ints) -> _Ints:
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
