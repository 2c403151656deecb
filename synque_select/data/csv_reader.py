"""Readers of CSV and TSV files, which are streamed; error messages give the line number."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from synque_select.data.json_reader import numbered_lines
from synque_select.data.readers import BaseReader
from synque_select.data.tables import Row, Rows, table_of_rows
from synque_select.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CsvReader", "TsvReader", "read_csv"]


class CsvReader(BaseReader):
    """Reader of comma-separated tables with a header line.

    Args:
        as_text: Names of columns that are kept as text even if they look like numbers.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    delimiter: ClassVar[str] = ","

    def __init__(self, as_text: frozenset[str] = frozenset()) -> None:
        self.as_text = as_text

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and then memory-mapped from the cache."""
        read = partial(read_csv, delimiter=self.delimiter, as_text=self.as_text)
        return table_of_rows(path, read, about=[self.delimiter, *sorted(self.as_text)])


class TsvReader(CsvReader):
    """Reader of tab-separated tables with a header line."""

    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    delimiter: ClassVar[str] = "\t"


def read_csv(path: Path, *, delimiter: str = ",", as_text: Collection[str] = ()) -> Rows:
    r"""Stream a table with a header line.

    A column is read as integers or floats if all of its non-empty values are such numbers; an
    empty value is then None. All other columns are unchanged text: "NA" and "null" have no special
    meaning.

    Args:
        path: Path of a UTF-8 file.
        delimiter: "," or a tab.
        as_text: Names of columns that are kept as text even if they look like numbers.

    Raises:
        DataError: A row has too many or too few fields, a quote is not closed, the header repeats
            a name, or the file is not UTF-8; the message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("text,n\nShares rise,1\n")
        ...     [row.fields for row in read_csv(path)]
        [{'text': 'Shares rise', 'n': 1}]
    """
    rows = _csv_rows(path, delimiter)
    header = _header(path, next(rows, (1, []))[1])
    converters = _converters(header, rows, as_text)
    rows = _csv_rows(path, delimiter)
    next(rows, None)
    for line, values in rows:
        converted = [convert(value) for convert, value in zip(converters, values, strict=True)]
        n_bytes = sum(map(len, values)) + len(values)
        yield Row(line, n_bytes, dict(zip(header, converted, strict=True)))


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the values of each row; all rows have the same length."""
    n_fields = 0
    reader = csv.reader(
        (line for _, line in numbered_lines(path)), delimiter=delimiter, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            values = _next_row(reader)
        except csv.Error as error:
            raise DataError(f"{path}, the row that starts on line {line}: {error}") from error
        if values is None:
            return
        n_fields = n_fields or len(values)
        if values and len(values) != n_fields:
            raise DataError(
                f"{path}, line {line}: found {len(values)} fields, but the header has {n_fields}; "
                "text that contains the delimiter must be in double quotes"
            )
        if values:
            yield line, values


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    # the csv module limits a field to 131,072 characters; the limit is global, so it is raised
    # only while a row is read
    before = csv.field_size_limit(1 << 30)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _header(path: Path, names: list[str]) -> list[str]:
    # pandas writes its index as a column without a name
    header = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(names)]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}, line 1: the header repeats {', '.join(map(repr, repeated))}")
    return header


_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)


def _converters(
    header: list[str], rows: Iterator[tuple[int, list[str]]], as_text: Collection[str]
) -> list[Callable[[str], object]]:
    whole = {column for column, name in enumerate(header) if name not in as_text}
    numbers, filled = set(whole), set()
    for _, values in rows:
        # a column of text leaves both sets at its first word and is no longer checked
        for column in [column for column in numbers if values[column]]:
            filled.add(column)
            if not _WHOLE.fullmatch(values[column]):
                whole.discard(column)
                if not _NUMBER.fullmatch(values[column]):
                    numbers.discard(column)
    kinds = {column: int if column in whole else float for column in numbers & filled}
    return [_or_none(kinds[column]) if column in kinds else str for column in range(len(header))]


def _or_none(convert: Callable[[str], object]) -> Callable[[str], object]:
    return lambda value: convert(value) if value else None
