"""Hashes of the examples that a fit draws, by which a finished fit is known to be the same."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

from synque_select.training.comparability import content_digest
from synque_select.training.mixture_loader import MixtureDataset, training_example
from synque_select.utils.process_state import seeded

__all__ = ["DrawnExamples"]


class DrawnExamples:
    """Hashes the examples that fits draw, as they are in the candidates; each is read once.

    All fits must draw from the same data: an example is known by its candidate's name and its
    position.

    Example:
        >>> from synque_select import Candidate, Mixture
        >>> def drawn(texts, n):
        ...     data = MixtureDataset([Candidate("a", texts)], Mixture({"a": 1.0}))
        ...     return DrawnExamples().sha256(data, n)
        >>> [drawn(["x", "y"], 2) == drawn(texts, 2) for texts in (["x", "y"], ["x", "z"])]
        [True, False]
    """

    def __init__(self) -> None:
        self._digests: dict[tuple[str, int], bytes] = {}

    def sha256(self, served: MixtureDataset, n_draws: int) -> str:
        """Hash the examples of the first draws in their order, without transforms.

        Datasets that draw random numbers themselves are seeded for each example.

        Args:
            served: What the fits draw from.
            n_draws: Number of draws.
        """
        hashed = hashlib.sha256()
        with seeded(0):
            for draw in range(n_draws):
                number, position = served.schedule.locate(draw)
                candidate, rows = served.candidates[number], served.rows[number]
                place = (candidate.name, position)
                if place not in self._digests:
                    _seed()
                    example = training_example(candidate, position, None, rows)
                    self._digests[place] = content_digest(example)
                hashed.update(self._digests[place])
        return hashed.hexdigest()


def _seed() -> None:
    """Seed what a dataset may draw from; a hundred times as quick as `torch.manual_seed`."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
