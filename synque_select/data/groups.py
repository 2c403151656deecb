"""Groups of real examples that do not vary independently, such as the posts of one thread."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples, error_reason, selected_values
from synque_select.data.selectors import find_selector
from synque_select.data.views import Selector, describe, select
from synque_select.errors import ConfigError, DataError, DependencyError
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted

__all__ = [
    "GroupSelector",
    "check_group_selector",
    "given_groups",
    "number_groups",
    "one_per_group",
]

# bool only for False, which says that all examples are independent. It comes first, because a
# parser of configs takes the first type that fits
GroupSelector: TypeAlias = bool | Selector


def check_group_selector(examples: Examples, selector: GroupSelector) -> GroupSelector:
    """Return the selector of the groups, checked on the first example.

    A dotted name is replaced by the function that it names.

    Args:
        examples: The real sample.
        selector: A field name, a position, a function of an example, or False for no groups.

    Raises:
        ConfigError: The selector has the wrong type, or selects the view or the label.
        DataError: The first example has no such field or position.
    """
    where = f"real_groups={selector!r}"
    if selector is False:
        return selector
    if isinstance(selector, bool) or not (callable(selector) or isinstance(selector, str | int)):
        raise ConfigError(
            f"{where}: allowed are a field name, a position, a function of an example, and false "
            "(all examples are independent)"
        )
    first = examples.readable[0]
    try:
        resolved = find_selector(first, selector)
        select(first, resolved)
    except DependencyError:
        raise
    except Exception as error:
        raise DataError(
            f"{examples.where}: {where}: the first example: {error_reason(error)}"
        ) from error
    if resolved == examples.selector:
        raise ConfigError(
            f"{where} is the view itself: give the field that examples of one group share, such as "
            "a thread, author, session or page; copies of a text or an image are found without it"
        )
    if resolved == examples.label:
        raise label_error(selector)
    return resolved


def label_error(selector: Selector) -> ConfigError:
    """Return the error for groups that are the labels."""
    # a class is not a group of dependent examples, and reading it would break the promise on which
    # every figure rests: that no label of the real sample is read before the test
    return ConfigError(
        f"real_groups={selector!r} is the field of the labels: labels of the real sample are never "
        "read, and examples of one class need not depend on each other. Give the field of a "
        "thread, author, session or page"
    )


def given_groups(examples: Examples, selector: Selector) -> NDArray[np.int64]:
    """Return the group number of each example, from a field or a function.

    Args:
        examples: The real sample.
        selector: Gives a value per example; examples with equal values are one group. An example
            whose value is None or NaN is a group of its own.

    Returns:
        (n,) int64, 0 to G − 1, in the order of first occurrence.

    Raises:
        DataError: An example has no such field, or its value cannot name a group.
        ConfigError: All examples are in one group.

    Example:
        >>> posts = [{"text": t, "thread": g} for t, g in (("x", 7), ("y", 8), ("z", 7))]
        >>> given_groups(Examples("real", posts, view="text"), "thread").tolist()
        [0, 1, 0]
    """
    numbers = number_groups(selected_values(examples, selector, "real_groups", _key))
    if numbers.max() == 0:
        raise ConfigError(
            f"real_groups={selector!r}: all {counted(len(examples), 'example')} of "
            f"{examples.where} are in one group, so nothing is known of how groups differ; give a "
            "field with at least 2 "
            "values, or false if the examples are independent"
        )
    return numbers


def number_groups(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    """Number equal keys from 0 on, in the order of first occurrence.

    Example:
        >>> number_groups(["b", "a", "b"]).tolist()
        [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _key(value: object, position: int) -> Hashable:
    """Return what the examples of a group have in common."""
    if math.prod(getattr(value, "shape", (0,))) == 1:
        # a tensor is hashed by its identity: equal numbers would be different groups
        value = value.item()  # type: ignore[attr-defined]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        # unknown is not equal to unknown: all of them in one group would be made up
        return (_key, position)
    if isinstance(value, str):
        return normalized(value)
    # an object without a value of its own is hashed by its identity, too
    is_named = type(value).__hash__ not in (None, object.__hash__) and not hasattr(value, "shape")
    if is_named and _is_hashable(value):
        return value
    raise DataError(
        f"found {describe(value)}, which cannot name a group; allowed are texts, numbers and "
        "tuples of them: give a function that returns one"
    )


def _is_hashable(value: object) -> bool:
    try:
        hash(value)  # a tuple may hold a list
    except TypeError:
        return False
    return True


def one_per_group(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the position of a random example of each group, (number of groups,), sorted.

    Args:
        groups: Group of each example, (n,), numbered from 0.
        seed: Random seed.

    Example:
        >>> one_per_group(np.array([0, 1, 2]), 0).tolist()
        [0, 1, 2]
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    chosen: NDArray[np.int64] = np.sort(order[first])
    return chosen
