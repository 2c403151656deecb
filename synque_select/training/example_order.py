"""The order in which a candidate's examples are drawn: a permutation for each pass over them."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from synque_select.training.apportionment import kept

__all__ = ["ExampleOrder", "RampOrder", "ShuffledOrder", "WindowOrder"]

_KEPT_WINDOWS = 1_000

Overlap = Callable[[int], tuple[int, int]]


class ExampleOrder(ABC):
    """Maps the n-th draw of a candidate to one of its examples.

    Each pass over the candidate has every example once, so that none comes again before all have
    been drawn. The order depends on the seed, the candidate's name and the number of the pass; not
    on weights that are set later, nor on what was asked before.

    Args:
        name: Name of the candidate.
        size: Its number of examples.
        seed: Random seed, not negative.
    """

    def __init__(self, name: str, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        # by name, so that a candidate's order does not depend on the others in the mixture
        self.key = zlib.crc32(name.encode())

    def example(self, nth: int) -> int:
        """Return the position of the example that draw number `nth` of the candidate takes."""
        return self.at(*divmod(nth, self.size))

    @abstractmethod
    def at(self, passed: int, place: int) -> int:
        """Return the position of the example at a place of a pass."""

    @abstractmethod
    def order(self, passed: int) -> NDArray[np.int32]:
        """Return the positions of all examples in the order of a pass, (size,)."""


class ShuffledOrder(ExampleOrder):
    """A new random order for each pass.

    Args:
        name: Name of the candidate.
        size: Its number of examples.
        seed: Random seed, not negative.
        overlap: Takes the number of a pass; returns how many draws before and after its start are
            in the same epoch. The examples of the former are not repeated in the latter. None for
            (0, 0).

    Example:
        >>> order = ShuffledOrder("a", 3, 0)
        >>> [order.example(nth) for nth in range(6)]
        [2, 0, 1, 2, 1, 0]
    """

    def __init__(self, name: str, size: int, seed: int, overlap: Overlap | None = None) -> None:
        super().__init__(name, size, seed)
        self._overlap = overlap or _no_overlap
        self._orders: dict[int, NDArray[np.int32]] = {}

    def at(self, passed: int, place: int) -> int:
        """Return the position of the example at a place of a pass."""
        return int(self.order(passed)[place])

    def order(self, passed: int) -> NDArray[np.int32]:
        """Return the order of the examples in a pass, (size,)."""
        known = self._orders
        if passed not in known:
            # an order may depend on the previous one: go back to one that does not
            first = passed
            while first not in known and any(self._overlap(first)):
                first -= 1
            for number in range(first, passed + 1):
                if number not in known:
                    known[number] = self._make_order(number)
            for number in [number for number in known if number < passed - 1]:
                del known[number]
        return known[passed]

    def _make_order(self, passed: int) -> NDArray[np.int32]:
        rng = np.random.default_rng([self.seed, self.key, passed, 1])
        order = rng.permutation(self.size).astype(np.int32)
        # the examples that this epoch drew at the end of the previous pass must not come again in
        # it: the first draws of this pass are taken from the others
        tail, head = self._overlap(passed)
        if not tail:
            return order
        drawn = np.zeros(self.size, dtype=bool)
        drawn[self._orders[passed - 1][self.size - tail :]] = True
        fresh = order[~drawn[order]][:head]
        first = np.zeros(self.size, dtype=bool)
        first[fresh] = True
        return np.concatenate([fresh, order[~first[order]]])


class WindowOrder(ExampleOrder):
    """Windows of a stream in their order, each in a random order that is new for each pass.

    Args:
        name: Name of the candidate.
        size: Its number of examples.
        seed: Random seed, not negative.
        window: Number of examples in a window.

    Example:
        >>> order = WindowOrder("a", 5, 0, window=2)
        >>> [order.example(nth) for nth in range(5)]
        [1, 0, 3, 2, 4]
    """

    def __init__(self, name: str, size: int, seed: int, *, window: int) -> None:
        super().__init__(name, size, seed)
        self._window = window
        self._orders: OrderedDict[tuple[int, int], list[int]] = OrderedDict()

    def at(self, passed: int, place: int) -> int:
        """Return the position of the example at a place of a pass."""
        number, place = divmod(place, self._window)
        order = kept(self._orders, (passed, number), self._make_order, most=_KEPT_WINDOWS)
        return number * self._window + order[place]

    def order(self, passed: int) -> NDArray[np.int32]:
        """Return the order of the examples in a pass, (size,)."""
        return np.array([self.at(passed, place) for place in range(self.size)], dtype=np.int32)

    def _make_order(self, key: tuple[int, int]) -> list[int]:
        passed, number = key
        rng = np.random.default_rng([self.seed, self.key, passed, 2, number])
        n = min(self._window, self.size - number * self._window)
        order: list[int] = rng.permutation(n).tolist()
        return order


class RampOrder(ExampleOrder):
    """Examples by their scores, from low to high, once in each ramp.

    A ramp is a number of the candidate's draws, such as those of an epoch. Which examples it has is
    random, so that it goes from low to high also where it is shorter than the candidate; each pass
    has every example once. Equal scores are in a random order.

    Args:
        name: Name of the candidate.
        size: Its number of examples.
        seed: Random seed, not negative.
        scores: (size,) score of each example.
        ramp: Draws of the candidate in a ramp; ramps begin at its multiples, and with each pass.

    Example:
        >>> order = RampOrder("a", 4, 0, scores=np.array([0.3, 0.1, 0.4, 0.2]), ramp=2)
        >>> [order.example(nth) for nth in range(4)]
        [0, 2, 1, 3]
    """

    def __init__(
        self, name: str, size: int, seed: int, *, scores: NDArray[np.float64], ramp: float
    ) -> None:
        super().__init__(name, size, seed)
        self._scores, self._ramp = scores, max(ramp, 1.0)
        self._orders: OrderedDict[int, NDArray[np.int32]] = OrderedDict()

    def at(self, passed: int, place: int) -> int:
        """Return the position of the example at a place of a pass."""
        return int(self.order(passed)[place])

    def order(self, passed: int) -> NDArray[np.int32]:
        """Return the order of the examples in a pass, (size,)."""
        return kept(self._orders, passed, self._make_order, most=2)

    def _make_order(self, passed: int) -> NDArray[np.int32]:
        rng = np.random.default_rng([self.seed, self.key, passed, 1])
        drawn = rng.permutation(self.size).astype(np.int32)
        first = passed * self.size
        numbers = np.arange(first // self._ramp + 1, (first + self.size) // self._ramp + 1)
        starts = np.rint(numbers * self._ramp).astype(np.int64) - first
        ramps = np.searchsorted(starts, np.arange(self.size), side="right")
        return drawn[np.lexsort((self._scores[drawn], ramps))]


def _no_overlap(_: int) -> tuple[int, int]:
    return 0, 0
