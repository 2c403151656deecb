"""Readers of CSV and TSV files, which are streamed; error messages give the line number."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from synque_select.data.json_reader import numbered_lines
from synque_select.data.readers import BaseReader
from synque_select.data.tables import Row, Rows, table_of_rows
from synque_select.errors import DataError
from synque_select.utils.wording import counted
from synque_select.utils.written_number import WrittenNumber

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CsvReader", "TsvReader", "count_blank_rows", "read_csv"]


class CsvReader(BaseReader):
    """Reader of comma-separated tables with a header line.

    Args:
        as_text: Names of columns that are kept as text even if they look like numbers.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    reads_compressed: ClassVar[bool] = True
    delimiter: ClassVar[str] = ","

    def __init__(self, as_text: frozenset[str] = frozenset()) -> None:
        self.as_text = as_text

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and then memory-mapped from the cache."""
        read = partial(read_csv, delimiter=self.delimiter, as_text=self.as_text)
        return table_of_rows(path, read, about=[self.delimiter, *sorted(self.as_text)])


class TsvReader(CsvReader):
    """Reader of tab-separated tables with a header line, with or without CSV's quotes."""

    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    delimiter: ClassVar[str] = "\t"


def read_csv(path: Path, *, delimiter: str = ",", as_text: Collection[str] = ()) -> Rows:
    r"""Stream a table with a header line.

    A column is read as integers or floats only if nothing is lost by it: all of its non-empty
    values are numbers that a 64-bit integer or a float holds exactly. An empty value is then None.
    All other columns are unchanged text: "NA" and "null", identifiers of 20 digits, "007", and
    versions such as "3.1" and "3.10" have no special meaning.

    Whatever the other rows are, `str` of a value that is not empty is its text in the file: where
    Python writes a float in another way, such as 3.50, it is a `WrittenNumber`.

    In a tab-separated file every line is a row, and quotes are text, as the format is defined. It
    is read with CSV's quotes only if it was evidently written with them: read without, its lines
    would have different numbers of fields, or its header is quoted, or a text with quotes has them
    doubled.

    A first line such as "sep=;", which Excel writes and reads, is not the header: it names the
    delimiter. Blank lines are left out.

    Args:
        path: Path of a UTF-8 file.
        delimiter: "," or a tab.
        as_text: Names of columns that are kept as text even if they look like numbers.

    Raises:
        DataError: A row has too many or too few fields, a quote is not closed, the header repeats
            a name or has another delimiter, the file is not UTF-8, or it is unclear whether the
            quotes of a tab-separated file are text; the message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("text,n\nShares rise,1\n")
        ...     [row.fields for row in read_csv(path)]
        [{'text': 'Shares rise', 'n': 1}]
    """
    delimiter = _named_delimiter(path) or delimiter
    quoted = delimiter != "\t" or _has_csv_quotes(path)
    parse = partial(_csv_rows, path, delimiter) if quoted else partial(_line_rows, path)
    rows = parse()
    beginning = list(islice(rows, 2))
    header = _header(path, beginning)
    converters = _converters(header, chain(beginning[1:], rows), as_text)
    rows = parse()
    next(rows, None)
    for line, values in rows:
        converted = [convert(value) for convert, value in zip(converters, values, strict=True)]
        n_bytes = sum(map(len, values)) + len(values)
        yield Row(line, n_bytes, dict(zip(header, converted, strict=True)))


_Fields: TypeAlias = Iterator[tuple[int, list[str]]]


def _csv_rows(path: Path, delimiter: str) -> _Fields:
    """Yield the first line number and the values of each row; all rows have the same length."""
    hint = "text that contains the delimiter must be in double quotes"
    return _of_one_length(path, _quoted_rows(path, delimiter), hint)


def _line_rows(path: Path) -> _Fields:
    """Yield the number and the values of each line of a tab-separated file without quotes."""
    return _of_one_length(path, _tab_rows(path), "in a tab-separated file every line is a row")


def count_blank_rows(path: Path, delimiter: str) -> int:
    r"""Count the blank lines below the header that are followed by a row.

    In a table of one column, such a line may have been meant as an empty text.

    Args:
        path: A file that `read_csv` has read.
        delimiter: "," or a tab.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("text\nup\n\ndown\n\n")
        ...     count_blank_rows(path, ",")
        1
    """
    delimiter = _named_delimiter(path) or delimiter
    quoted = delimiter != "\t" or _has_csv_quotes(path)
    rows = _quoted_rows(path, delimiter) if quoted else _tab_rows(path)
    count = pending = 0
    has_header = False
    for _, values in rows:
        if values:
            count, pending, has_header = count + pending, 0, True
        else:
            pending += has_header
    return count


_SEP = re.compile(r'"?sep=(.)"?\s*')


def _named_delimiter(path: Path) -> str | None:
    """Return the delimiter that a first line such as "sep=;" names; None without one."""
    match = _SEP.fullmatch(next(numbered_lines(path), (1, ""))[1])
    return match and match[1]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbers and the lines of a table, without a first line that names a delimiter."""
    for number, line in numbered_lines(path):
        if number > 1 or not _SEP.fullmatch(line):
            yield number, line


def _tab_rows(path: Path) -> _Fields:
    for number, line in _lines(path):
        text = line.removesuffix("\n").removesuffix("\r")
        yield number, text.split("\t") if text else []


def _quoted_rows(path: Path, delimiter: str) -> _Fields:
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    n_skipped = _named_delimiter(path) is not None
    while True:
        line = reader.line_num + 1 + n_skipped
        try:
            values = _next_row(reader)
        except csv.Error as error:
            reason = str(error)
            if reason.startswith("new-line"):  # the module's words are about its own use
                reason = "found a line end \\r alone; put texts with line ends in double quotes"
            raise DataError(f"{path}, the row that starts on line {line}: {reason}") from error
        if values is None:
            return
        yield line, values


def _of_one_length(path: Path, rows: _Fields, hint: str) -> _Fields:
    n_fields = 0
    for line, values in rows:
        n_fields = n_fields or len(values)
        if values and len(values) != n_fields:
            raise DataError(
                f"{path}, line {line}: found {counted(len(values), 'field')}, but the header has "
                f"{n_fields}; "
                f"{hint}"
            )
        if values:
            yield line, values


def _has_csv_quotes(path: Path) -> bool:
    """Whether a tab-separated file was written with CSV's quotes.

    Raises:
        DataError: It is unclear.
    """
    n_lines, is_quoted, lengths = 0, False, set()
    for _, values in _tab_rows(path):
        if not values:
            continue
        n_lines += 1
        lengths.add(len(values))
        is_quoted = is_quoted or any(map(_is_written_quoted, values))
        is_quoted = is_quoted or (n_lines == 1 and all(map(_is_quoted, values)))
    if not is_quoted and len(lengths) < 2:
        return False
    n_rows, unclear = 0, 0
    try:
        for line, values in _csv_rows(path, "\t"):
            n_rows += 1
            unclear = unclear or line * any("\n" in text and "\t" in text for text in values)
    except DataError:
        return False
    if len(lengths) < 2:
        return n_rows == n_lines
    if unclear:
        raise DataError(
            f"{path}, line {unclear}: text in double quotes spans lines and contains tabs, but "
            "other lines have another number of fields than the header, so it is unclear whether "
            "quotes are text; save the file as CSV or JSON Lines"
        )
    return True


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] == '"'


def _is_written_quoted(value: str) -> bool:
    # a program that writes CSV puts a text with quotes or a carriage return in quotes, and doubles
    # the quotes in it
    inner = value[1:-1]
    is_doubled = '""' in inner and '"' not in inner.replace('""', "")
    return _is_quoted(value) and (is_doubled or "\r" in inner)


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    # the csv module limits a field to 131,072 characters; the limit is global, so it is raised
    # only while a row is read
    before = csv.field_size_limit(1 << 30)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _header(path: Path, beginning: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Return the names of the columns, from the first two rows."""
    line, names = beginning[0] if beginning else (1, [])
    for other in ";\t|" if len(beginning) > 1 and len(names) == 1 else "":
        if 0 < names[0].count(other) == beginning[1][1][0].count(other):
            raise DataError(
                f"{path}, line {line}: the header is one field, {names[0]!r}; are fields separated "
                f"by {other!r}? Save the file with commas, or tell the delimiter in a first line, "
                f"as Excel does: sep={other}"
            )
    # pandas writes its index as a column without a name
    header = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(names)]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}, line {line}: the header repeats {', '.join(map(repr, repeated))}")
    return header


_WHOLE = re.compile(r"0|-?[1-9]\d*", re.ASCII)
# an exponent after an integer needs a sign: 12e3 may be the beginning of a hash
_NUMBER = re.compile(
    r"-?((0|[1-9]\d*)(\.\d+([eE][-+]?\d{1,3})?|[eE][-+]\d{1,3})|\.\d+([eE][-+]?\d{1,3})?)|-0",
    re.ASCII,
)
_EXACT_DIGITS = 15  # a decimal number of so many digits is read back from a float unchanged
_INT64 = range(-(2**63), 2**63)
_INT64_CHARACTERS = 20


class _Column:
    """What the values of a column have in common so far."""

    def __init__(self) -> None:
        self.is_whole = self.is_number = True
        self.is_filled = False
        self._is_inexact = False  # an integer that a float does not hold
        self._is_plain = True  # Python writes the floats as they are in the file
        self._decimals: set[int] = set()
        self._is_padded = False  # a number such as 3.10

    @property
    def kind(self) -> type[int] | type[float] | None:
        """The type that holds all values without loss; None if only text does."""
        if not (self.is_number and self.is_filled):
            return None
        if self.is_whole:
            return int
        # 3.1 and 3.10 are one number but two versions; 2.50 beside 1.25 is a way to write numbers
        is_ambiguous = self._is_padded and len(self._decimals) > 1
        if self._is_inexact or is_ambiguous:
            return None
        return float if self._is_plain else WrittenNumber

    def add(self, value: str) -> None:
        """Take one more value into account, which is not empty."""
        self.is_filled = True
        if _WHOLE.fullmatch(value):
            self._add_whole(value)
        elif _NUMBER.fullmatch(value) and _is_exact(value):
            self.is_whole = False
            self._add_fraction(value)
            self._is_plain = self._is_plain and "e" not in value and repr(float(value)) == value
        else:
            self.is_whole = self.is_number = False

    def _add_whole(self, value: str) -> None:
        self._decimals.add(0)
        self._is_plain = False  # 1 is 1.0 among floats
        if len(value) > _EXACT_DIGITS:
            self.is_number = len(value) <= _INT64_CHARACTERS and int(value) in _INT64
            self._is_inexact = self._is_inexact or not _is_exact(value)

    def _add_fraction(self, value: str) -> None:
        decimals = value.lower().partition("e")[0].partition(".")[2]
        self._decimals.add(len(decimals))
        self._is_padded = self._is_padded or (len(decimals) > 1 and decimals[-1] == "0")


def _is_exact(value: str) -> bool:
    """Whether the float of a number is this number."""
    if len(value) <= _EXACT_DIGITS and "e" not in value.lower():
        return True
    return Decimal(repr(float(value))) == Decimal(value)


def _converters(
    header: list[str], rows: _Fields, as_text: Collection[str]
) -> list[Callable[[str], object]]:
    columns = {place: _Column() for place, name in enumerate(header) if name not in as_text}
    numbers = dict(columns)
    for _, values in rows:
        # a column of text is no longer checked from its first word on
        for place, column in list(numbers.items()):
            if values[place]:
                column.add(values[place])
                if not column.is_number:
                    del numbers[place]
    kinds = {place: column.kind for place, column in columns.items()}
    return [_converter(kinds.get(place)) for place in range(len(header))]


def _converter(kind: type[int] | type[float] | None) -> Callable[[str], object]:
    return str if kind is None else lambda value: kind(value) if value else None
