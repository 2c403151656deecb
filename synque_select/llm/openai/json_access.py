"""Reading the JSON answers of a server whose shape is not guaranteed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synque_select.utils.json_types import Json

__all__ = ["count_at", "integers", "value_at"]


def value_at(state: Json, *path: str | int) -> Json:
    """Follow names and positions into a JSON value.

    Raises:
        LookupError: A name or position is missing.
        TypeError: A value on the way is neither an object nor a list.

    Example:
        >>> value_at({"choices": [{"text": "yes"}]}, "choices", 0, "text")
        'yes'
    """
    for step in path:
        if isinstance(state, Mapping) and isinstance(step, str):
            state = state[step]
            continue
        if not (isinstance(state, list) and isinstance(step, int)):
            raise TypeError(f"expected a value with {step!r}, found {str(state)[:100]}")
        state = state[step]
    return state


def count_at(state: Json, *path: str) -> int:
    """Return the count at the end of a path; 0 if there is none.

    Example:
        >>> count_at({"usage": {"prompt_tokens": 7}}, "usage", "prompt_tokens")
        7
        >>> count_at({"usage": None}, "usage", "prompt_tokens")
        0
    """
    try:
        value = value_at(state, *path)
    except (LookupError, TypeError):
        return 0
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def integers(value: Json) -> list[int]:
    """Return a list of integers.

    Raises:
        TypeError: The value is not a list of integers.

    Example:
        >>> integers([1, 2])
        [1, 2]
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"expected a list of integers, found {str(value)[:100]}")
    numbers = [number for number in value if isinstance(number, int)]
    if len(numbers) < len(value):
        raise TypeError(f"expected a list of integers, found {str(value)[:100]}")
    return numbers
