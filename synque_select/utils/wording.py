"""Parts of sentences that several packages print."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

__all__ = ["UNDEFINED", "counted", "listed", "one_line", "percent", "places", "printable"]

# a figure that does not exist, in tables and lists
UNDEFINED = "-"


def listed(names: Sequence[str], most: int = 4, *, is_sentence: bool = False) -> str:
    """Join names for a sentence; of a long list, the first ones and how many more there are.

    Args:
        names: The names.
        most: Length of the longest list that is given in full.
        is_sentence: Whether "and" stands before the last name of a list that is given in full.

    Example:
        >>> listed(["a", "b", "c", "d"]), listed(["a", "b", "c", "d", "e", "f"])
        ('a, b, c, d', 'a, b and 4 more')
        >>> listed(["a", "b", "c"], is_sentence=True)
        'a, b and c'
    """
    if is_sentence and 1 < len(names) <= most:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])} and {len(names) - most + 2} more"


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular for 1.

    Args:
        n: The number.
        noun: The noun in the singular; an adjective may precede it.
        plural: Its plural; None for the noun and an "s".

    Example:
        >>> counted(1, "real example"), counted(1200, "pair"), counted(2, "class", "classes")
        ('1 real example', '1,200 pairs', '2 classes')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def percent(share: float, decimals: int = 0) -> str:
    """Return a share as a percentage, the way that all tables and sentences write it.

    Example:
        >>> percent(0.481), percent(0.0049, 1)
        ('48 %', '0.5 %')
    """
    return f"{100 * share:.{decimals}f} %"


def places(ranks: Sequence[float]) -> list[str]:
    """Return ranks as places, with "=" where several share one.

    Args:
        ranks: Ranks of all candidates, 1 is best; ties are averaged, NaN is undefined.

    Example:
        >>> places([1.5, 3.0, 1.5, float("nan")])
        ['1=', '3', '1=', '-']
    """
    order = sorted(rank for rank in ranks if not math.isnan(rank))
    shares = Counter(order)

    def place(rank: float) -> str:
        if math.isnan(rank):
            return UNDEFINED
        return f"{1 + bisect_left(order, rank)}{'=' * (shares[rank] > 1)}"

    return [place(rank) for rank in ranks]


def printable(text: str) -> str:
    r"""Escape what a terminal would execute or not show; line ends stay.

    Args:
        text: Text of a user's file or name.

    Example:
        >>> printable("\x1b[31mred")
        '\\x1b[31mred'
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def one_line(text: str, most: int = 400) -> str:
    r"""Put a text of another program on one line: no control characters, cut if it is long.

    Args:
        text: Any text, such as the error of a server.
        most: Maximum number of characters.

    Example:
        >>> one_line("Bad\n\tgateway\x1b[0m")
        'Bad gateway [0m'
        >>> one_line("a" * 9, most=4)
        'aaa…'
    """
    # escape sequences would be executed by a terminal, and half a surrogate pair cannot be printed
    spaced = "".join(c if c.isprintable() else " " for c in text[: 20 * most])
    line = " ".join(spaced.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
