"""Messages about a real sample: its groups, near duplicates in it, and too few examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import RealSample
from synque_select.data.contamination import shown_example
from synque_select.data.duplicates import n_distinct
from synque_select.selection.uncertainty import effective_size, n_units
from synque_select.utils.wording import counted

__all__ = ["real_messages"]

_FEW = 20
_OVERRIDE = (
    "Give real_groups= (--real-groups) the field that says which examples belong together (thread, "
    "author, session, page), or false if they were drawn independently of each other."
)


def real_messages(real: RealSample) -> tuple[str, ...]:
    """Report in plain sentences copies and near duplicates in the real sample, and a small one.

    Args:
        real: The real sample; reported are groups that were found in it, duplicates that given
            groups do not unite, and fewer than 20 groups, or distinct examples without groups.

    Example:
        >>> texts = [f"Which app is number {i}?" for i in range(24)]
        >>> real_messages(RealSample("real", texts))
        ()
        >>> print(*real_messages(RealSample("real", [*texts, "which app is number 3"])))
        2 of the 25 real examples have a copy or near copy among them, such as 'Which app is number
        3?' and 'which app is number 3'. Such examples are grouped: 24 groups, effective n 23.1.
        Intervals and comparisons count groups, not examples. Give real_groups= (--real-groups) the
        field that says which examples belong together (thread, author, session, page), or false if
        they were drawn independently of each other.
    """
    groups = real.groups
    if real.group_by is None:
        messages = _detected(real, groups)
    elif real.group_by is False:
        messages = _uncounted(real)
    else:
        messages = _across(real, np.arange(len(real)) if groups is None else groups)
    return messages + _few(real, groups)


def _detected(real: RealSample, groups: NDArray[np.int64] | None) -> tuple[str, ...]:
    pair = real.duplicates.pair
    if groups is None or pair is None:
        return ()
    n_units_ = n_units(len(real), groups)
    if n_units_ == 1:
        return (
            f"All {counted(len(real), 'real example')} are copies or near copies of each other, "
            f"such as {_shown(real, pair)}: no interval and no comparison can be computed. "
            f"{_OVERRIDE}",
        )
    n_copies = int((np.bincount(groups)[groups] > 1).sum())
    of_all = f"{n_copies:,} of the {counted(len(real), 'real example')} have"
    if n_copies == len(real):
        of_all = f"Each of the {counted(n_copies, 'real example')} has"
    return (
        f"{of_all} a copy or near copy among them, such as {_shown(real, pair)}. Such examples are "
        f"grouped: {counted(n_units_, 'group')}, effective n {effective_size(groups):,.1f}. "
        f"Intervals and comparisons count groups, not examples. {_OVERRIDE}",
    )


def _uncounted(real: RealSample) -> tuple[str, ...]:
    distinct = n_distinct(real.digests)
    if distinct == len(real):
        return ()
    return (
        f"Only {distinct:,} of the {counted(len(real), 'real example')} are distinct, and with "
        "real_groups=false a copy counts as a separate example: intervals are too narrow, unless "
        "real data repeats like that.",
    )


def _across(real: RealSample, groups: NDArray[np.int64]) -> tuple[str, ...]:
    """Report duplicates that are in different groups."""
    copies = real.duplicates.groups
    # of each set of duplicates, the group of its first example; others differ from it
    first = np.unique(copies, return_index=True)[1][copies]
    apart = np.flatnonzero(groups != groups[first])
    if not len(apart):
        return ()
    n_examples = int(np.isin(copies, copies[apart]).sum())
    pair = (int(first[apart[0]]), int(apart[0]))
    return (
        f"{n_examples:,} of the {counted(len(real), 'real example')} have a copy or near copy in "
        f"another group of {_name(real)}, such as {_shown(real, pair)}: if such groups depend on "
        "each other, intervals are too narrow. Give a field that unites them.",
    )


def _few(real: RealSample, groups: NDArray[np.int64] | None) -> tuple[str, ...]:
    n = n_distinct(real.digests) if groups is None else n_units(len(real), groups)
    if n >= _FEW:
        return ()
    if groups is None:
        these = counted(n, "distinct real example")
    else:
        these = counted(n, "group of real examples", "groups of real examples")
    return (
        f"{these} {'is' if n == 1 else 'are'} few: intervals were tested with 20 or more, and "
        "another sample may lead to another choice. Give more if you can.",
    )


def _name(real: RealSample) -> str:
    return getattr(real.group_by, "__name__", None) or repr(real.group_by)


def _shown(real: RealSample, pair: tuple[int, int]) -> str:
    first, second = (shown_example(real, position) for position in pair)
    return f"{first} (more than once)" if first == second else f"{first} and {second}"
