"""Weighted, seeded serving of a mixture, the same on one process and on many.

Training sees one endless stream of draws. `MixtureSchedule` says which example of which candidate
draw number g is: a pure function of g, the weights and the seed, so every rank and every worker
finds the same answer without talking to the others. `MixtureSampler` deals the draws of an epoch to
the ranks, and `MixtureLoader` keeps count of them in a `Position`.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from synque_select.checks import check_whole
from synque_select.errors import ConfigError, DataError, DependencyError, did_you_mean
from synque_select.types import Candidate, Mixture

__all__ = [
    "BLOCK",
    "MixtureDataset",
    "MixtureLoader",
    "MixtureSampler",
    "MixtureSchedule",
    "Position",
    "chosen_candidates",
    "longest_epoch",
    "training_example",
]

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


class MixtureDataset(Dataset[Any]):
    """A mixture as a map-style dataset: item g is what draw number g serves.

    The dataset is the mixture, not all its candidates, so that it is still the mixture that is
    served when somebody replaces the sampler (`overfit_batches` does). Draw numbers go on beyond
    the length: an epoch begins where the one before ended.

    Args:
        candidates: At least those that the mixture names.
        mixture: Names and weights; their order does not matter.
        seed: Of the order; not negative.
        epoch_length: Draws in an epoch, the length of the dataset; None for the longest that
            repeats nothing.
        transform: Applied to every example.

    Raises:
        ConfigError: The mixture names a candidate that is not there, the seed is negative, or the
            epoch is shorter than 1.

    Example:
        >>> candidates = [Candidate("a", ["x", "y"]), Candidate("b", ["u", "v"])]
        >>> dataset = MixtureDataset(candidates, Mixture.equal(["a", "b"]))
        >>> [sorted(dataset[draw] for draw in range(4 * e, 4 * e + 4)) for e in range(2)]
        [['u', 'v', 'x', 'y'], ['u', 'v', 'x', 'y']]
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        mixture: Mixture,
        *,
        seed: int = 0,
        epoch_length: int | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        ordered = Mixture(dict(sorted(mixture.weights.items())), mixture.source)
        self.candidates = chosen_candidates(candidates, ordered)
        sizes = {candidate.name: len(candidate) for candidate in self.candidates}
        check_whole("seed", seed, 0)
        if epoch_length is None:
            epoch_length = longest_epoch(sizes, ordered)
        check_whole("epoch_length", epoch_length, 1)
        self.transform = transform
        self.schedule = MixtureSchedule(list(sizes.values()), ordered, seed, epoch_length)

    def __len__(self) -> int:
        return self.schedule.epoch_length

    def __getitem__(self, draw: int) -> Any:
        candidate, example = self.schedule.locate(draw)
        return training_example(self.candidates[candidate], example, self.transform)


def training_example(
    candidate: Candidate, position: int, transform: Callable[[Any], Any] | None
) -> Any:
    """Return one example as training sees it.

    Raises:
        DataError: It cannot be read, or the transform fails; the message names the candidate and
            the example, and the cause is kept.
    """
    step = "reading it"
    try:
        record = candidate[position]
        step = "train_transform"
        return record if transform is None else transform(record)
    except DependencyError:
        raise
    # a dataset or a transform of the user's may raise anything
    except Exception as error:
        raise DataError(
            f"{candidate.where}, example {position} (counted from 0): {step} fails: "
            f"{type(error).__name__}: {error}"
        ) from error


def chosen_candidates(candidates: Sequence[Candidate], mixture: Mixture) -> list[Candidate]:
    """Return the candidates that a mixture names, in its order.

    Raises:
        ConfigError: One of them is not there.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    for name in mixture.names:
        if name not in by_name:
            raise ConfigError(
                f"the mixture names {name!r}, which is no candidate; {did_you_mean(name, by_name)}"
            )
    return [by_name[name] for name in mixture.names]


@dataclass
class Position:
    """Where training stands in the stream of draws.

    Args:
        epoch: The trainer's number of the epoch under way; None before the first.
        start: The draw at which it began.
        drawn: Draws that it has served, over all ranks.
        batches: Batches that it has served on each rank.
        last: Draws in the latest of them, over all ranks.

    Example:
        >>> position = Position()
        >>> position.begin(0)
        >>> position.advance(8)
        >>> position.begin(1)
        >>> position.start, position.drawn
        (8, 0)
    """

    epoch: int | None = None
    start: int = 0
    drawn: int = 0
    batches: int = 0
    last: int = 0

    def begin(self, epoch: int, batches: int = 0) -> None:
        """Stand where an epoch begins, or where it goes on after `batches` that were trained on."""
        if self.epoch is None or epoch < self.epoch:  # a new run
            self.start = self.drawn = 0
        elif epoch > self.epoch:
            self.start, self.drawn = self.start + self.drawn, 0
        elif not batches:
            self.drawn = 0
        self.epoch, self.batches, self.last = epoch, batches, 0

    def advance(self, draws: int) -> None:
        """Count a batch of draws, over all ranks."""
        self.drawn += draws
        self.batches += 1
        self.last = draws

    def state(self, epoch: int | None = None, batches: int = 0) -> dict[str, int | None]:
        """Return plain values.

        Args:
            epoch: The epoch under way, if one is.
            batches: Batches of it that were trained on; one that was served but not trained on will
                be served again.
        """
        unfinished = self.last if epoch == self.epoch and self.batches > batches else 0
        return {"epoch": self.epoch, "start": self.start, "drawn": self.drawn - unfinished}

    def restore(self, state: Mapping[str, int | None]) -> None:
        """Take over what `state` returned."""
        self.epoch = state["epoch"]
        self.start, self.drawn = state["start"] or 0, state["drawn"] or 0
        self.batches = self.last = 0


class MixtureSampler(DistributedSampler[Any]):
    """Deals the draws of an epoch to the ranks: of every `num_replicas` draws each gets one.

    A DistributedSampler by type, because Lightning wraps and reshuffles any other. What has been
    served after i batches is the first i·batch_size·num_replicas draws of the epoch, whatever the
    number of ranks, and a block's order is random, so every rank gets its share of each candidate.

    Args:
        dataset: Its length is floored to a multiple of `num_replicas`.
        num_replicas: Number of ranks.
        rank: This one.

    Attributes:
        start: The draw at which the epoch begins.
        drawn: Draws of the epoch, over all ranks, that were served before.

    Raises:
        ConfigError: The epoch has fewer draws than there are ranks.

    Example:
        >>> candidates = [Candidate("a", ["x", "y"]), Candidate("b", ["u", "v"])]
        >>> sampler = MixtureSampler(MixtureDataset(candidates, Mixture.equal(["a", "b"])), 2, 1)
        >>> sampler.set_epoch(1)
        >>> list(sampler)
        [5, 7]
    """

    def __init__(self, dataset: MixtureDataset, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.num_samples = len(dataset) // num_replicas
        if not self.num_samples:
            raise ConfigError(
                f"an epoch of {len(dataset)} draws cannot be shared by {num_replicas} ranks: "
                "raise epoch_length"
            )
        self.total_size = self.num_samples * num_replicas
        self.start = 0
        self.drawn = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin at `epoch` times the length of an epoch."""
        super().set_epoch(epoch)
        self.start, self.drawn = epoch * self.total_size, 0

    @property
    def remaining(self) -> int:
        """Draws that each rank has still to serve in the epoch."""
        return max(0, self.total_size - self.drawn) // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        first = self.start + self.drawn + self.rank
        return iter(range(first, first + self.remaining * self.num_replicas, self.num_replicas))


class MixtureLoader(DataLoader[Any]):
    """A DataLoader that begins where a `Position` says, and counts there what it serves.

    Nothing is fetched before the first batch is asked for: Lightning makes the iterator before it
    sets the epoch and, under some strategies, before it restores a checkpoint, and worker processes
    would run ahead from the wrong place.

    Args:
        *args: As for DataLoader.
        begin: Called with the sampler's epoch when its first batch is asked for; returns the
            position to start from and to count in, or None to serve the epoch from its start.
        **kwargs: As for DataLoader; the sampler a `MixtureSampler`.
    """

    def __init__(self, *args: Any, begin: Callable[[int], Position | None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.begin = begin

    def __iter__(self) -> Any:
        sampler = self.sampler
        if not isinstance(sampler, MixtureSampler):  # replaced: overfit_batches
            yield from super().__iter__()
            return
        position = self.begin(sampler.epoch) or Position(start=sampler.start)
        sampler.start, sampler.drawn = position.start, position.drawn
        remaining = sampler.remaining
        for batch in super().__iter__():
            served = min(self.batch_size or 1, remaining)
            remaining -= served
            position.advance(served * sampler.num_replicas)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the position is in the DataModule's state.

        Lightning takes a loader with these two methods as one that can resume in an epoch's middle.
        """
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Do nothing; see `state_dict`."""
