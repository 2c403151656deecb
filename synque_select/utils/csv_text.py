"""CSV that a spreadsheet opens without running a part of it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable

__all__ = ["csv_text", "guarded", "unguarded"]

# what a spreadsheet runs as a formula if a cell begins with it, also in full width; apostrophes
# before it may be ours
_FORMULA = re.compile("'*[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as CSV; undefined numbers are empty.

    Args:
        rows: The cells of each row. A text that a spreadsheet would run as a formula, such as
            "=1+1", is written with an apostrophe before it.

    Example:
        >>> csv_text([["name", "score"], ["=cmd()", 0.5], ["b", float("nan")]])
        "name,score\r\n'=cmd(),0.5\r\nb,\r\n"
    """
    text = io.StringIO()
    csv.writer(text).writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def guarded(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs as a formula; `unguarded` restores it.

    Example:
        >>> guarded("=1+1"), guarded("1+1"), guarded("'=1")
        ("'=1+1", '1+1', "''=1")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """Return the text of a cell that `guarded` made.

    Example:
        >>> unguarded("'=1+1"), unguarded("'tis"), unguarded("=1")
        ('=1+1', "'tis", '=1')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _cell(value: object) -> object:
    if isinstance(value, str):
        return guarded(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value
