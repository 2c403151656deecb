"""Parts of sentences that several packages print."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed"]


def listed(names: Sequence[str], most: int = 4) -> str:
    """Join names for a sentence; of a long list, the first ones and how many more there are.

    Args:
        names: The names.
        most: Length of the longest list that is given in full.

    Example:
        >>> listed(["a", "b", "c", "d"]), listed(["a", "b", "c", "d", "e", "f"])
        ('a, b, c, d', 'a, b and 4 more')
    """
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])} and {len(names) - most + 2} more"
