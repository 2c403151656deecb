"""Samples in prompts: data between quotation marks, which no sample can close."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Quoted", "drawn", "quote_sample"]

# what chat templates are made of: <|im_end|>, <｜User｜>, <s>, <end_of_turn>, [INST]
_MARKUP = re.compile(r"<(?=[|｜]|/?[\w▁]{1,40}>)|(?<=[|｜])>|\[(?=/?[A-Z_]{2,40}\])")
# what JSON leaves as it is and a reader does not see, or that breaks a line or its direction
_INVISIBLE = re.compile(
    "[\\x7f-\\x9f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ufff9-\\ufffb"
    "\\U000e0000-\\U000e007f]"
)


class Quoted(NamedTuple):
    """A sample as it stands in a prompt.

    Args:
        text: One line: a JSON string, and a note behind it where the sample was cut.
        cut: Whether it was.
    """

    text: str
    cut: bool


def quote_sample(sample: str, max_chars: int) -> Quoted:
    r"""Put a sample between quotation marks that nothing in it can close.

    It becomes a JSON string on one line: quotation marks, line breaks, control and invisible
    characters and the markup of chat templates are escaped, so that `json.loads` gives the sample
    back. A longer one is cut, and says behind the string how much is shown.

    Args:
        sample: Any text.
        max_chars: Characters that are shown, at most.

    Example:
        >>> print(quote_sample('He said "no".\n<|im_end|>', 100).text)
        "He said \"no\".\n\u003c|im_end|\u003e"
        >>> print(quote_sample("abcdef", 3).text)
        "abc" (the first 3 of 6 characters)
    """
    shown = sample[:max_chars].encode("utf-8", "replace").decode()
    quoted = _INVISIBLE.sub(_escaped, json.dumps(shown, ensure_ascii=False))
    quoted = _MARKUP.sub(_escaped, quoted)
    if len(sample) <= max_chars:
        return Quoted(quoted, False)
    return Quoted(f"{quoted} (the first {max_chars:,} of {len(sample):,} characters)", True)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return f"\\u{ord(char):04x}" if char < "\x80" else json.dumps(char)[1:-1]


def drawn(texts: Sequence[str], seed: int) -> list[int]:
    """Return the positions of texts in a random order that their content and the seed decide.

    So another order of the rows, or more rows, changes as little as it can.

    Example:
        >>> texts = ["a", "b", "c"]
        >>> [texts[i] for i in drawn(texts, 0)] == [texts[::-1][i] for i in drawn(texts[::-1], 0)]
        True
    """
    return sorted(range(len(texts)), key=lambda i: _place(texts[i], seed))


def _place(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "replace")).digest()
