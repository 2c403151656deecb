"""What is said of a real sample that is small or repeats itself, and of candidates that do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synque_select.types import Examples

__all__ = ["n_distinct", "sample_messages"]

_FEW_REAL = 20
_MOSTLY_REPEATED = 0.5


def n_distinct(examples: Examples) -> int:
    """Return how many different views there are, by the first 8 bytes of their hashes.

    Example:
        >>> n_distinct(Examples("a", ["Yes.", "No.", "Yes."]))
        2
    """
    # 2⁶⁴ values: two of a million views share one with a probability of 3e-8
    return len(np.unique(np.ascontiguousarray(examples.digests[:, :8]).view(np.uint64)))


def sample_messages(candidates: Sequence[Examples], real: Examples) -> tuple[str, ...]:
    """Say in plain sentences where there is too little, or too much of the same.

    Example:
        >>> real = Examples("real", [f"Which app is number {i}?" for i in range(20)])
        >>> sample_messages([Examples("a", ["Yes."] * 9 + ["No."])], real)
        ('a: only 2 of its 10 examples are distinct.',)
    """
    said = []
    distinct = n_distinct(real)
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
        found = n_distinct(candidate)
        if found < _MOSTLY_REPEATED * len(candidate):
            said.append(
                f"{candidate.name}: only {found:,} of its {len(candidate):,} examples are distinct."
            )
    return tuple(said)
