"""How often each candidate is drawn if its weight is a share of the tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.training.apportionment import BLOCK, Floats, Ints, kept
from synque_select.training.example_order import ExampleOrder

__all__ = ["TokenCounts", "TokenSums"]

_KEPT_PASSES = 4


class TokenSums:
    """The tokens in the first draws of a candidate.

    Args:
        order: The order of its examples.
        lengths: (N,) number of tokens of each example, at least 1.

    Example:
        >>> from synque_select.training.example_order import ShuffledOrder
        >>> sums = TokenSums(ShuffledOrder("a", 3, 0), np.array([10, 20, 30]))  # drawn: 2, 0, 1
        >>> [sums.before(n) for n in range(4)], sums.begun_by(35.0)
        ([0, 30, 40, 60], 2)
    """

    def __init__(self, order: ExampleOrder, lengths: NDArray[np.int64]) -> None:
        self._order, self._lengths = order, lengths
        self._total = int(lengths.sum())
        self._starts: OrderedDict[int, Ints] = OrderedDict()

    @property
    def mean(self) -> float:
        """Mean number of tokens of an example."""
        return self._total / self._order.size

    def before(self, n: int) -> int:
        """Return the number of tokens in the first n draws."""
        passed, place = divmod(n, self._order.size)
        return passed * self._total + (int(self._starts_of(passed)[place]) if place else 0)

    def begun_by(self, tokens: float) -> int:
        """Return the number of draws that begin at or before a number of tokens."""
        passed = int(tokens // self._total)
        rest = tokens - passed * self._total
        inside = int(self._starts_of(passed).searchsorted(rest, side="right"))
        return passed * self._order.size + inside

    def _starts_of(self, passed: int) -> Ints:
        return kept(self._starts, passed, self._make_starts, most=_KEPT_PASSES)

    def _make_starts(self, passed: int) -> Ints:
        """Return the tokens in a pass before each of its draws, (N,)."""
        lengths = self._lengths[self._order.order(passed)]
        return np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64)


class TokenCounts:
    """Counts whose tokens are in proportion to the weights, within one example per candidate.

    The candidates share a clock: at time t, candidate a has begun the draws that begin at or before
    its token number w_a * t. A block ends where 1,000 more draws have begun. So at the end of each
    block the tokens of a are above w_a * t by at most its longest example l_a, and in a block with
    T tokens they differ from w_a * T by at most (1 - w_a) * l_a + w_a * (sum of the other l_b).

    Args:
        weights: (K,) weights that sum to 1.
        before: (K,) draws of each candidate before the first block.
        sums: The tokens of each candidate.
    """

    def __init__(self, weights: Floats, before: Ints, sums: Sequence[TokenSums]) -> None:
        self._drawn = [
            (k, float(weight), int(before[k]), sums[k].before(int(before[k])), sums[k])
            for k, weight in enumerate(weights)
            if weight > 0
        ]
        self._mean = sum(float(weights[k]) / sums[k].mean for k, *_ in self._drawn)
        self._n = len(weights)
        self._totals: OrderedDict[int, Ints] = OrderedDict()

    def cuts(self, block: int) -> dict[int, Ints]:
        """Return the counts at the start and at the end of a block."""
        return {block * BLOCK: self.total(block), (block + 1) * BLOCK: self.total(block + 1)}

    def total(self, block: int) -> Ints:
        """Return how often each candidate is drawn before a block, (K,)."""
        return kept(self._totals, block, self._make_total)

    def _make_total(self, block: int) -> Ints:
        """Find the time at which so many draws have begun, by bisection."""
        wanted = block * BLOCK
        before = np.zeros(self._n, dtype=np.int64)
        if not wanted:
            return before
        # no draw has begun before time 0; the mean lengths say about when these have
        low, high = -1.0, wanted / self._mean
        while (after := self._begun(high)).sum() < wanted:
            low, before, high = high, after, 2 * high
        while low < (middle := (low + high) / 2) < high and after.sum() > wanted:
            counts = self._begun(middle)
            if counts.sum() < wanted:
                low, before = middle, counts
            else:
                high, after = middle, counts
        # what begins at the same time: the first ones of the candidates
        counts, room = before, after - before
        left = wanted - int(before.sum())
        taken = np.minimum(room, np.maximum(left - np.cumsum(room) + room, 0))
        return np.asarray(counts + taken)

    def _begun(self, time: float) -> Ints:
        counts = np.zeros(self._n, dtype=np.int64)
        if time >= 0:
            for k, weight, first, tokens, sums in self._drawn:
                counts[k] = sums.begun_by(tokens + weight * time) - first
        return counts
