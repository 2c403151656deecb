"""JSON Lines read by Arrow, where it is certain to give what reading line by line gives."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["table_of_lines"]

# A number that a float holds with all of its digits: at most 17 without leading zeros, far from
# where floats end, and smaller than 2**53. White space, a comma or a brace ends it.
_FLOAT = rb"""
    -?(?: 0\.0{0,99}\d{1,17}
        | (?=[\d.]{3,18}[,}\s]) [1-9]\d{0,14}\.\d+
        | (?=[\d.]{1,18}[eE])   [1-9]\d{0,14}(?:\.\d+)?[eE]-\d\d?
    )(?=[,}\s])
"""


def table_of_lines(lines: bytes, schema: pa.Schema) -> pa.Table | None:
    r"""Return records, one per line, as a table; None if only reading line by line is exact.

    Arrow's parser is as strict as Python's within a record, but knows no lines, and takes integers
    and NaN for floats. So a table is returned only if each line holds one record, each text is
    valid Unicode, and each float is written with a point or an exponent and loses no digit.

    Args:
        lines: Whole lines of a file.
        schema: The fields. Allowed are texts, integers of 64 bits, floats, booleans and null.

    Example:
        >>> import pyarrow as pa
        >>> schema = pa.schema({"text": pa.string(), "n": pa.int64()})
        >>> table_of_lines(b'{"text": "up", "n": 1}\n{"text": "down"}\n', schema).to_pylist()
        [{'text': 'up', 'n': 1}, {'text': 'down', 'n': None}]
        >>> table_of_lines(b'{"text": "up", "n": 1.0}\n', schema) is None
        True
    """
    import pyarrow as pa
    import pyarrow.json as pj

    n_lines = _record_lines(lines)
    if n_lines == 0:
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(lines),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="error"
            ),
        )
        table.validate(full=True)  # that texts are UTF-8
    except (pa.ArrowException, ValueError):
        return None
    # a line holds one or more whole records, so as many records as lines are one per line
    is_exact = table.num_rows == n_lines and table.schema.equals(schema)
    return table if is_exact and _floats_are_exact(lines, table) else None


def _record_lines(lines: bytes) -> int:
    """Return the number of lines if each begins and ends with a brace, else 0.

    Neither between the parts of a record nor in its texts can a line end stand between `}` and `{`.
    """
    if b"\0" in lines:  # where Arrow's parser would stop
        return 0
    end = b"}\r\n" if b"\r" in lines else b"}\n"
    if lines.count(b"\r") not in (0, lines.count(end)):
        return 0
    whole = lines if lines.endswith(b"\n") else lines + end
    n_lines = whole.count(b"\n")
    is_one_each = whole.startswith(b"{") and whole.endswith(end)
    return n_lines if is_one_each and whole.count(end + b"{") == n_lines - 1 else 0


def _floats_are_exact(lines: bytes, table: pa.Table) -> bool:
    import pyarrow as pa

    return all(
        _n_exact_floats(lines, name) == len(column) - column.null_count
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_floating(column.type)
    )


def _n_exact_floats(lines: bytes, name: str) -> int:
    """Return the number of exact floats of a field; -1 if they cannot be counted."""
    key = b'"%s"' % name.encode()
    # What matches is a key, because a colon follows. It is the end of another, `x\\"score`, only if
    # that field holds floats, too, and is refused here.
    return -1 if b"\\" in key or key.count(b'"') > 2 else len(_member(key).findall(lines))


@lru_cache
def _member(key: bytes) -> re.Pattern[bytes]:
    return re.compile(re.escape(key) + rb"[ ]*:[ ]*" + _FLOAT, re.VERBOSE)
