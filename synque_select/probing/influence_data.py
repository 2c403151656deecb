"""The examples whose gradients are taken: of each candidate, and of the validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synque_select.data.iterables import is_map_style
from synque_select.errors import LightningError, SynqueError
from synque_select.training.comparability import content_sha256
from synque_select.training.lightning_compat import flattened_loaders, is_overridden
from synque_select.training.mixture_loader import MixtureDataset, training_example
from synque_select.types.influence import ValidationKind
from synque_select.utils.process_state import seeded

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule

__all__ = ["Part", "Validation", "candidate_parts", "naming", "validation_data"]

Collate = Callable[[list[Any]], object]
_N_BATCHED = 2  # examples that represent the collation in a hash


@dataclass(frozen=True, eq=False)
class Part:
    """Examples whose gradients are taken together.

    Args:
        name: What they are, for messages: the name of a candidate, or "the validation data".
        all_examples: Returns the example at a position, as training or validation sees it.
        n_all: Number of all of these examples.
        positions: (n,) int64 positions of those whose gradients are taken.
        collate: Makes a batch of examples.
    """

    name: str
    all_examples: Callable[[int], object]
    n_all: int
    positions: NDArray[np.int64]
    collate: Collate

    @property
    def n(self) -> int:
        """Number of examples whose gradients are taken."""
        return len(self.positions)

    def example(self, i: int) -> object:
        """Return one of these examples."""
        return self.all_examples(int(self.positions[i]))

    @cached_property
    def sha256(self) -> str:
        """Hash of the examples, and of how they become a batch.

        Raises:
            LightningError: An example cannot be read, or no batch can be made.
        """
        with naming(self, "no batch can be made of its examples: {error}"), seeded(0):
            batch = self.collate([self.example(i) for i in range(min(_N_BATCHED, self.n))])
            return content_sha256([self.n, batch, *map(self.example, range(self.n))])


@contextmanager
def naming(part: Part, message: str) -> Iterator[None]:
    """Turn what the user's code raises into an error that names the part.

    Args:
        part: The part.
        message: What has failed; "{error}" is replaced.

    Raises:
        LightningError: The body has raised something that is not an error of this library.
    """
    try:
        yield
    except SynqueError:
        raise
    except Exception as error:  # whatever the user's code raises
        raised = f"{type(error).__name__}: {error}"
        raise LightningError(f"{part.name}: {message.replace('{error}', raised)}") from error


@dataclass(frozen=True)
class Validation:
    """The validation data.

    Args:
        kind: Whether it is a surrogate or labeled.
        part: Its examples.
        units: (n,) int64 unit of each example: the example itself, or the family of the candidate
            that it comes from.
        own: (K,) int64 unit of each candidate, which does not judge it; None for labeled data.
        messages: Sentences about it, for the user.
    """

    kind: ValidationKind
    part: Part
    units: Tensor
    own: Tensor | None = None
    messages: tuple[str, ...] = ()

    def judges(self, position: int) -> tuple[Tensor, Tensor]:
        """Return the positions of the examples that judge a candidate, and their units from 0."""
        if self.own is None:
            return torch.arange(self.part.n), self.units
        kept = torch.nonzero(self.units != self.own[position]).flatten()
        return kept, torch.unique(self.units[kept], return_inverse=True)[1]


def candidate_parts(data: AnySynqueDataModule, most: int, seed: int) -> list[Part]:
    """Return the drawn examples of each candidate that training may use, in the given order.

    Args:
        data: A DataModule that serves all candidates.
        most: Most examples per candidate.
        seed: Random seed of the draw.
    """
    loader = data.mixture_loader()
    served = loader.dataset
    assert isinstance(served, MixtureDataset)
    by_name = {candidate.name: candidate for candidate in served.candidates}
    return [
        Part(
            candidate.name,
            partial(training_example, by_name[candidate.name], transform=served.transform),
            by_name[candidate.name].n_all,
            _drawn(len(by_name[candidate.name]), most, seed),
            loader.collate_fn,
        )
        for candidate in data.candidates
    ]


def _drawn(n: int, most: int, seed: int) -> NDArray[np.int64]:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def validation_data(data: AnySynqueDataModule, most: int, seed: int) -> Validation:
    """Return the surrogate validation set if there is one, else examples of the labeled data.

    Args:
        data: The DataModule, set up.
        most: Most labeled examples.
        seed: Random seed of their draw.

    Raises:
        LightningError: Validation data is missing, or has no single examples.
    """
    surrogate = data.surrogate
    if surrogate is not None:
        n, collate = len(surrogate), data.mixture_loader().collate_fn
        numbers = {family: i for i, family in enumerate(sorted(set(surrogate.families)))}
        own = torch.tensor([numbers[family] for family in surrogate.families])
        every = np.arange(n)
        part = Part("the surrogate validation data", surrogate.__getitem__, n, every, collate)
        units = own[torch.from_numpy(surrogate.owners)]
        return Validation("surrogate", part, units, own, surrogate.messages)
    has_loader = is_overridden("val_dataloader", data)
    dataset, collate = _labeled(flattened_loaders(data.val_dataloader()) if has_loader else [])
    n = len(dataset)
    drawn = _drawn(n, most, seed)
    part = Part("the validation data", dataset.__getitem__, n, drawn, collate)
    return Validation("labeled", part, torch.arange(part.n))


def _labeled(loaders: Sequence[object]) -> tuple[Any, Collate]:
    """Return the dataset of the first validation loader, and how it makes a batch."""
    if not loaders:
        raise LightningError(
            "influence needs validation data: give SynqueDataModule(val=…), labeled data or "
            "'surrogate', or wrap a DataModule that has some"
        )
    loader: Any = loaders[0]
    dataset, collate = (getattr(loader, name, None) for name in ("dataset", "collate_fn"))
    if collate is None or not is_map_style(dataset):
        raise LightningError(
            "influence needs single validation examples: allowed as first validation loader is a "
            f"DataLoader over a map-style dataset, found {type(loader).__name__} over "
            f"{type(dataset).__name__}"
        )
    if not len(dataset):
        raise LightningError(
            "influence needs validation data: the first validation loader is empty"
        )
    return dataset, collate
