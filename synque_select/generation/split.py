"""Two halves of the real sample: one that models may see, and one that decides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.utils.data import Dataset, Subset

from synque_select.data.candidate import RealSample
from synque_select.errors import DataError
from synque_select.lens.samples import content_order, halves
from synque_select.selection.uncertainty import effective_size, n_units
from synque_select.types.decision import LEAST_REAL
from synque_select.utils.wording import counted

__all__ = ["RealHalves", "split_real"]

_LEAST_SHOWN = 2


@dataclass(frozen=True, eq=False)
class RealHalves:
    """The real sample in two halves that have no group and no near copies in common.

    Args:
        shown: What the rubric is written from, what the gap map looks at, and what prompts quote.
        held_out: What old and new data are compared on. No model that writes ever sees it.
        seed: Random seed of the split.
    """

    shown: RealSample
    held_out: RealSample
    seed: int

    @property
    def n_groups(self) -> int:
        """Number of independent groups in the held-out half."""
        return n_units(len(self.held_out), self.held_out.groups)


def split_real(real: RealSample, seed: int) -> RealHalves:
    """Divide the real sample at random into a half to show and a half to hold out.

    Examples of one group, and exact and near duplicates, are in the same half, so that nothing
    that is shown resembles a held-out example more than other real examples do. The split depends
    on the content and the seed, not on the order of the examples.

    Args:
        real: The real sample, texts.
        seed: Random seed.

    Raises:
        DataError: The held-out half would have less than 20 independent examples, below which no
            difference is tested.

    Example:
        >>> texts = [f"{'abcdefgh'[i % 8]}{i} word{i}" for i in range(48)]
        >>> parts = split_real(RealSample("real", texts), seed=0)
        >>> len(parts.shown), len(parts.held_out)
        (24, 24)
    """
    groups = _indivisible(real)
    order = np.array(content_order([str(view) for view in real.views], seed))
    if n_units(len(real), groups) < 2:
        raise DataError(
            f"{real.where}: all {counted(len(real), 'example')} are copies of each other or in one "
            "group, so they cannot be split into a half to show and a half to hold out"
        )
    shown, held_out = halves(order, None if len(set(groups.tolist())) == len(real) else groups)
    n_effective = effective_size(groups[held_out])
    if n_effective < LEAST_REAL or len(shown) < _LEAST_SHOWN:
        raise DataError(
            f"{real.where}: of {counted(len(real), 'example')}, the held-out half has "
            f"{len(held_out):,}, which count as {n_effective:.0f} independent ones; below "
            f"{LEAST_REAL}, no difference is tested: collect about {2 * LEAST_REAL} "
            "independent real examples"
        )
    return RealHalves(_part(real, shown), _part(real, held_out), seed)


def _indivisible(real: RealSample) -> NDArray[np.int64]:
    """Return a number per example, equal where a chain of groups and duplicates connects them."""
    copies = real.duplicates.groups
    if real.groups is None:
        return copies
    n = int(real.groups.max()) + int(copies.max()) + 2
    ends = (real.groups, copies + int(real.groups.max()) + 1)
    links = coo_array((np.ones(len(real), dtype=np.int8), ends), shape=(n, n))
    component = connected_components(links, directed=False)[1]
    numbers: NDArray[np.int64] = component[real.groups].astype(np.int64)
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _part(real: RealSample, positions: NDArray[np.int64]) -> RealSample:
    chosen = np.sort(positions).tolist()
    half = Subset(cast("Dataset[object]", real.dataset), chosen)
    return dataclasses.replace(real, dataset=half, view=real.selector)
