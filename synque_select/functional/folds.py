"""Folds for cross-fitting: stratified by class, with equal examples in the same fold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["assign_folds", "joined_contents", "stratified_folds"]

_Groups = NDArray[np.int64] | NDArray[np.uint64]


def joined_contents(
    contents: NDArray[np.uint64], groups: NDArray[np.int64] | None
) -> NDArray[np.uint64]:
    """Return one content for all real rows that must share a fold: of a group, or equal.

    Args:
        contents: (n,) content number of each real row; equal rows have equal numbers.
        groups: (n,) int64 group of each real row, from 0 on; None to return the contents.

    Returns:
        (n,) uint64, each the content of a row of the same component.

    Example:
        >>> contents = np.array([7, 8, 9, 9], dtype=np.uint64)
        >>> joined_contents(contents, np.array([0, 0, 1, 2])).tolist()
        [7, 7, 9, 9]
    """
    if groups is None:
        return contents
    kinds, numbers = np.unique(contents, return_inverse=True)
    # rows are edges between their content and their group: a copy of a row in another group ties
    # the two groups together
    edges = (np.ones(len(contents), dtype=np.int8), (numbers, len(kinds) + groups))
    size = len(kinds) + int(groups.max()) + 1
    component = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
    _, first = np.unique(component[: len(kinds)], return_index=True)
    place = np.searchsorted(component[: len(kinds)][first], component[numbers])
    joined: NDArray[np.uint64] = kinds[first[place]]
    return joined


def assign_folds(
    groups: NDArray[np.int64],
    n_folds: int,
    *,
    seed: int,
    fixed: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Assign groups of equal examples to folds of nearly equal size.

    Args:
        groups: (N,) int64 group number of each row; the rows of a group share a fold.
        n_folds: Number of folds.
        seed: Random seed for the order in which groups of equal size are assigned.
        fixed: (number of groups,) int64 fold of groups that are assigned already, −1 for the
            others; None if no group is.

    Returns:
        (N,) int64 fold of each row, 0 to n_folds − 1.

    Example:
        >>> assign_folds(np.array([0, 1, 0, 2]), 2, seed=0).tolist()
        [0, 1, 0, 1]
    """
    sizes = np.bincount(groups)
    fold_of = np.full(len(sizes), -1) if fixed is None else fixed.copy()
    loads = np.bincount(fold_of[fold_of >= 0], sizes[fold_of >= 0], n_folds)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[(fold_of[order] < 0) & (sizes[order] > 0)]
    # the largest groups first, each into the emptiest fold: assigned last, a large group could no
    # longer be balanced (the greedy rule of Graham 1969 for multiprocessor scheduling)
    for group in order[sizes[order] > 1][
        np.argsort(-sizes[order][sizes[order] > 1], kind="stable")
    ]:
        fold_of[group] = int(loads.argmin())
        loads[fold_of[group]] += sizes[group]
    # groups of one row, nearly all of them in embeddings, need no search: a loop over 10⁵ of them
    # would take longer than the fit
    single = order[sizes[order] == 1]
    fold_of[single] = _fill_evenly(loads.astype(np.int64), len(single))
    return fold_of[groups]


def _fill_evenly(loads: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Folds of n single rows that leave the loads as even as possible."""
    target = np.sort(loads)
    wanted = np.zeros_like(loads)
    level = int(target[0])
    # water-filling: find the lowest level at which n rows fit into the folds below it
    low, high = level, int(target[-1]) + n + 1
    while low < high:
        level = (low + high) // 2
        if np.maximum(level - loads, 0).sum() >= n:
            high = level
        else:
            low = level + 1
    wanted = np.maximum(low - loads, 0)
    # the level is a whole number, so up to n_folds − 1 places too many may be free at it
    surplus = int(wanted.sum()) - n
    for fold in np.flatnonzero(wanted)[::-1][:surplus]:
        wanted[fold] -= 1
    return np.repeat(np.arange(len(loads)), wanted)


def stratified_folds(
    real_groups: _Groups, synthetic_groups: _Groups, n_folds: int, *, seed: int
) -> NDArray[np.int64] | None:
    """Return folds that are balanced within each class and keep equal rows together.

    Equal rows share a fold, also across the classes: a copy in the training part would reveal the
    class of the row held out. Each class has rows in at least 2 folds.

    Args:
        real_groups: (n,) group of each real row; equal rows have equal groups.
        synthetic_groups: (N,) group of each synthetic row, numbered together with the real ones.
        n_folds: Number of folds, at most; never more than the groups of a class.
        seed: Random seed for the assignment.

    Returns:
        (n + N,) int64 folds, the real rows first; None if a class has fewer than 2 groups.

    Example:
        >>> real, copies = np.arange(6), np.array([3, 5])
        >>> [len(set(stratified_folds(real, copies, 5, seed=s)[6:])) for s in range(4)]
        [2, 2, 2, 2]
    """
    real_kinds, real_numbers = np.unique(real_groups, return_inverse=True)
    kinds, numbers = np.unique(synthetic_groups, return_inverse=True)
    n_folds = min(n_folds, len(real_kinds), len(kinds))
    if n_folds < 2:
        return None
    places = np.searchsorted(real_kinds, kinds).clip(max=len(real_kinds) - 1)
    shared = real_kinds[places] == kinds
    fold_of = np.zeros(len(real_kinds), dtype=np.int64)
    # the real rows first, from the seed and the number of folds alone: their folds are then the
    # same for every candidate, and candidates do not differ by the luck of a split
    fold_of[real_numbers] = real_folds = assign_folds(real_numbers, n_folds, seed=seed)
    # the exception: if all synthetic rows copy real rows of a single fold, holding it out leaves
    # none to train on, and these groups are spread over the folds first
    if shared.all() and len(np.unique(fold_of[places])) < 2:
        spread = np.full(len(real_kinds), -1)
        spread[places] = np.arange(len(places)) % n_folds
        real_folds = assign_folds(real_numbers, n_folds, seed=seed, fixed=spread)
        fold_of[real_numbers] = real_folds
    fixed = np.where(shared, fold_of[places], -1)
    synthetic_folds = assign_folds(numbers, n_folds, seed=seed + 1, fixed=fixed)
    return np.concatenate((real_folds, synthetic_folds))
