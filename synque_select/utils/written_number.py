"""Numbers of text files that keep the text they were written as."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["WrittenNumber", "replace_written"]


class WrittenNumber(float):
    """A number whose text is the one in the file, such as 3.50 or 1e3.

    It calculates, compares and hashes as its float does.

    Args:
        text: The number as it was written; of another number, the text that `str` gives.

    Example:
        >>> price = WrittenNumber("3.50")
        >>> f"{price} × 2 = {price * 2}", price == 3.5
        ('3.50 × 2 = 7.0', True)
    """

    text: str

    def __new__(cls, text: str | float) -> WrittenNumber:
        """Read a number."""
        number = super().__new__(cls, text)
        number.text = str(text)  # float's methods give numbers, as in type(price)(2.0)
        return number

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __repr__(self) -> str:
        return self.text


def replace_written(value: object, by: Callable[[WrittenNumber], object]) -> object:
    """Return a value of JSON with another value for each `WrittenNumber` in it.

    Args:
        value: A value, a mapping, or a list or tuple, nested as JSON is.
        by: Function that returns what replaces a number.

    Example:
        >>> replace_written({"prices": [WrittenNumber("3.50"), 4]}, str)
        {'prices': ['3.50', 4]}
    """
    if isinstance(value, WrittenNumber):
        return by(value)
    if isinstance(value, Mapping):
        return {key: replace_written(part, by) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [replace_written(part, by) for part in value]
    return value
