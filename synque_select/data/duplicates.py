"""Exact duplicates within a dataset, and messages about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.utils.wording import counted, listed

__all__ = ["content_key", "content_numbers", "n_distinct", "sample_messages"]

_MOSTLY_REPEATED = 0.5


def content_numbers(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a number for the content of each example; equal views have equal numbers.

    Args:
        digests: SHA-256 of each view, (n, 32) uint8. Only the first 8 bytes are used: among a
            million different views, two share a number with a probability of 3e-8.

    Returns:
        (n,) uint64.
    """
    return np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()


def content_key(digests: NDArray[np.uint8]) -> bytes:
    """Return what is equal for datasets with the same views, in any order.

    Args:
        digests: SHA-256 of each view, (n, 32) uint8.

    Example:
        >>> a, b = Examples("a", ["Yes.", "No."]), Examples("b", ["No.", "Yes."])
        >>> content_key(a.digests) == content_key(b.digests)
        True
    """
    return hashlib.sha256(np.sort(content_numbers(digests)).tobytes()).digest()


def n_distinct(digests: NDArray[np.uint8]) -> int:
    """Return the number of distinct views.

    Args:
        digests: SHA-256 of each view, (n, 32) uint8.

    Example:
        >>> n_distinct(Examples("a", ["Yes.", "No.", "Yes."]).digests)
        2
    """
    return len(np.unique(content_numbers(digests)))


def sample_messages(candidates: Sequence[Examples]) -> tuple[str, ...]:
    """Report in plain sentences the datasets with many duplicates, and copies of each other.

    Args:
        candidates: The candidates; one is reported if fewer than half of its examples are distinct,
            or if another one has the same examples, in any order.

    Example:
        >>> sample_messages([Examples("a", ["Yes."] * 9 + ["No."])])
        ('a: only 2 of its 10 examples are distinct.',)
    """
    messages = _copies(candidates)
    for candidate in candidates:
        n_different = n_distinct(candidate.digests)
        if n_different < _MOSTLY_REPEATED * len(candidate):
            messages.append(
                f"{candidate.name}: only {n_different:,} of its "
                f"{counted(len(candidate), 'example')} are distinct."
            )
    return tuple(messages)


def _copies(candidates: Sequence[Examples]) -> list[str]:
    """Return a sentence on the candidates with the same inputs, if there are any."""
    sets: dict[bytes, list[str]] = {}
    for candidate in candidates:
        sets.setdefault(content_key(candidate.digests), []).append(candidate.name)
    copies = [listed(names) for names in sets.values() if len(names) > 1]
    if not copies:
        return []
    return [
        f"Copies of each other: {'; '.join(copies)}. They have the same inputs, so that proxies "
        "that read only inputs score them alike, and each of them counts in a mixture. With the "
        "same labels, their transfer and agreement are too high, as they judge each other. Leave "
        "out all but one, unless their labels differ."
    ]
