"""Normalized forms of Unicode, in time that grows with the length of any text."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from typing import Literal

__all__ = ["normalized"]

# Unicode's stream-safe text has no more marks in a row (Standard Annex 15)
_MOST_MARKS = 30


def normalized(text: str, form: Literal["NFC", "NFKC", "NFKD"] = "NFC") -> str:
    r"""Return the normalized form of a text, as `unicodedata.normalize` does.

    That sorts the marks of a character in time that grows with the square of their number, and a
    language model in a loop writes 100,000 of them. Of a run of more than 30 marks, which occurs in
    no language, each 30 are therefore normalized by themselves.

    Args:
        text: Any text.
        form: The form.

    Example:
        >>> normalized("pho\u031b\u0309") == "ph\u1edf"
        True
    """
    if text.isascii():
        return text
    parts, start = [], 0
    for run in _long_runs().finditer(text):
        for end in range(run.start() + _MOST_MARKS, run.end(), _MOST_MARKS):
            parts.append(text[start:end])
            start = end
    return "".join(unicodedata.normalize(form, part) for part in (*parts, text[start:]))


@functools.cache
def _long_runs() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(sys.maxunicode)) if unicodedata.combining(c))
    return re.compile(f"[{marks}]{{{_MOST_MARKS + 1},}}")
