"""Readers of CSV and TSV files, which are streamed; error messages give the line number."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

from synque_select.data.compressed import open_data
from synque_select.data.csv_tables import count_bytes, table_of_texts
from synque_select.data.json_reader import LineDecoder, numbered_lines
from synque_select.data.readers import BaseReader
from synque_select.data.tables import (
    Block,
    Row,
    Rows,
    TypesChangedError,
    table_of_blocks,
    table_of_rows,
)
from synque_select.errors import DataError
from synque_select.utils.wording import counted
from synque_select.utils.written_number import WrittenNumber

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["CsvReader", "TsvReader", "count_blank_rows", "read_csv"]

_FIRST_BYTES = 1 << 14  # read row by row, which tells the types of the columns
_BLOCK_BYTES, _MOST_BYTES = 1 << 20, 1 << 22
_HINT = "text that contains the delimiter must be in double quotes"


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
        about = [self.delimiter, *sorted(self.as_text)]
        delimiter = _named_delimiter(path) or self.delimiter
        if delimiter == "\t":
            rows = partial(read_csv, delimiter=delimiter, as_text=self.as_text)
            return table_of_rows(path, rows, about=about)
        return table_of_blocks(path, _CsvBlocks(delimiter, self.as_text), about=about)


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
_Kind: TypeAlias = type[int] | type[float] | None


class _Part(NamedTuple):
    """Some rows of a table.

    Args:
        n_bytes: Their size in the file.
        texts: The rows; None if they must be read one by one.
        rows: Function that reads them one by one.
    """

    n_bytes: int
    texts: pa.Table | None
    rows: Callable[[], _Fields]


class _CsvBlocks:
    """Streams a table in blocks; see `read_csv`.

    The types of the columns are those of the first two parts. If a later part needs others, those
    of the whole file are found, and it is read again.
    """

    def __init__(self, delimiter: str, as_text: Collection[str]) -> None:
        self._delimiter, self._as_text = delimiter, as_text
        self._kinds: list[_Kind] | None = None  # of the whole file, once they are known

    def __call__(self, path: Path) -> Iterator[Block]:
        """Yield the blocks.

        Raises:
            TypesChangedError: A later part needs other types; call it again.
        """
        beginning = list(islice(_csv_rows(path, self._delimiter), 2))
        header = _header(path, beginning)
        if len(beginning) < 2:
            return
        stream = partial(_parts, path, self._delimiter, header, beginning[1][0] - 1)
        if self._kinds is None:
            with closing(stream()) as parts:
                yield from self._with_kinds_of_beginning(parts, header)
        if self._kinds is not None:
            with closing(stream()) as parts:
                yield from (_block(part, header, self._kinds) for part in parts)

    def _with_kinds_of_beginning(
        self, parts: Iterator[_Part], header: Sequence[str]
    ) -> Iterator[Block]:
        """Yield the blocks; none if the first parts must be read again with the kinds of all."""
        kinds, first = _Kinds(header, self._as_text), list[_Part]()
        for part in islice(parts, 2):
            kinds.add(part)
            first.append(part)
        given = kinds.kinds()
        if first[-1].texts is None:  # the last part, whose rows are used up
            self._kinds = given
            return
        yield from (_block(part, header, given) for part in first)
        for part in parts:
            kinds.add(part)
            if part.texts is None or kinds.kinds() != given:
                for other in parts:
                    kinds.add(other)
                self._kinds = kinds.kinds()
                raise TypesChangedError
            yield _block(part, header, given)


class _Kinds:
    """The kinds of the columns so far.

    Args:
        header: Names of the columns.
        as_text: Names of those that are texts in any case.
    """

    def __init__(self, header: Sequence[str], as_text: Collection[str]) -> None:
        self._header = header
        self._columns = {n: _Column() for n, name in enumerate(header) if name not in as_text}
        self._numbers = dict(self._columns)

    def add(self, part: _Part) -> None:
        """Take a part into account; if it must be read row by row, its rows are used up."""
        if part.texts is None:
            _add_rows(self._numbers, part.rows())
            return
        for place, column in list(self._numbers.items()):
            column.add_all(part.texts.column(self._header[place]))
            if not column.is_number:
                del self._numbers[place]

    def kinds(self) -> list[_Kind]:
        """Return the kind of each column."""
        return _kinds(self._columns, len(self._header))


def _kinds(columns: Mapping[int, _Column], n: int) -> list[_Kind]:
    return [columns[place].kind if place in columns else None for place in range(n)]


def _block(part: _Part, header: Sequence[str], kinds: Sequence[_Kind]) -> Block:
    rows = partial(_as_rows, part, header, kinds)
    return Block(part.n_bytes, rows, partial(_as_table, part, kinds))


def _parts(
    path: Path, delimiter: str, header: Sequence[str], n_before: int
) -> Generator[_Part, None, None]:
    """Stream the rows of a table that follow its first lines.

    What cannot be read at once is the last part, and all that is left of the file: only reading row
    by row tells where its rows end.
    """
    with open_data(path) as file:
        first = file.readline().removeprefix(codecs.BOM_UTF8)
        for _ in range(n_before - 1):
            file.readline()
        n_bytes = _FIRST_BYTES
        while content := _whole_rows(file, n_bytes):
            texts = table_of_texts(content, header, delimiter)
            lines = chain(io.BytesIO(content), () if texts is not None else file)
            decoded = LineDecoder(path, n_before, first).decoded(lines)
            rows = _parsed_rows(path, delimiter, decoded, n_before)
            yield _Part(
                len(content), texts, partial(_of_one_length, path, rows, _HINT, len(header))
            )
            if texts is None:
                return
            n_before += count_bytes(content, b"\n")
            n_bytes = _BLOCK_BYTES


def _whole_rows(file: IO[bytes], n_bytes: int) -> bytes:
    """Read about so many bytes to the end of a line outside of quotes, if that is near."""
    parts = [file.read(n_bytes), file.readline()]
    n_quotes = sum(count_bytes(part, b'"') for part in parts)
    while n_quotes % 2 and n_bytes < _MOST_BYTES and (line := file.readline()):
        n_quotes, n_bytes = n_quotes + line.count(b'"'), n_bytes + len(line)
        parts.append(line)
    return b"".join(parts)


def _as_rows(part: _Part, header: Sequence[str], kinds: Sequence[_Kind]) -> Rows:
    converters = [_converter(kind) for kind in kinds]
    for line, values in part.rows():
        converted = [convert(value) for convert, value in zip(converters, values, strict=True)]
        n_bytes = sum(map(len, values)) + len(values)
        yield Row(line, n_bytes, dict(zip(header, converted, strict=True)))


def _as_table(part: _Part, kinds: Sequence[_Kind], schema: pa.Schema) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if part.texts is None:
        return None
    types = {int: pa.int64(), float: pa.float64(), WrittenNumber: pa.string()}
    columns = []
    for texts, kind in zip(part.texts.columns, kinds, strict=True):
        if kind is not None:
            filled = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
        columns.append(texts if kind is None else filled.cast(types[kind]))
    table = pa.table(columns, names=part.texts.column_names)
    # not equal where a column of numbers was empty so far
    return table if table.schema.equals(schema) else None


def _csv_rows(path: Path, delimiter: str) -> _Fields:
    """Yield the first line number and the values of each row; all rows have the same length."""
    return _of_one_length(path, _quoted_rows(path, delimiter), _HINT)


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
    n_blank = pending = 0
    has_header = False
    for _, values in rows:
        if values:
            n_blank, pending, has_header = n_blank + pending, 0, True
        else:
            pending += has_header
    return n_blank


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
    n_before = int(_named_delimiter(path) is not None)
    return _parsed_rows(path, delimiter, _lines(path), n_before)


def _parsed_rows(
    path: Path, delimiter: str, lines: Iterator[tuple[int, str]], n_before: int
) -> _Fields:
    """Yield the first line number and the values of each row; `n_before` lines come before."""
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1 + n_before
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


def _of_one_length(path: Path, rows: _Fields, hint: str, n_fields: int = 0) -> _Fields:
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
_FEW = 50
_SHORT_WHOLE = r"^(0|-?[1-9][0-9]{0,13})$"
# not under 0.0001, which Python writes with an exponent
_PLAIN_FRACTION = r"^-?([1-9][0-9]{0,13}\.[0-9]+|0\.[0-9]{0,3}[1-9][0-9]*|0\.0)$"


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

    def add_all(self, values: pa.ChunkedArray) -> None:
        """Take values into account, of which some may be empty; as `add` of each, but faster."""
        import pyarrow.compute as pc

        values = values.filter(pc.not_equal(values, ""))
        # a column of text has a word among its first values
        self._add_each(values.slice(0, _FEW).to_pylist())
        values = values.slice(_FEW)
        if not self.is_number or not len(values):
            return
        # what the first values are, the others probably are, too
        takes = (self._take_whole, self._take_fractions)
        for take in takes if self.is_whole else reversed(takes):
            if len(values):
                values = take(values)
        self._add_each(values.to_pylist())

    def _take_whole(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Add short integers and return the other values."""
        import pyarrow.compute as pc

        is_whole = pc.match_substring_regex(values, _SHORT_WHOLE)
        if pc.any(is_whole).as_py():
            self._add_whole("0")
        return values.filter(pc.invert(is_whole))

    def _take_fractions(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Add numbers that Arrow writes as they are, so are exact, and return the other values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if _are_plain_fractions(values):
            self._add_decimals(values)
            return values.slice(len(values))
        is_plain = pc.match_substring_regex(values, _PLAIN_FRACTION)
        plain = values.filter(is_plain)
        is_same = pc.equal(plain.cast("float64").cast("string"), plain)
        fractions = plain.filter(is_same)
        if len(fractions):
            self._add_decimals(fractions)
        others = (plain.filter(pc.invert(is_same)), values.filter(pc.invert(is_plain)))
        return pa.chunked_array([chunk for part in others for chunk in part.chunks], "string")

    def _add_decimals(self, fractions: pa.ChunkedArray) -> None:
        import pyarrow.compute as pc

        self.is_whole = False
        to_point = pc.find_substring(fractions, ".")
        n_decimals = pc.subtract(pc.subtract(pc.binary_length(fractions), to_point), 1)
        self._decimals.update(pc.unique(n_decimals).to_pylist())

    def _add_each(self, values: Iterable[str]) -> None:
        for value in values:
            if self.is_number:
                self.add(value)

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


def _are_plain_fractions(values: pa.ChunkedArray) -> bool:
    """Whether all match `_PLAIN_FRACTION` and Arrow writes them as they are; without 0.0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = values.cast("float64")
    except pa.ArrowInvalid:
        return False
    # within these bounds, what Arrow writes has no exponent
    ends = pc.min_max(pc.abs(numbers)).as_py()
    if ends["min"] is None or ends["min"] < 1e-4 or ends["max"] >= 1e14:
        return False
    is_same = pc.all(pc.equal(numbers.cast("string"), values)).as_py()
    return bool(is_same and pc.min(pc.find_substring(values, ".")).as_py() > 0)


def _is_exact(value: str) -> bool:
    """Whether the float of a number is this number."""
    if len(value) <= _EXACT_DIGITS and "e" not in value.lower():
        return True
    return Decimal(repr(float(value))) == Decimal(value)


def _converters(
    header: list[str], rows: _Fields, as_text: Collection[str]
) -> list[Callable[[str], object]]:
    columns = {place: _Column() for place, name in enumerate(header) if name not in as_text}
    _add_rows(dict(columns), rows)
    return [_converter(kind) for kind in _kinds(columns, len(header))]


def _add_rows(numbers: dict[int, _Column], rows: _Fields) -> None:
    for _, values in rows:
        # a column of text is no longer checked from its first word on
        for place, column in list(numbers.items()):
            if values[place]:
                column.add(values[place])
                if not column.is_number:
                    del numbers[place]


def _converter(kind: _Kind) -> Callable[[str], object]:
    return str if kind is None else lambda value: kind(value) if value else None
