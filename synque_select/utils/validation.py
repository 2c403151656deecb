"""Checks of arguments and files that several public edges share."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from synque_select.errors import ConfigError

__all__ = ["check_int", "is_number", "kind_of"]


def check_int(name: str, value: Any, least: int) -> int:
    """Return an argument as an int if it is a whole number from `least` to 2⁶³ − 1.

    Raises:
        ConfigError: It is not, or of another type (a bool, a float, a text).

    Example:
        >>> check_int("top_k", 3, 1)
        3
        >>> check_int("top_k", "3", 1)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: top_k='3': allowed is a whole number from 1
    """
    # torch takes no seed of 2⁶³ or above, and no data set has that many examples
    whole = int(value) if not isinstance(value, bool) and isinstance(value, Integral) else None
    if whole is None or not least <= whole < 2**63:
        raise ConfigError(f"{name}={value!r}: allowed is a whole number from {least}")
    return whole


def is_number(value: Any) -> bool:
    """Return whether an argument is a number that a float can hold, which a bool is not.

    NaN and infinities are, and whole numbers of 400 digits are not.

    Example:
        >>> is_number(0.5), is_number(True), is_number("0.5")
        (True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def kind_of(value: Any) -> str:
    """Say in words what a JSON value is.

    Example:
        >>> kind_of([1]), kind_of(None)
        ('a list', 'null')
    """
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return names.get(type(value), "a number")
