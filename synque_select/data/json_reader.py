"""Readers of JSON and JSON Lines files, which are streamed; error messages give the line."""

from __future__ import annotations

import codecs
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from synque_select.data.columns import LongNumber
from synque_select.data.compressed import open_data
from synque_select.data.json_tables import table_of_lines
from synque_select.data.readers import BaseReader
from synque_select.data.tables import Block, Row, Rows, table_of_blocks, table_of_rows
from synque_select.errors import DataError
from synque_select.utils.json_files import check_depth, too_deep, unique_pairs
from synque_select.utils.json_types import Json
from synque_select.utils.text_files import utf16_hint
from synque_select.utils.validation import kind_of
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = [
    "JsonLinesReader",
    "JsonReader",
    "LineDecoder",
    "numbered_lines",
    "read_json",
    "read_jsonl",
    "read_stored_jsonl",
]

_CHUNK_BYTES = 1 << 20
# read line by line, which tells the types of the fields; less of a small file, of which it would be
# the larger part of the time
_FIRST_BYTES = 1 << 14
_LEAST_FIRST_BYTES = 1 << 11
_FIRST_SHARE = 32
_SHOWN_DIGITS = 20
_FLOAT_DIGITS = 17  # with so many, two floats are never one text
_EXACT = 2**53  # from here on, a float does not hold every whole number
_SECOND_MARK = (
    "found a byte order mark, which belongs at the start of a file only; were two files joined? "
    "Give them one by one, or remove the mark"
)
_Member = TypeVar("_Member")
# an object with one of these keys, and few others, is a record rather than texts by their names
_RECORD_FIELDS = frozenset(
    (
        *("text", "label", "labels", "sentence", "prompt", "completion", "response", "instruction"),
        *("input", "output", "question", "answer", "premise", "hypothesis", "chosen", "rejected"),
    )
)
_MOST_RECORD_FIELDS = 20
_ALLOWED = "allowed is a list of records, a list of texts, or an object whose values are texts"


class JsonReader(BaseReader):
    """Reader of JSON: a list of records, a list of texts, or an object whose values are texts."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    reads_compressed: ClassVar[bool] = True

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and then memory-mapped from the cache."""
        if _is_json_lines(path):
            return table_of_blocks(path, _jsonl_blocks, about=("read_json",))
        return table_of_rows(path, read_json)


class JsonLinesReader(BaseReader):
    """Reader of JSON Lines: one record or one string per line."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    reads_compressed: ClassVar[bool] = True

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and then memory-mapped from the cache."""
        return table_of_blocks(path, _jsonl_blocks, about=("read_jsonl",))


def read_json(path: Path) -> Rows:
    """Stream a JSON list of records, a list of texts, or an object whose values are texts.

    A text in a list becomes the record {"text": …}; a text in an object becomes the record
    {"key": …, "text": …}. A file with one record per line is read as JSON Lines.

    Args:
        path: Path of a UTF-8 file.

    Raises:
        DataError: The file is not JSON, not UTF-8, contains values other than records and texts,
            is one record instead of a list of them, has a key twice in a record, or holds a number
            that is not finite; the message names the file and, except for the outermost value, the
            line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.json")
        ...     _ = path.write_text('["Shares rise", "Shares fall"]')
        ...     [row.fields for row in read_json(path)]
        [{'text': 'Shares rise'}, {'text': 'Shares fall'}]
    """
    if _is_json_lines(path):
        yield from read_jsonl(path)
        return
    with _JsonStream(path) as stream:
        opening = stream.peek()
        if opening == "[":
            yield from _Records(path).rows(stream.items())
        elif opening == "{":
            yield from _pairs(stream, path)
        else:
            value = stream.value().value
            raise DataError(f"{path}: found {kind_of(value)}; {_ALLOWED}")
        stream.end()


def read_jsonl(path: Path) -> Rows:
    """Stream a file with one JSON record or string per line; blank lines are skipped.

    Args:
        path: Path of a UTF-8 file.

    Raises:
        DataError: A line is not UTF-8, not JSON, neither a record nor a text, has a key twice, or
            holds a number that is not finite; the message names the file and the line.
    """
    yield from _JsonLines(path, _DECODER).all_rows()


def read_stored_jsonl(path: Path) -> Rows:
    """Stream a file that Python wrote, in which NaN and Infinity are numbers; see `read_jsonl`."""
    yield from _JsonLines(path, _STORED_DECODER).all_rows()


def _jsonl_blocks(path: Path) -> Iterator[Block]:
    """Stream a file of JSON Lines in blocks; see `read_jsonl`."""
    lines, size = _JsonLines(path, _DECODER), path.stat().st_size
    with open_data(path) as file:
        n_bytes = min(_FIRST_BYTES, max(_LEAST_FIRST_BYTES, size // _FIRST_SHARE))
        while content := file.read(n_bytes):
            content += file.readline()
            yield Block(len(content), partial(lines.rows, content), partial(lines.table, content))
            n_bytes = _CHUNK_BYTES


class _NumberError(ValueError):
    """A number that a float or Python does not hold."""


def _refused(text: str) -> float:
    raise _NumberError(f"found {text}, which is not a number in JSON; write null, or leave it out")


def _fraction(text: str) -> float | LongNumber:
    value = float(text)
    shown = text if len(text) <= _SHOWN_DIGITS else f"{text[:_SHOWN_DIGITS]}…"
    if math.isinf(value):
        raise _NumberError(f"found {shown}, which is too large for a number; write it as a text")
    # rounding is usual in a fraction, but in an identifier it makes two one
    if abs(value) >= _EXACT and Decimal(text) != Decimal(repr(value)):
        raise _NumberError(
            f"found {shown}, whose digits a number with a fraction or exponent cannot hold; write "
            "it as a whole number or a text"
        )
    return value if _has_its_digits(text, value) else LongNumber(text)


def _has_its_digits(text: str, value: float) -> bool:
    """Whether the digits of a fraction are all in its float."""
    if len(text) <= _FLOAT_DIGITS and "e" not in text and "E" not in text:
        return True
    n_digits = len(text.lower().partition("e")[0].lstrip("-0.").replace(".", ""))
    is_full = abs(value) >= sys.float_info.min and n_digits <= _FLOAT_DIGITS
    return is_full or Decimal(text) == Decimal(repr(value))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:  # Python limits the digits, as the time grows with their square
        n_digits, limit = len(text.lstrip("-")), sys.get_int_max_str_digits()
        raise _NumberError(
            f"found a number of {counted(n_digits, 'digit')}; allowed are {limit:,}; write it as "
            "a text"
        ) from error


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique_pairs,
    parse_float=_fraction,
    parse_int=_whole,
    parse_constant=_refused,
)
_STORED_DECODER = json.JSONDecoder()


def _field_of_error(text: str, position: int) -> str:
    """Return the words that name the field of a number that was refused; "" if it has none."""
    refused = object()

    def tried(read: Callable[[str], object]) -> Callable[[str], object]:
        def value_or_mark(text: str) -> object:
            try:
                return read(text)
            except _NumberError:
                return refused

        return value_or_mark

    marked = json.JSONDecoder(
        parse_float=tried(_fraction), parse_int=tried(_whole), parse_constant=tried(_refused)
    )
    try:
        value, _ = marked.raw_decode(text, position)
        fields = value.items() if isinstance(value, dict) else ()
        return next((f", field {name!r}" for name, part in fields if _holds(part, refused)), "")
    except (ValueError, RecursionError):  # another error later in the text
        return ""


def _holds(value: object, part: object) -> bool:
    if isinstance(value, list | dict):
        members = value.values() if isinstance(value, dict) else value
        return any(_holds(member, part) for member in members)
    return value is part


class _Value(NamedTuple):
    line: int
    n_bytes: int
    value: Json


class _Records:
    """Checks that the values of a file are all records or all texts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kind: type | None = None

    def rows(self, values: Iterator[_Value]) -> Rows:
        for line, n_bytes, value in values:
            if not isinstance(value, dict | str):
                raise DataError(
                    f"{self._path}, line {line}: found {kind_of(value)}; allowed is a record or a "
                    "text"
                )
            self.kind = self.kind or type(value)
            if not isinstance(value, self.kind):
                raise DataError(
                    f"{self._path}, line {line}: found {kind_of(value)} after "
                    f"{kind_of(self.kind())}; a file must contain only records or only texts"
                )
            yield Row(line, n_bytes, {"text": value} if isinstance(value, str) else value)


def _pairs(stream: _JsonStream, path: Path) -> Rows:
    keys: list[str] = []
    for key, (line, n_bytes, value) in stream.pairs():
        if not isinstance(value, str):
            raise DataError(
                f"{path}, line {line}: found {kind_of(value)} under the key {key!r}; {_ALLOWED}"
            )
        if len(keys) <= _MOST_RECORD_FIELDS:
            keys.append(key)
        yield Row(line, n_bytes, {"key": key, "text": value})
    if len(keys) <= _MOST_RECORD_FIELDS and not _RECORD_FIELDS.isdisjoint(keys):
        raise DataError(
            f"{path}: found one record, with the fields {', '.join(map(repr, keys))}; put all "
            "records into one list, or give an object of texts other keys"
        )


def _is_json_lines(path: Path) -> bool:
    with open_data(path) as file:
        head = file.readline(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8).strip()
        rest = file.readline(_CHUNK_BYTES).strip()
    if not (head.startswith(b"{") and rest.startswith(b"{")):
        return False
    try:
        return isinstance(json.loads(head), dict)
    except (ValueError, RecursionError):
        return False


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield the numbers, from 1, and the lines of a UTF-8 file, including line ends.

    Args:
        path: Path of the file; a byte order mark is removed.

    Raises:
        DataError: A line is not UTF-8, contains a NUL byte or begins with a second byte order
            mark, or lines end with \r alone.
    """
    with open_data(path) as file:
        yield from LineDecoder(path).decoded(file)


class LineDecoder:
    """Numbers, checks and decodes the lines of a file, which may come in parts.

    Args:
        path: The file, for messages.
        n_before: Number of the lines before those that are decoded first.
        first: The first line of the file, if it is among those before.
    """

    def __init__(self, path: Path, n_before: int = 0, first: bytes = b"") -> None:
        self._path = path
        self._number = n_before
        self._first = first

    def skip(self, n_lines: int) -> None:
        """Count lines, after the first, that were read in another way."""
        self._number += n_lines

    def decoded(self, lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
        """Yield the numbers and the texts of the next lines; see `numbered_lines`."""
        path = self._path
        for number, raw in enumerate(lines, self._number + 1):
            self._number = number
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if b"\0" in line:
                raise DataError(f"{path}, line {number}: found a NUL byte{utf16_hint(line)}")
            self._first = line if number == 1 else self._first
            # a text may begin with the character, but a header comes back only in joined files
            if line.startswith(codecs.BOM_UTF8) and (number == 1 or line[3:] == self._first):
                raise DataError(f"{path}, line {number}: {_SECOND_MARK}")
            if number == 1 and not line.endswith(b"\n") and b"\r" in line.strip():
                raise DataError(
                    f"{path}: the lines end with \\r alone, as on old Macs; save the file with "
                    "line ends \\n or \\r\\n"
                )
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                raise _encoding_error(path, number, error) from error


def _encoding_error(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start : error.start + 1].hex()
    return DataError(
        f"{path}, line {line}: not UTF-8 (byte 0x{byte}){utf16_hint(error.object)}; "
        "save the file as UTF-8, with or without a byte order mark"
    )


class _JsonLines:
    """Reads the lines of a file, which may come in parts."""

    def __init__(self, path: Path, decoder: json.JSONDecoder) -> None:
        self._path = path
        self._decoder = decoder
        self._lines = LineDecoder(path)
        self._records = _Records(path)

    def all_rows(self) -> Rows:
        with open_data(self._path) as file:
            yield from self._records.rows(self._values(file))

    def rows(self, content: bytes) -> Rows:
        yield from self._records.rows(self._values(io.BytesIO(content)))

    def table(self, content: bytes, schema: pa.Schema) -> pa.Table | None:
        if self._records.kind is str:
            return None
        table = table_of_lines(content, schema)
        if table is not None:
            self._records.kind = dict
            self._lines.skip(table.num_rows)
        return table

    def _values(self, lines: Iterable[bytes]) -> Iterator[_Value]:
        path = self._path
        for number, line in self._lines.decoded(lines):
            if not line.strip():
                continue
            try:
                value = self._decoder.decode(line)
            except json.JSONDecodeError as error:
                if line.startswith("\ufeff"):
                    raise DataError(f"{path}, line {number}: {_SECOND_MARK}") from error
                raise DataError(
                    f"{path}, line {number}, column {error.pos + 1}: not JSON: {error.msg}"
                ) from error
            except RecursionError as error:
                raise DataError(f"{path}, line {number}: {too_deep()}") from error
            except _NumberError as error:
                field = _field_of_error(line, len(line) - len(line.lstrip()))
                raise DataError(f"{path}, line {number}{field}: {error}") from error
            except ValueError as error:
                raise DataError(f"{path}, line {number}: invalid JSON: {error}") from error
            check_depth(line, value, f"{path}, line {number}")
            yield _Value(number, len(line), value)


class _JsonStream:
    """Reads a large JSON file value by value, with one value and one chunk in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_data(path)
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = _DECODER.raw_decode
        self._text = ""
        self._position = self._counted = 0
        self._line = 1
        self._ended = False

    def __enter__(self) -> _JsonStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def items(self) -> Iterator[_Value]:
        """Yield the values of a list."""
        return self._members("[", "]", self.value)

    def pairs(self) -> Iterator[tuple[str, _Value]]:
        """Yield the keys and values of an object."""
        return self._members("{", "}", self._pair)

    def value(self) -> _Value:
        """Read the value at the current position, which may span several chunks."""
        self.peek()
        line = self._line
        while True:
            try:
                value, end = self._scan(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self._error(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._error(too_deep(), self._position) from error
            except _NumberError as error:
                field = _field_of_error(self._text, self._position)
                raise DataError(f"{self._path}, line {line}{field}: {error}") from error
            except ValueError as error:
                raise self._error(str(error), self._position) from error
            else:
                # a number at the end of a chunk may continue in the next one
                if end < len(self._text) or self._ended:
                    break
            self._fill()
        check_depth(self._text[self._position : end], value, f"{self._path}, line {line}")
        n_bytes, self._position = end - self._position, end
        return _Value(line, n_bytes, value)

    def peek(self) -> str:
        """Skip white space and return the next character without consuming it; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text) or self._ended:
                break
            self._fill()
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._text[self._position : self._position + 1]

    def end(self) -> None:
        """Check that nothing but white space follows."""
        if self.peek():
            raise self._error("found text after the end of the JSON value", self._position)

    def _members(
        self, opening: str, closing: str, read: Callable[[], _Member]
    ) -> Iterator[_Member]:
        self._take(opening)
        if self.peek() == closing:
            self._take(closing)
            return
        while True:
            yield read()
            if self._take("," + closing) == closing:
                return

    def _pair(self) -> tuple[str, _Value]:
        if self.peek() != '"':
            raise self._error("expected a key in double quotes", self._position)
        key = str(self.value().value)  # it is a string, because it starts with a quote
        self._take(":")
        return key, self.value()

    def _take(self, allowed: str) -> str:
        character = self.peek()
        if not character or character not in allowed:
            raise self._error(f"expected {' or '.join(map(repr, allowed))}", self._position)
        self._position += 1
        return character

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        # literals that a chunk may cut, "-Infinity" and "\\ud83d", are shorter than 16 characters;
        # an error further from the end is an error in the file
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 16

    def _fill(self) -> None:
        self._line += self._text.count("\n", self._counted, self._position)
        rest = self._text[self._position :]
        # chunks grow with the text that is kept, so that a long value is scanned a few times, not
        # once per chunk
        chunk = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._ended = not chunk
        self._text, self._position, self._counted = rest, 0, 0
        if b"\0" in chunk:
            line = self._line + rest.count("\n") + chunk[: chunk.index(b"\0")].count(b"\n")
            raise DataError(f"{self._path}, line {line}: found a NUL byte{utf16_hint(chunk)}")
        try:
            self._text += self._decode.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            before = rest.count("\n") + error.object[: error.start].count(b"\n")
            raise _encoding_error(self._path, self._line + before, error) from error

    def _error(self, message: str, position: int) -> DataError:
        line = self._line + self._text.count("\n", self._counted, position)
        ended = " (the file ends here)" if self._ended and position >= len(self._text) else ""
        return DataError(f"{self._path}, line {line}: not JSON: {message}{ended}")


_SPACE = re.compile(r"[ \t\n\r]*")
