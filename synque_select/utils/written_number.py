"""Numbers of text files that keep the text they were written as."""

from __future__ import annotations

__all__ = ["WrittenNumber"]


class WrittenNumber(float):
    """A number whose text is the one in the file, such as 3.50 or 1e3.

    It calculates, compares and hashes as its float does.

    Args:
        text: The number as it was written.

    Example:
        >>> price = WrittenNumber("3.50")
        >>> f"{price} × 2 = {price * 2}", price == 3.5
        ('3.50 × 2 = 7.0', True)
    """

    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        """Read a number."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __repr__(self) -> str:
        return self.text
