"""Checked reading of JSON from files and from language models."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from synque_select.errors import DataError, SynqueError
from synque_select.utils.json_types import Json
from synque_select.utils.text_files import check_regular, decode_utf8
from synque_select.utils.wording import counted

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "check_depth",
    "parse_json",
    "read_json_file",
    "too_deep",
    "unique_pairs",
]

MAX_BYTES = 1 << 30
# functions that walk a value call themselves at each level, and Python allows 1,000 calls
MAX_DEPTH = 300
_MAX_DIGITS = 300  # of an integer: one of more digits has no place in a float


def read_json_file(
    path: str | Path,
    *,
    error: type[SynqueError] = DataError,
    max_bytes: int = MAX_BYTES,
    unique_keys: bool = True,
) -> Json:
    """Read a JSON file; see `parse_json`.

    Args:
        path: The file.
        error: What to raise.
        max_bytes: Largest size of the file, which is read into memory as a whole.
        unique_keys: Whether an object that has a key twice is refused.

    Raises:
        SynqueError: In the given type: the file cannot be read, or is not such a JSON.
    """
    check_regular(path, error=error)
    try:
        with Path(path).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > max_bytes:
                raise error(f"{path}: {counted(size, 'byte')}; allowed are at most {max_bytes}")
            content = stream.read()
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}") from problem
    return parse_json(content, str(path), error=error, unique_keys=unique_keys)


def parse_json(
    text: str | bytes,
    where: str,
    *,
    error: type[SynqueError] = DataError,
    unique_keys: bool = False,
    line: int | None = None,
) -> Json:
    """Parse JSON that may be broken or hostile: whatever is wrong is one error that says where.

    Args:
        text: The JSON; bytes must be UTF-8, with or without a byte order mark.
        where: What it is, for the message: the path of a file, "the answer of the model".
        error: What to raise.
        unique_keys: Whether an object that has a key twice is refused.
        line: Number of the line, if the text is one line of a file.

    Raises:
        SynqueError: In the given type: the text is not UTF-8 or not JSON, nests more than 300
            levels deep, or has an integer of more than 300 digits.

    Example:
        >>> parse_json('{"pad": [1, NaN]}', "scores.json")
        {'pad': [1, nan]}
        >>> parse_json('{"pad": 1,}', "scores.json")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        synque_select.errors.DataError: scores.json, line 1: not JSON: …
    """
    if isinstance(text, bytes):
        text = decode_utf8(text, where, error=error)
    place = where if line is None else f"{where}, line {line}"
    try:
        value: Json = json.loads(
            text, parse_int=_whole, object_pairs_hook=unique_pairs if unique_keys else None
        )
    except json.JSONDecodeError as problem:
        reason = f"{problem.msg} (column {problem.colno})"
        raise error(f"{where}, line {line or problem.lineno}: not JSON: {reason}") from problem
    except RecursionError as problem:
        raise error(f"{place}: {too_deep()}") from problem
    except ValueError as problem:
        raise error(f"{place}: invalid JSON: {problem}") from problem
    check_depth(text, value, place, error=error)
    return value


def check_depth(
    text: str, value: object, where: str, *, error: type[SynqueError] = DataError
) -> None:
    """Refuse a parsed value that nests too deeply for the functions that walk it.

    Args:
        text: The JSON that was parsed.
        value: What it holds.
        where: What it is, for the message.
        error: What to raise.
    """
    # a value cannot nest deeper than its text has brackets: this spares most texts the walk
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    # level by level, because a function that calls itself would meet Python's own limit here
    if any(isinstance(part, (list, dict)) for part in level):
        raise error(f"{where}: {too_deep()}")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def too_deep() -> str:
    """Return what a message says of a value that nests too deeply."""
    return f"invalid JSON: nested too deeply; allowed are {MAX_DEPTH} levels"


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {counted(len(text), 'digit')}; allowed are {_MAX_DIGITS}")
    return int(text)


def unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the pairs of a JSON object as a dict, for `object_pairs_hook`.

    Args:
        pairs: Keys and values.

    Raises:
        ValueError: A key occurs more than once; `json` itself would keep the last.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = [repr(key) for key, count in counts.items() if count > 1]
        raise ValueError(f"an object has a key more than once: {', '.join(repeated)}")
    return value
