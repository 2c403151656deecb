"""CSV that a spreadsheet opens without running a part of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable

__all__ = ["csv_text"]


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


def _cell(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if isinstance(value, float) and not math.isfinite(value) else value
