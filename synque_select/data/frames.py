"""Tables in memory: pandas, polars, and whatever else exports Arrow data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from synque_select.data.examples import MapDataset
from synque_select.data.tables import check_names_differ, check_schema, check_times
from synque_select.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["dataset_of_frame", "is_frame"]

_ROWS = "synque_select: rows"


def is_frame(source: object) -> bool:
    """Whether an object is a table or a column, such as a DataFrame of pandas or polars.

    Example:
        >>> import pandas as pd
        >>> is_frame(pd.DataFrame({"text": ["x"]})), is_frame(["x"])
        (True, False)
    """
    datasets = sys.modules.get("datasets")
    if datasets is not None and isinstance(source, datasets.Dataset):
        return False
    protocols = ("__arrow_c_stream__", "__arrow_c_array__", "collect_schema")
    return not isinstance(source, type) and any(hasattr(source, name) for name in protocols)


def dataset_of_frame(name: str, frame: Any) -> MapDataset:
    """Return a table as a dataset of records, and a column as a list of its values.

    Args:
        name: Name of the dataset, for messages.
        frame: A DataFrame, LazyFrame or Series of polars, one of pandas, or a table of pyarrow.

    Raises:
        DataError: Its columns have no names, or two have one, or a value cannot be read.

    Example:
        >>> import pandas as pd
        >>> dataset_of_frame("a", pd.DataFrame({"text": ["x", "y"]}, index=[7, 9]))[1]
        {'text': 'y'}
    """
    import pyarrow as pa
    from datasets import Dataset

    if hasattr(frame, "collect_schema") and hasattr(frame, "collect"):  # a LazyFrame
        try:
            frame = frame.collect()
        except Exception as error:  # it reads files, and runs functions of the user
            raise DataError(f"{name}: the LazyFrame cannot be read: {_reason(error)}") from error
    if not hasattr(frame, "columns"):  # one column
        values: MapDataset = frame.to_list() if hasattr(frame, "to_list") else frame.to_pylist()
        return values
    names = list(getattr(frame, "column_names", frame.columns))
    if not all(isinstance(column, str) for column in names):
        raise DataError(
            f"{name}: the columns of the table are {names}; names of columns must be texts"
        )
    check_names_differ(name, names)
    kept: dict[str, list[object]] = {}
    try:
        if hasattr(frame, "iloc"):  # pandas, whose index is not a part of the data
            table, kept = _of_pandas(frame)
        else:
            table = pa.table(frame)
        table = table.cast(pa.schema([_readable(field) for field in table.schema]))
        check_schema(name, table.schema)
        read: MapDataset = Dataset(table)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if hasattr(frame, "to_dicts"):  # of polars, with a type that Arrow does not have
            records: MapDataset = frame.to_dicts()
            return records
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: the table cannot be read: {_reason(error)}") from error
    check_times(name, table)
    return _Mixed(read, kept, names) if kept else read


def _of_pandas(frame: Any) -> tuple[pa.Table, dict[str, list[object]]]:
    """Return the columns whose values Arrow holds as they are, and the values of the others.

    Arrow would give an object the keys of the objects in other rows, and make its whole numbers
    fractions where another row has one.
    """
    import pyarrow as pa

    columns: dict[str, pa.ChunkedArray] = {}
    kept: dict[str, list[object]] = {}
    for name, column in frame.items():
        try:
            array = pa.table({name: pa.Array.from_pandas(column)})[name]
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            array = None
        kind = None if array is None else array.type
        is_inferred = column.dtype == object
        if (
            array is None
            or isinstance(kind, pa.BaseExtensionType)  # periods and intervals
            or (is_inferred and (pa.types.is_nested(kind) or pa.types.is_decimal(kind)))
        ):
            pairs = zip(column.tolist(), column.isna().tolist(), strict=True)
            kept[name] = [None if is_missing else _plain(value) for value, is_missing in pairs]
        else:
            columns[name] = array
    if kept and not columns:  # a table without columns has no rows
        columns = {_ROWS: pa.chunked_array([pa.nulls(len(frame))])}
    return pa.table(columns), kept


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


class _Mixed:
    """A table, and columns whose values are kept as they are."""

    def __init__(self, table: Any, kept: Mapping[str, list[object]], names: list[str]) -> None:
        self._table = table
        self._kept = kept
        self.column_names = names

    @property
    def features(self) -> object:
        """The types of the fields of the table."""
        return self._table.features

    def select_columns(self, names: list[str]) -> MapDataset:
        """Return a dataset with these fields alone."""
        from datasets import Dataset

        kept = {name: values for name, values in self._kept.items() if name in names}
        table = self._table.select_columns([name for name in names if name not in kept])
        if not kept:
            return table  # type: ignore[no-any-return]  # `datasets` has no types
        if not table.column_names:
            table = Dataset.from_dict({_ROWS: [None] * len(self)})
        return _Mixed(table, kept, names)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, object]:
        row = {**self._table[index], **{name: v[index] for name, v in self._kept.items()}}
        return {name: row[name] for name in self.column_names}


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0]


def _readable(field: Any) -> Any:
    import pyarrow as pa

    # `datasets` does not read the types with which polars exports texts and categories
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or str(kind) in ("string_view", "large_string")
    return field.with_type(pa.large_string() if is_text else kind)
