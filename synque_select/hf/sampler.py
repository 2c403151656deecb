"""The order in which a Hugging Face Trainer reads the examples of a mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.types import Mixture
from synque_select.utils.wording import counted

__all__ = ["MixtureOrder"]


class MixtureOrder(Sampler[int]):
    """Yields the rows of the next epoch, the same on every rank: draws e·E to (e + 1)·E − 1.

    It has no rank of its own: accelerate gives each rank every R-th batch.

    Args:
        candidates: The candidates, in the order of their rows.
        mixture: Their weights.
        seed: Random seed for the order.
        epoch_length: Draws per epoch, E; None for the longest epoch without repetitions.

    Attributes:
        epoch: The epoch that is served next; the trainer sets it.
        history: First epoch of each mixture to the mixture, in the order of the epochs.

    Example:
        >>> parts = [Candidate("a", ["x", "y"]), Candidate("b", ["u", "v"])]
        >>> order = MixtureOrder(parts, Mixture.equal(["a", "b"]), seed=0)
        >>> sorted(order), len(order)
        ([0, 1, 2, 3], 4)
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        mixture: Mixture,
        *,
        seed: int,
        epoch_length: int | None = None,
    ) -> None:
        self.epoch, self.seed = 0, seed
        self.history: dict[int, Mixture] = {}
        self._candidates = candidates
        starts = np.cumsum([0, *(len(part) for part in candidates)])
        names = [part.name for part in candidates]
        self._starts = dict(zip(names, starts.tolist(), strict=False))
        self._positions: NDArray[np.int64] | None = None
        self._draws: dict[int, MixtureDataset] = {}
        first = self._dataset(mixture, epoch_length)
        self.wanted = self._length = len(first)
        self._add(0, mixture, first)

    @property
    def mixture(self) -> Mixture:
        """The mixture of the epoch that is served next."""
        return self.history[self._since(self.epoch)]

    def fit_to(self, n_per_step: int, positions: NDArray[np.int64] | None) -> None:
        """Round the epoch down to whole batches of all ranks.

        Otherwise accelerate would complete the last batch with examples of the first.

        Args:
            n_per_step: Number of examples in the batches of all ranks.
            positions: Row to its position in the trainer's dataset; None if it is the same.

        Raises:
            ConfigError: An epoch has fewer draws.
        """
        length = self.wanted // n_per_step * n_per_step
        if not length:
            raise ConfigError(
                f"an epoch of {counted(self.wanted, 'draw')} is shorter than one batch of "
                f"{n_per_step} on all ranks: raise epoch_length, or lower the batch size"
            )
        self._length, self._positions = length, positions
        for epoch, mixture in self.history.items():
            self._draws[epoch] = self._dataset(mixture, length)

    def change(self, epoch: int, mixture: Mixture) -> None:
        """Serve another mixture from an epoch on; earlier epochs stay as they are.

        Raises:
            ConfigError: The mixture names a candidate that is not part of the first one.
        """
        dataset = self._dataset(mixture, self._length)
        for later in [number for number in self.history if number >= epoch]:
            del self.history[later], self._draws[later]
        self._add(epoch, mixture, dataset)

    def set_epoch(self, epoch: int) -> None:
        """Serve this epoch next; called by accelerate and by the callback."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        dataset = self._draws[self._since(self.epoch)]
        starts = [self._starts[candidate.name] for candidate in dataset.candidates]
        for draw in range(self.epoch * self._length, (self.epoch + 1) * self._length):
            which, example = dataset.schedule.locate(draw)
            row = starts[which] + example
            yield row if self._positions is None else int(self._positions[row])

    def _since(self, epoch: int) -> int:
        return max(first for first in self.history if first <= epoch)

    def _dataset(self, mixture: Mixture, epoch_length: int | None) -> MixtureDataset:
        return MixtureDataset(self._candidates, mixture, seed=self.seed, epoch_length=epoch_length)

    def _add(self, epoch: int, mixture: Mixture, dataset: MixtureDataset) -> None:
        self.history[epoch], self._draws[epoch] = mixture, dataset
