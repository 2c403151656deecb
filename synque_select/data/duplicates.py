"""Exact duplicates within a dataset, and messages about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from synque_select.data.examples import Examples
from synque_select.utils.wording import counted, listed

__all__ = ["content_key", "content_numbers", "copy_groups", "n_distinct", "sample_messages"]

_MOSTLY_REPEATED = 0.5
_MOSTLY_SHARED = 0.5
_MOST_KNOWN = 8
_known_groups: dict[bytes, NDArray[np.int64]] = {}


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


def copy_groups(digests: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Number datasets, the same for copies and near copies of each other.

    Two datasets are near copies if more than half of the distinct views of the smaller one are also
    in the other, in any order and number; views that differ in one character are different. So a
    dataset and a part of it are near copies. Datasets share a number if a chain of such pairs leads
    from one to the other.

    Args:
        digests: SHA-256 of each view of each of K datasets, (n, 32) uint8.

    Returns:
        (K,) int64, from 0 on in the order of first occurrence.

    Example:
        >>> sets = [Examples(views, list(views)) for views in ("xy", "zw", "yx")]
        >>> copy_groups([part.digests for part in sets]).tolist()
        [0, 1, 0]
    """
    # several stages of a ranking ask for the groups of the same datasets
    key = b"".join(hashlib.sha256(np.ascontiguousarray(part).data).digest() for part in digests)
    if key not in _known_groups:
        if len(_known_groups) >= _MOST_KNOWN:
            _known_groups.clear()
        _known_groups[key] = _copy_groups(digests)
    return _known_groups[key].copy()


def _copy_groups(digests: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    views = [_distinct(part) for part in digests]
    # of datasets with the same views, one is compared with the others
    known: dict[bytes, int] = {}
    of = np.array([known.setdefault(part.tobytes(), len(known)) for part in views])
    views = [np.frombuffer(part, dtype=np.uint64) for part in known]
    sizes = np.array([len(part) for part in views])
    owners = np.repeat(np.arange(len(views)), sizes)
    columns = np.unique(np.concatenate(views), return_inverse=True)[1]
    contains = csr_array((np.ones(len(columns), dtype=np.int64), (owners, columns)))
    # only the pairs that share a view: nearly all pairs of different datasets do not
    shared = (contains @ contains.T).tocoo()
    a, b = shared.coords
    is_copy = shared.data > _MOSTLY_SHARED * np.minimum(sizes[a], sizes[b])
    copies = coo_array((is_copy[is_copy], (a[is_copy], b[is_copy])), shape=shared.shape)
    numbers = connected_components(copies, directed=False)[1].astype(np.int64)
    of_all: NDArray[np.int64] = numbers[of]
    return of_all


def n_distinct(digests: NDArray[np.uint8]) -> int:
    """Return the number of distinct views.

    Args:
        digests: SHA-256 of each view, (n, 32) uint8.

    Example:
        >>> n_distinct(Examples("a", ["Yes.", "No.", "Yes."]).digests)
        2
    """
    return len(_distinct(digests))


def _distinct(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the sorted distinct content numbers."""
    # `np.unique` hashes: of a million numbers, sorting takes a tenth of the time
    numbers = np.sort(content_numbers(digests))
    distinct: NDArray[np.uint64] = numbers[np.concatenate([[True], numbers[1:] != numbers[:-1]])]
    return distinct


def sample_messages(candidates: Sequence[Examples]) -> tuple[str, ...]:
    """Report in plain sentences the datasets with many duplicates, and copies of each other.

    Args:
        candidates: The candidates; one is reported if fewer than half of its examples are distinct,
            or if it is a copy or near copy of another one, as `copy_groups` defines it.

    Example:
        >>> sample_messages([Examples("a", ["Yes."] * 9 + ["No."]), Examples("b", ["Soon."] * 3)])
        ('a: only 2 of its 10 examples are distinct.', 'b: only 1 of its 3 examples is distinct.')
    """
    messages = _copies(candidates)
    for candidate in candidates:
        n_different = n_distinct(candidate.digests)
        if n_different < _MOSTLY_REPEATED * len(candidate):
            verb = "is" if n_different == 1 else "are"
            messages.append(
                f"{candidate.name}: only {n_different:,} of its "
                f"{counted(len(candidate), 'example')} {verb} distinct."
            )
    return tuple(messages)


def _copies(candidates: Sequence[Examples]) -> list[str]:
    """Return a sentence on the candidates with the same inputs, and on those that share most."""
    numbers = copy_groups([candidate.digests for candidate in candidates])
    keys = [content_key(candidate.digests) for candidate in candidates]
    exact: list[str] = []
    near: list[str] = []
    groups: dict[int, list[int]] = {}
    for i, number in enumerate(numbers.tolist()):
        groups.setdefault(number, []).append(i)
    for members in groups.values():
        if len(members) > 1:
            of = exact if len({keys[i] for i in members}) == 1 else near
            of.append(listed([candidates[i].name for i in members]))
    one_family = (
        "They count as one family, so that they do not judge each other's labels, and each of them "
        "counts in a mixture. Leave in one, unless their labels differ."
    )
    messages = []
    if exact:
        messages.append(
            f"Copies of each other: {'; '.join(exact)}. They have the same inputs, and proxies "
            f"that read only inputs score them alike. {one_family}"
        )
    if near:
        messages.append(
            f"Near copies of each other: {'; '.join(near)}. They share more than half of the "
            f"inputs of the smaller one. {one_family}"
        )
    return messages
