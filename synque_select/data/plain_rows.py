"""Rows of a `datasets.Dataset`, read from its Arrow table without its formatting."""

from __future__ import annotations

import sys
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["PlainRows", "plain_rows"]


class PlainRows:
    """The rows of a dataset without a format: the same values, in a fifth of the time.

    Args:
        dataset: A dataset for which `plain_rows` returns rows.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        table, mapped = dataset.data.table, dataset._indices
        self._columns = [
            (name, _Column(values))
            for name, values in zip(table.column_names, table.columns, strict=True)
        ]
        self._order = None if mapped is None else _Column(mapped.table.column(0))
        self._n, self._shown = len(dataset), dataset._format_columns

    def __getitem__(self, index: int) -> object:
        dataset = self._dataset
        # a format may be set at any time
        is_plain = dataset._format_type is None and dataset._format_columns is self._shown
        if type(index) is not int or not 0 <= index < self._n or not is_plain:
            return dataset[index]
        if self._order is not None:
            index = self._order[index]  # type: ignore[assignment]
        return {name: values[index] for name, values in self._columns}

    def __reduce__(self) -> tuple[type[PlainRows], tuple[Dataset]]:
        # a worker process opens the table again, and the values are not sent to it
        return PlainRows, (self._dataset,)


def plain_rows(dataset: object) -> PlainRows | None:
    """Return the rows of a dataset; None if it is not a `datasets.Dataset`, or decodes its values.

    Args:
        dataset: Any dataset.

    Example:
        >>> from datasets import Dataset
        >>> plain_rows(Dataset.from_dict({"text": ["x", "y"]}))[1]
        {'text': 'y'}
        >>> plain_rows([{"text": "x"}]) is None
        True
    """
    datasets = sys.modules.get("datasets")
    if datasets is None or type(dataset) is not datasets.Dataset:
        return None
    table: Dataset = dataset
    decoded = getattr(table.features, "_column_requires_decoding", None)
    shown = table._format_columns
    shows_all = shown is None or {*shown} >= {*table.column_names}
    if decoded is None or any(decoded.values()) or table._format_type is not None or not shows_all:
        return None
    return PlainRows(table)


class _Column:
    """The values of a column that may be in several chunks."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._chunks = values.chunks
        self._ends = list(accumulate(len(chunk) for chunk in self._chunks))

    def __getitem__(self, index: int) -> object:
        place = bisect_right(self._ends, index)
        if place:
            index -= self._ends[place - 1]
        return self._chunks[place][index].as_py()
