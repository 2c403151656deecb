"""Measured task performance, from the CSV files that were released."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from synque_select.data.csv_reader import read_csv
from synque_select.errors import DataError

__all__ = ["Figure", "files_in", "read_figures"]


class Figure(NamedTuple):
    """One measured performance.

    Attributes:
        names: Group and candidate, or those of them that the file has.
        value: The performance as a share in 0..1.
        n_decimals: Number of decimals to which the share was printed.
    """

    names: tuple[str, ...]
    value: float
    n_decimals: int


def files_in(folder: Path, pattern: str) -> Iterator[Path]:
    """Return the files that match, sorted by name, without the hidden files of file managers."""
    visible = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return (path for path in sorted(visible) if path.is_file())


def read_figures(
    folder: Path, names: Sequence[str], measured: str, *, whole: float
) -> list[Figure]:
    """Read the rows of every CSV file in a folder that has these columns.

    Args:
        folder: Folder of the files.
        names: Columns that name group and candidate.
        measured: Column of the performance; rows in which it is empty or NaN are skipped.
        whole: The value that means "all correct": 1, or 100 for percentages.

    Raises:
        DataError: A file cannot be read, or a performance is not a number from 0 to `whole`;
            the message names the line.
    """
    figures = []
    for path in files_in(folder, "*.csv"):
        for row in read_csv(path, as_text=frozenset((*names, measured))):
            if not {*names, measured} <= row.fields.keys():
                break
            text = str(row.fields[measured]).strip()
            if text and text.lower() != "nan":
                value = _number(text, whole, f"{path}, line {row.line}, column {measured}")
                decimals = max(0, -int(value.as_tuple().exponent) + round(math.log10(whole)))
                named = tuple(str(row.fields[name]).strip() for name in names)
                figures.append(Figure(named, float(value) / whole, decimals))
    return figures


def _number(text: str, whole: float, where: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not (value.is_finite() and 0 <= value <= whole):
        raise DataError(
            f"{where}: found {text!r}; allowed is a number from 0 to {whole:g}, or an empty field "
            "where nothing was measured"
        )
    return value
