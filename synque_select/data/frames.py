"""Tables in memory: pandas, polars, and whatever else exports Arrow data."""

from __future__ import annotations

import sys
from typing import Any

from synque_select.data.examples import MapDataset
from synque_select.errors import DataError

__all__ = ["dataset_of_frame", "is_frame"]


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
    return not isinstance(source, type) and (
        hasattr(source, "__arrow_c_stream__") or hasattr(source, "collect_schema")
    )


def dataset_of_frame(name: str, frame: Any) -> MapDataset:
    """Return a table as a dataset of records, and a column as a list of its values.

    Args:
        name: Name of the dataset, for messages.
        frame: A DataFrame, LazyFrame or Series of polars, one of pandas, or a table of pyarrow.

    Raises:
        DataError: Its columns have no names, or a value cannot be read.

    Example:
        >>> import pandas as pd
        >>> dataset_of_frame("a", pd.DataFrame({"text": ["x", "y"]}, index=[7, 9]))[1]
        {'text': 'y'}
    """
    if hasattr(frame, "collect_schema") and hasattr(frame, "collect"):  # a LazyFrame
        frame = frame.collect()
    if not hasattr(frame, "columns"):  # one column
        values: MapDataset = frame.to_list() if hasattr(frame, "to_list") else frame.to_pylist()
        return values
    if not hasattr(frame, "column_names") and not all(isinstance(c, str) for c in frame.columns):
        raise DataError(
            f"{name}: the columns of the table are {list(frame.columns)}; names of columns must "
            "be texts"
        )
    import pyarrow as pa
    from datasets import Dataset

    try:
        if hasattr(frame, "iloc"):  # pandas, whose index is not a part of the data
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        else:
            table = pa.table(frame)
        read: MapDataset = Dataset(
            table.cast(pa.schema([_readable(field) for field in table.schema]))
        )
        return read
    except (pa.ArrowException, TypeError, ValueError) as error:
        # values of several types in a column, or a type that Arrow does not convert
        records: MapDataset
        if hasattr(frame, "iloc"):
            records = frame.to_dict("records")
            return records
        if hasattr(frame, "to_dicts"):
            records = frame.to_dicts()
            return records
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{name}: the table cannot be read: {reason}") from error


def _readable(field: Any) -> Any:
    import pyarrow as pa

    # `datasets` does not read the types with which polars exports texts and categories
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or str(kind) in ("string_view", "large_string")
    return field.with_type(pa.large_string() if is_text else kind)
