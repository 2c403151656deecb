"""CSV read by Arrow, where it is certain to give what reading row by row gives."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["count_bytes", "count_rows", "table_of_texts"]

_QUOTE, _LINE_FEED, _RETURN = b'"\n\r'


def table_of_texts(content: bytes, names: Sequence[str], delimiter: str) -> pa.Table | None:
    r"""Return rows of CSV as a table of texts; None if only reading row by row is exact.

    A table is returned only if each quote begins or ends a field or is doubled within one, and no
    line is blank or ends with \r alone.

    Args:
        content: Whole rows of a file, without the header.
        names: Names of the columns.
        delimiter: The delimiter.

    Example:
        >>> table_of_texts(b'"up, up",1\n"",007\n', ["text", "n"], ",").to_pylist()
        [{'text': 'up, up', 'n': '1'}, {'text': '', 'n': '007'}]
        >>> table_of_texts(b'the 5" one,1\n', ["text", "n"], ",") is None
        True
    """
    import pyarrow as pa
    import pyarrow.csv

    n_rows = count_rows(content, delimiter)
    if n_rows == 0:
        return None
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(content) + 1, column_names=list(names)
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=b'"' in content
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, ValueError):
        return None
    return table if table.num_rows == n_rows else None  # Arrow leaves out blank lines


def count_rows(content: bytes, delimiter: str) -> int:
    r"""Return the number of rows, or 0 if quotes or line ends are not as they are usually written.

    Quotes begin and end in turn. Each must stand where that is possible, or be one of two.

    Args:
        content: Whole rows of a file, without the header.
        delimiter: The delimiter.

    Example:
        >>> count_rows(b'"up,\nup",1\n"",007\n', ","), count_rows(b'the 5" one,1\n', ",")
        (2, 0)
    """
    is_plain = len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n'
    if not is_plain or b"\0" in content or _holds_byte_order_mark(content):
        return 0
    characters = np.frombuffer(content, dtype=np.uint8)
    if b"\r" in content:
        returns = np.flatnonzero(characters == _RETURN)
        if content.endswith(b"\r") or (characters[returns + 1] != _LINE_FEED).any():
            return 0
    is_open_end = not content.endswith(b"\n")
    if b'"' not in content:
        return count_bytes(content, b"\n") + is_open_end
    quotes = np.flatnonzero(characters == _QUOTE)
    if len(quotes) % 2:
        return 0
    begins, ends = quotes[::2], quotes[1::2]
    around = np.frombuffer(b"\n%b\n" % content, dtype=np.uint8)
    may_precede = np.zeros(256, dtype=bool)
    may_precede[[ord(delimiter), _LINE_FEED]] = True
    may_follow = may_precede.copy()
    may_follow[_RETURN] = True
    is_doubled = begins[1:] == ends[:-1] + 1
    may_begin = may_precede.take(around.take(begins))
    may_end = may_follow.take(around.take(ends + 2))
    may_begin[1:] |= is_doubled
    may_end[:-1] |= is_doubled
    if not (may_begin.all() and may_end.all()):
        return 0
    line_ends = np.flatnonzero(characters == _LINE_FEED)
    n_outside = np.count_nonzero(np.searchsorted(quotes, line_ends) % 2 == 0)
    return int(n_outside) + is_open_end


def _holds_byte_order_mark(content: bytes) -> bool:
    # one byte is found many times faster than three
    return b"\xef" in content and codecs.BOM_UTF8 in content


def count_bytes(content: bytes, byte: bytes) -> int:
    """Return how often a byte occurs, five times faster than `bytes.count` where it does often.

    Example:
        >>> count_bytes(b"a,b", b",")
        1
    """
    return int(np.count_nonzero(np.frombuffer(content, dtype=np.uint8) == ord(byte)))
