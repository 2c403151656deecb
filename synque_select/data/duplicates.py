"""What is said of a real sample that is small or repeats itself, and of candidates that do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples

__all__ = ["content_numbers", "n_distinct", "sample_messages"]

_FEW_REAL = 20
_MOSTLY_REPEATED = 0.5


def content_numbers(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a number for each example's content, (n,) uint64: equal where the views are equal.

    Args:
        digests: SHA-256 of each view, (n, 32); the first 8 bytes are taken, of which two of a
            million different views share one with a probability of 3e-8.
    """
    return np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()


def n_distinct(digests: NDArray[np.uint8]) -> int:
    """Return how many different views there are.

    Example:
        >>> n_distinct(Examples("a", ["Yes.", "No.", "Yes."]).digests)
        2
    """
    return len(np.unique(content_numbers(digests)))


def sample_messages(candidates: Sequence[Examples], real: Examples) -> tuple[str, ...]:
    """Say in plain sentences where there is too little, or too much of the same.

    Example:
        >>> real = Examples("real", [f"Which app is number {i}?" for i in range(20)])
        >>> sample_messages([Examples("a", ["Yes."] * 9 + ["No."])], real)
        ('a: only 2 of its 10 examples are distinct.',)
    """
    said = []
    distinct = n_distinct(real.digests)
    if distinct < len(real):
        said.append(
            f"Only {distinct:,} of the {len(real):,} real examples are distinct: a copy counts as "
            "an example of its own, so intervals are too narrow. Leave copies out, unless real "
            "data repeats like that."
        )
    if distinct < _FEW_REAL:
        said.append(
            f"{distinct} distinct real examples are few: intervals were tested from 30 on, and the "
            "choice may be another with the next ones. Give more if you can."
        )
    for candidate in candidates:
        found = n_distinct(candidate.digests)
        if found < _MOSTLY_REPEATED * len(candidate):
            said.append(
                f"{candidate.name}: only {found:,} of its {len(candidate):,} examples are distinct."
            )
    return tuple(said)
