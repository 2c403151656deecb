"""Candidates that have too few different examples to be compared with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.data.duplicates import n_distinct
from synque_select.utils.wording import counted

__all__ = ["Degenerate", "split_degenerate"]

# the domain classifier is tested in five folds, and needs an example in each
_LEAST_DISTINCT = 5
_MUCH_FEWER = 10


@dataclass(frozen=True)
class Degenerate:
    """A candidate that is not scored.

    Args:
        candidate: The candidate.
        reason: Why, as a part of a sentence.
    """

    candidate: Candidate
    reason: str


def split_degenerate(
    candidates: Sequence[Candidate],
) -> tuple[list[Candidate], tuple[Degenerate, ...]]:
    """Set aside the candidates that would change how the others are compared.

    All candidates are scored at the size of the smallest, a proxy that is undefined for one
    candidate leaves the consensus of all, and each candidate judges the labels of the others. So a
    candidate with one distinct example is set aside, and one with fewer than 5 if the median
    candidate has at least 10 times as many.

    Args:
        candidates: The candidates.

    Returns:
        The candidates that are compared, and those that are not. If none would be left, all are
        compared.

    Example:
        >>> same, a, b = (Candidate(n, list(t)) for n, t in (("s", "xx"), ("a", "xy"), ("b", "zw")))
        >>> kept, aside = split_degenerate([same, a, b])
        >>> [part.name for part in kept], aside[0].reason
        (['a', 'b'], 'only 1 of its 2 examples is distinct')
    """
    counts = [n_distinct(candidate.digests) for candidate in candidates]
    median = float(np.median(counts))
    is_degenerate = [n < 2 or (n < _LEAST_DISTINCT and median >= _MUCH_FEWER * n) for n in counts]
    if all(is_degenerate):
        return list(candidates), ()
    kept, aside = [], []
    for candidate, n, is_one in zip(candidates, counts, is_degenerate, strict=True):
        if is_one:
            aside.append(Degenerate(candidate, _reason(n, len(candidate))))
        else:
            kept.append(candidate)
    return kept, tuple(aside)


def _reason(n_different: int, n: int) -> str:
    if n_different == n:
        return f"it has only {counted(n, 'example')}"
    verb = "is" if n_different == 1 else "are"
    return f"only {n_different} of its {counted(n, 'example')} {verb} distinct"
