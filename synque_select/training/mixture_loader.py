"""Weighted, seeded serving of a mixture, the same on one process and on many.

Training sees one endless stream of draws. `MixtureSchedule` maps draw number g to an example of a
candidate: a pure function of g, the weights and the seed, so every rank and every worker finds the
same answer without communication. `MixtureSampler` distributes the draws of an epoch over the
ranks, and `MixtureLoader` counts them in a `Position`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from synque_select.data.candidate import Candidate
from synque_select.data.examples import MapDataset
from synque_select.data.plain_rows import PlainRows
from synque_select.data.stream_rows import WINDOW, StreamError, StreamRows
from synque_select.errors import ConfigError, DataError, DependencyError, did_you_mean
from synque_select.training.mixture_schedule import MixtureSchedule, Ramp, longest_epoch
from synque_select.training.weight_changes import WeightTable
from synque_select.types import Mixture
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted, listed

__all__ = [
    "MixtureDataset",
    "MixtureLoader",
    "MixtureSampler",
    "NamedRamp",
    "Position",
    "Transform",
    "chosen_candidates",
    "training_example",
]

Transform = Callable[[Any], Any]  # one example of a user's dataset to a training example


@dataclass(frozen=True)
class NamedRamp:
    """The order of examples by their scores, from low to high, once in a number of draws.

    Args:
        scores: Candidate name to the scores of its examples, (N,); others are in random order.
        draws: Number of draws, over all candidates and ranks.
    """

    scores: Mapping[str, NDArray[np.float64]]
    draws: int


class MixtureDataset(Dataset[object]):
    """A mixture as a map-style dataset: item g is the example of draw number g.

    The dataset is the mixture, not the union of its candidates, so that the mixture is served even
    if the sampler is replaced (as `overfit_batches` does). Draw numbers continue beyond the length:
    an epoch begins where the previous one ended.

    Args:
        candidates: At least those that the mixture names.
        mixture: Names and weights; their order does not matter.
        seed: Random seed for the order of examples, not negative.
        epoch_length: Draws per epoch, which is the length of the dataset; None for the longest
            epoch without repetitions.
        counted_epoch: Draws after each of which counts are exact, too; None for `epoch_length`. A
            run that resumes with another length of epochs keeps that of its beginning, so that its
            draws stay as they are.
        transform: Applied to every example.
        changes: Later weights of the candidates that it names; None if weights stay as they are.
        lengths: Candidate name to the number of tokens of each example, (N,), if weights are shares
            of tokens; None for shares of draws.
        ramp: Order of each candidate's examples by scores; None for a random order.

    Raises:
        ConfigError: The mixture names an unknown candidate or one that `changes` does not, the
            seed is negative, or the epoch is shorter than 1.

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
        counted_epoch: int | None = None,
        transform: Transform | None = None,
        changes: WeightTable | None = None,
        lengths: Mapping[str, NDArray[np.int64]] | None = None,
        ramp: NamedRamp | None = None,
    ) -> None:
        ordered = Mixture(dict(sorted(mixture.weights.items())), mixture.source)
        self.candidates = chosen_candidates(candidates, ordered)
        if changes is not None:
            self.candidates = _that_may_be_drawn(candidates, ordered, changes)
        sizes = {candidate.name: candidate.n_all for candidate in self.candidates}
        self.rows = [candidate.all_examples for candidate in self.candidates]
        check_int("seed", seed, 0)
        if epoch_length is None:
            means = None if lengths is None else {n: x.mean() for n, x in lengths.items()}
            epoch_length = longest_epoch(sizes, ordered, means)
        self._epoch_length = check_int("epoch_length", epoch_length, 1)
        self.transform = transform
        windows = [WINDOW if isinstance(rows, StreamRows) else None for rows in self.rows]
        names = list(sizes)
        self.schedule = MixtureSchedule(
            list(sizes.values()),
            ordered,
            seed,
            counted_epoch or epoch_length,
            windows=windows,
            changes=changes,
            lengths=None if lengths is None else [lengths[name] for name in names],
            ramp=None if ramp is None else Ramp([ramp.scores.get(n) for n in names], ramp.draws),
        )

    @property
    def has_streams(self) -> bool:
        """Whether a candidate is read in its order, by each process on its own."""
        return any(isinstance(rows, StreamRows) for rows in self.rows)

    def __len__(self) -> int:
        return self._epoch_length

    def __getitem__(self, draw: int) -> object:
        candidate, example = self.schedule.locate(draw)
        return training_example(
            self.candidates[candidate], example, self.transform, self.rows[candidate]
        )


def _that_may_be_drawn(
    candidates: Sequence[Candidate], mixture: Mixture, changes: WeightTable
) -> list[Candidate]:
    missing = [name for name in mixture.names if name not in changes.names]
    if missing:
        raise ConfigError(
            f"the mixture names {listed(missing)}, but the weights of other candidates may change: "
            f"{listed(changes.names)}"
        )
    return chosen_candidates(candidates, Mixture.equal(changes.names))


def training_example(
    candidate: Candidate,
    position: int,
    transform: Transform | None,
    rows: MapDataset | PlainRows | None = None,
) -> object:
    """Return one example as training sees it.

    Args:
        candidate: The candidate.
        position: Position of the example.
        transform: Applied to it; None for the example as it is.
        rows: `Candidate.all_examples`; None to read the examples of the candidate itself.

    Raises:
        DataError: The example cannot be read, or the transform fails; the message names candidate
            and example, and the original error is the cause.
    """
    step = "reading it"
    try:
        example: object = (candidate if rows is None else rows)[position]
        step = "train_transform"
        return example if transform is None else transform(example)
    except (DependencyError, StreamError):
        raise
    # a user's dataset or transform may raise anything
    except Exception as error:
        raise DataError(
            f"{candidate.where}, example {position} (counted from 0): {step} fails: "
            f"{type(error).__name__}: {error}"
        ) from error


def chosen_candidates(candidates: Sequence[Candidate], mixture: Mixture) -> list[Candidate]:
    """Return the candidates that a mixture names, in its order.

    Raises:
        ConfigError: The mixture names an unknown candidate.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    for name in mixture.names:
        if name not in by_name:
            raise ConfigError(
                f"the mixture names {name!r}, which is not a candidate: "
                f"{did_you_mean(name, by_name)}"
            )
    return [by_name[name] for name in mixture.names]


@dataclass
class Position:
    """The position of training in the stream of draws.

    Args:
        epoch: The trainer's number of the current epoch; None before the first.
        start: The draw at which the epoch began.
        drawn: Draws served in the epoch, over all ranks.
        batches: Batches served in the epoch on each rank.
        last: Draws in the latest batch, over all ranks.

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

    def trained(self, epoch: int | None = None, batches: int = 0) -> int:
        """Return the number of draws that were trained on, over all ranks; see `state`."""
        state = self.state(epoch, batches)
        return (state["start"] or 0) + (state["drawn"] or 0)

    def begin(self, epoch: int, batches: int = 0) -> None:
        """Move to the start of an epoch, or to where it continues after `batches` trained ones."""
        if self.epoch is None or epoch < self.epoch:  # a new run
            self.start = self.drawn = 0
        elif epoch > self.epoch:
            self.start, self.drawn = self.start + self.drawn, 0
        elif not batches:
            self.drawn = 0
        self.epoch, self.batches, self.last = epoch, batches, 0

    def advance(self, draws: int) -> None:
        """Count a batch.

        Args:
            draws: Draws in the batch, over all ranks.
        """
        self.drawn += draws
        self.batches += 1
        self.last = draws

    def state(self, epoch: int | None = None, batches: int = 0) -> dict[str, int | None]:
        """Return plain values.

        Args:
            epoch: The current epoch, if there is one.
            batches: Batches of it that were trained on; a batch that was served but not trained on
                will be served again.
        """
        unfinished = self.last if epoch == self.epoch and self.batches > batches else 0
        return {"epoch": self.epoch, "start": self.start, "drawn": self.drawn - unfinished}

    def restore(self, state: Mapping[str, int | None]) -> None:
        """Move to the position that `state` returned."""
        self.epoch = state["epoch"]
        self.start, self.drawn = state["start"] or 0, state["drawn"] or 0
        self.batches = self.last = 0


class MixtureSampler(DistributedSampler[object]):
    """Distributes the draws of an epoch: of every `num_replicas` draws each rank gets one.

    It is a DistributedSampler because Lightning wraps and reshuffles any other sampler. After i
    batches the first i·batch_size·num_replicas draws of the epoch have been served, for any number
    of ranks; because the order in a block is random, every rank gets its share of each candidate.

    Args:
        dataset: Its length is floored to a multiple of `num_replicas`.
        num_replicas: Number of ranks.
        rank: Number of this rank.

    Attributes:
        start: The draw at which the epoch begins.
        drawn: Draws of the epoch that were served before, over all ranks.

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
                f"an epoch of {counted(len(dataset), 'draw')} cannot be split over "
                f"{counted(num_replicas, 'rank')}: raise epoch_length"
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
        """Draws of the epoch that each rank has not served yet."""
        return max(0, self.total_size - self.drawn) // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        first = self.start + self.drawn + self.rank
        return iter(range(first, first + self.remaining * self.num_replicas, self.num_replicas))


class MixtureLoader(DataLoader[object]):
    """A DataLoader that begins at a `Position`, and counts there what it serves.

    Nothing is fetched before the first batch is requested: Lightning makes the iterator before it
    sets the epoch and, under some strategies, before it restores a checkpoint, so worker processes
    would prefetch from the wrong position.

    Args:
        *args: As for DataLoader.
        begin: Called with the sampler's epoch when its first batch is requested; returns the
            position to start from and to count in, or None to serve the epoch from its start.
        **kwargs: As for DataLoader; the sampler is a `MixtureSampler`.
    """

    # Lightning makes the loader again with other arguments, which it finds by this signature
    def __init__(self, *args: Any, begin: Callable[[int], Position | None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.begin = begin

    def __iter__(self) -> Any:  # DataLoader declares an iterator class, this is a generator
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

    def state_dict(self) -> dict[str, object]:
        """Return nothing, because the position is in the DataModule's state.

        Lightning concludes from these two methods that the loader can resume within an epoch.
        """
        return {}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Do nothing; see `state_dict`."""
