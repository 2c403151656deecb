"""Folds for cross-fitting: stratified, and equal examples never apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign_folds", "stratified_folds"]


def assign_folds(
    groups: NDArray[np.int64],
    n_folds: int,
    *,
    seed: int,
    fixed: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Deal groups of equal examples to folds of nearly equal size.

    Args:
        groups: (N,) number of the group of each row: rows of a group stay together.
        n_folds: How many folds.
        seed: Of the order in which groups of one size are dealt.
        fixed: (number of groups,) fold of groups that have one already, −1 for the others.

    Returns:
        (N,) fold of each row.

    Example:
        >>> assign_folds(np.array([0, 1, 0, 2]), 2, seed=0).tolist()
        [0, 1, 0, 1]
    """
    sizes = np.bincount(groups)
    fold_of = np.full(len(sizes), -1) if fixed is None else fixed.copy()
    loads = np.bincount(fold_of[fold_of >= 0], sizes[fold_of >= 0], n_folds)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[(fold_of[order] < 0) & (sizes[order] > 0)]
    for group in order[sizes[order] > 1][
        np.argsort(-sizes[order][sizes[order] > 1], kind="stable")
    ]:
        fold_of[group] = int(loads.argmin())
        loads[fold_of[group]] += sizes[group]
    single = order[sizes[order] == 1]
    fold_of[single] = _fill_evenly(loads.astype(np.int64), len(single))
    return fold_of[groups]


def _fill_evenly(loads: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Folds of n single rows such that the loads end as even as they can."""
    target = np.sort(loads)
    wanted = np.zeros_like(loads)
    level = int(target[0])
    # raise the water until n rows fit under it
    low, high = level, int(target[-1]) + n + 1
    while low < high:
        level = (low + high) // 2
        if np.maximum(level - loads, 0).sum() >= n:
            high = level
        else:
            low = level + 1
    wanted = np.maximum(low - loads, 0)
    surplus = int(wanted.sum()) - n
    for fold in np.flatnonzero(wanted)[::-1][:surplus]:
        wanted[fold] -= 1
    return np.repeat(np.arange(len(loads)), wanted)


def stratified_folds(
    real_groups: NDArray[Any], synthetic_groups: NDArray[Any], n_folds: int, *, seed: int
) -> NDArray[np.int64] | None:
    """Folds of the real rows, then of the synthetic ones; a group shared by both is in one fold.

    The real rows' folds do not depend on the synthetic ones, apart from their number: unless all
    synthetic rows are copies of real rows of one fold, which would leave none to train on. Then
    those are dealt first. So each class has rows in at least 2 folds.

    Returns:
        (n + N,), or None where a class has fewer than 2 groups.

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
    fold_of[real_numbers] = real_folds = assign_folds(real_numbers, n_folds, seed=seed)
    if shared.all() and len(np.unique(fold_of[places])) < 2:
        dealt = np.full(len(real_kinds), -1)
        dealt[places] = np.arange(len(places)) % n_folds
        real_folds = assign_folds(real_numbers, n_folds, seed=seed, fixed=dealt)
        fold_of[real_numbers] = real_folds
    fixed = np.where(shared, fold_of[places], -1)
    synthetic_folds = assign_folds(numbers, n_folds, seed=seed + 1, fixed=fixed)
    return np.concatenate((real_folds, synthetic_folds))
