"""Which examples a module in training is evaluated on next."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

__all__ = ["ExamplePositions"]


class ExamplePositions:
    """Which examples come next: those of each set in a random order that is new for each pass.

    Args:
        seed: Random seed for the orders.
        state: What `state_dict` returned; None to begin.

    Example:
        >>> positions = ExamplePositions(0)
        >>> sorted([*positions.take("a", 2, of=4), *positions.take("a", 2, of=4)])
        [0, 1, 2, 3]
    """

    def __init__(self, seed: int, state: Mapping[str, int] | None = None) -> None:
        self._seed = seed
        self._taken = dict(state or {})

    def take(self, name: str, n: int, *, of: int) -> list[int]:
        """Return the positions of n examples, of which none comes again before a new pass begins.

        Args:
            name: Name of the set.
            n: Number of examples, at most `of`.
            of: Number of examples in the set.
        """
        begin = self._taken.get(name, 0)
        if begin % of + n > of:  # the few that are left would not do
            begin += of - begin % of
        self._taken[name] = begin + n
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode()), begin // of])
        order = rng.permutation(of)
        positions: list[int] = order[begin % of : begin % of + n].tolist()
        return positions

    def state_dict(self) -> dict[str, int]:
        """Return the number of positions of each set that were taken or passed over."""
        return dict(self._taken)
