"""The map from draws of a mixture to examples of candidates: arithmetic, without any data."""

from __future__ import annotations

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synque_select.training.apportionment import (
    BLOCK,
    ROUNDING,
    BlockCounts,
    Counts,
    EpochCounts,
    Floats,
    Ints,
    kept,
)
from synque_select.training.example_order import (
    ExampleOrder,
    RampOrder,
    ShuffledOrder,
    WindowOrder,
)
from synque_select.training.token_counts import TokenCounts, TokenSums
from synque_select.training.weight_changes import WeightTable
from synque_select.types import Mixture

__all__ = ["MixtureSchedule", "Ramp", "draw_shares", "longest_epoch"]

_FAR = 10**8  # draws; a candidate with a small weight may get there after its weight has grown


def longest_epoch(
    sizes: Mapping[str, int], mixture: Mixture, mean_lengths: Mapping[str, float] | None = None
) -> int:
    """Return the largest number of draws without repeated examples: ⌊min_a N_a / w_a⌋.

    If weights are shares of tokens, this is ⌊t · Σ_a w_a / m_a⌋ with t = min_a N_a · m_a / w_a, the
    number of tokens at which the first candidate is used up; the true number differs a little, as
    lengths differ from their means m_a.

    Args:
        sizes: Candidate name to its number of examples N_a.
        mixture: The weights w_a.
        mean_lengths: Candidate name to the mean number of tokens of its examples if weights are
            shares of tokens; None if they are shares of draws.

    Example:
        >>> longest_epoch({"a": 300, "b": 100}, Mixture({"a": 0.5, "b": 0.5}))
        200
        >>> means = {"a": 10.0, "b": 40.0}
        >>> longest_epoch({"a": 300, "b": 100}, Mixture({"a": 0.5, "b": 0.5}), means)
        375
    """
    means = dict.fromkeys(sizes, 1.0) if mean_lengths is None else mean_lengths
    weights = mixture.weights.items()
    tokens = min(sizes[name] * means[name] / weight for name, weight in weights)
    # the weights sum to 1 up to rounding only
    per_token = 1.0 if mean_lengths is None else sum(w / means[name] for name, w in weights)
    return math.floor(tokens * per_token * (1 + ROUNDING))


def draw_shares(weights: Floats, lengths: Sequence[NDArray[np.int64]] | None) -> Floats:
    """Return the share of each candidate in the draws, (K,).

    Args:
        weights: (K,) weights that sum to 1.
        lengths: Tokens of each candidate's examples if weights are shares of tokens, else None.

    Example:
        >>> draw_shares(np.array([0.5, 0.5]), [np.array([30, 30]), np.array([10, 10])]).tolist()
        [0.25, 0.75]
    """
    if lengths is None:
        return weights
    shares = weights / np.array([each.mean() for each in lengths])
    return np.asarray(shares / shares.sum())


@dataclass(frozen=True)
class Ramp:
    """Examples by their scores, from low to high, once in a number of draws.

    Args:
        scores: Scores of each candidate's examples, (N,); None for a random order.
        draws: Number of draws, over all candidates and ranks.
    """

    scores: Sequence[NDArray[np.float64] | None]
    draws: int


@dataclass(frozen=True)
class _Segment:
    """Draws between two changes of the weights.

    Args:
        start: The first draw.
        before: (K,) how often each candidate is drawn before it.
        counts: How often each is drawn in it.
    """

    start: int
    before: Ints
    counts: Counts


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
    - Where the weights change, blocks are counted from the draw of the change on, while each
      candidate's examples go on where they were. Draws before the change stay as they are. From
      the first change on, an epoch may have an example twice, once its candidate is used up.

    Args:
        sizes: Number of examples of each candidate, (K,).
        mixture: Names and weights, in the order of `sizes`.
        seed: Random seed, not negative.
        epoch_length: Draws per epoch; counts are exact at the end of each epoch, too, until the
            weights change.
        windows: Number of examples in a window of each candidate, None for one that can be
            accessed by position; None if all can.
        changes: Later weights; `sizes` and `windows` are then those of its names. None if the
            weights stay as they are.
        lengths: Tokens of each candidate's examples, (N,) int64 of at least 1, if weights are
            shares of tokens instead of draws; see `TokenCounts`. None for draws.
        ramp: Scores by which each candidate's examples are ordered; None for a random order. With
            it, or with `lengths`, an epoch may have an example twice, once its candidate is used
            up.

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
        changes: WeightTable | None = None,
        lengths: Sequence[NDArray[np.int64]] | None = None,
        ramp: Ramp | None = None,
    ) -> None:
        names = mixture.names if changes is None else changes.names
        weights = np.array([mixture.weights.get(name, 0.0) for name in names], dtype=np.float64)
        self.weights: Floats = weights / weights.sum()
        self.sizes = [int(size) for size in sizes]
        self.seed = seed
        self.epoch_length = epoch_length
        self._changes = changes
        self._version = 0 if changes is None else changes.version
        self._ramp, self._lengths = ramp, lengths
        self._shares = draw_shares(self.weights, lengths)
        self._first = EpochCounts(self.weights, epoch_length)
        self._segments: list[_Segment] = []
        self._blocks: OrderedDict[tuple[int, int], tuple[list[int], list[int]]] = OrderedDict()
        windows = [None] * len(self.sizes) if windows is None else windows
        self._orders = [
            self._make_order(candidate, name, window)
            for candidate, (name, window) in enumerate(zip(names, windows, strict=True))
        ]
        self._sums = None if lengths is None else list(map(TokenSums, self._orders, lengths))

    def locate(self, draw: int) -> tuple[int, int]:
        """Return the index of the candidate in the mixture, and of the example in the candidate."""
        number = 0 if self._changes is None else self._changes.number_at(draw)
        block, place = divmod(draw - self._segment(number).start, BLOCK)
        which, nth = kept(self._blocks, (number, block), self._make_block)
        candidate = which[place]
        return candidate, self._orders[candidate].example(nth[place])

    def counts(self, draw: int) -> Ints:
        """Return how often each candidate is drawn before `draw`, (K,)."""
        number = 0 if self._changes is None else self._changes.number_at(draw)
        return self._drawn_before(number, draw)

    def _segment(self, number: int) -> _Segment:
        if self._changes is not None and self._changes.version != self._version:
            self._version = self._changes.version
            self._segments.clear()
            self._blocks.clear()
        while len(self._segments) <= number:
            self._segments.append(self._make_segment(len(self._segments)))
        return self._segments[number]

    def _make_segment(self, number: int) -> _Segment:
        if not number:
            before = np.zeros(len(self.sizes), dtype=np.int64)
            return _Segment(0, before, self._counts(self.weights, before) or self._first)
        assert self._changes is not None
        start, weights = self._changes.start(number), self._changes.weights(number)
        before = self._drawn_before(number - 1, start)
        weights = weights / weights.sum()
        return _Segment(start, before, self._counts(weights, before) or BlockCounts(weights))

    def _counts(self, weights: Floats, before: Ints) -> TokenCounts | None:
        return None if self._sums is None else TokenCounts(weights, before, self._sums)

    def _drawn_before(self, number: int, draw: int) -> Ints:
        """Return the counts before a draw of a segment, or before the first one after it."""
        segment = self._segment(number)
        block, place = divmod(draw - segment.start, BLOCK)
        cuts = segment.counts.cuts(block)
        if draw - segment.start in cuts:
            return segment.before + cuts[draw - segment.start]
        which, _ = kept(self._blocks, (number, block), self._make_block)
        drawn = np.bincount(which[:place], minlength=len(self.sizes))
        return segment.before + cuts[block * BLOCK] + drawn

    def _make_block(self, key: tuple[int, int]) -> tuple[list[int], list[int]]:
        """Return for each draw of a block its candidate, and its number among that one's draws."""
        number, block = key
        segment = self._segment(number)
        counts = list(segment.counts.cuts(block).values())
        rng = np.random.default_rng([self.seed, block, *([segment.start, 3] if number else [])])
        parts = [
            rng.permutation(np.repeat(np.arange(len(self.sizes)), after - before))
            for before, after in itertools.pairwise(counts)
        ]
        which = np.concatenate(parts)
        nth = np.empty_like(which)
        first, last = segment.before + counts[0], segment.before + counts[-1]
        nth[np.argsort(which, kind="stable")] = np.concatenate(
            [np.arange(begin, end) for begin, end in zip(first, last, strict=True)]
        )
        return which.tolist(), nth.tolist()

    def _make_order(self, candidate: int, name: str, window: int | None) -> ExampleOrder:
        size = self.sizes[candidate]
        if window is not None:
            return WindowOrder(name, size, self.seed, window=window)
        scores = None if self._ramp is None else self._ramp.scores[candidate]
        if self._ramp is not None and scores is not None:
            # of a candidate that is not drawn at first, the mean share
            share = float(self._shares[candidate]) or 1 / len(self.sizes)
            ramp = share * self._ramp.draws
            return RampOrder(name, size, self.seed, scores=scores, ramp=ramp)
        if self._lengths is not None:
            return ShuffledOrder(name, size, self.seed)
        # a partial, unlike a lambda, can be sent to a worker process
        return ShuffledOrder(name, size, self.seed, functools.partial(self._overlap, candidate))

    def _overlap(self, candidate: int, passed: int) -> tuple[int, int]:
        """Return how many draws before and after the start of a pass are in the same epoch.

        The examples of the former must not be repeated in the latter. (0, 0) if the pass begins
        with an epoch, or if the epoch draws more than the candidate has. By the weights that
        training began with: later ones do not change an order that has been begun.
        """
        size = self.sizes[candidate]
        begin = passed * size
        if self._changes is not None and begin >= self.weights[candidate] * _FAR:
            return 0, 0
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
        return int(self._first.at(epoch * self.epoch_length)[candidate])
