"""Arrow types for records whose fields are not known beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JSON_FIELDS", "Columns"]

# key in the file's metadata that lists the fields whose values are stored as JSON texts
JSON_FIELDS = b"synque_select.json_fields"


class Columns:
    """The Arrow types of the fields seen so far; None for a field that is stored as JSON texts.

    Every value is read back as it was: a field has an Arrow type only if all of its values are
    texts, all booleans, all integers of 64 bits, or all floats. Of other fields, Arrow would change
    values: an integer beside a float loses digits, and an object gets the keys of its neighbors.
    """

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType | None] = {}

    def grow(self, records: Sequence[Mapping[str, object]]) -> bool:
        """Widen the types so that they hold these records too; return whether any type changed."""
        before = dict(self._types)
        for name in dict.fromkeys(name for record in records for name in record):
            new = _type_of([record.get(name) for record in records])
            self._types[name] = _widened(before[name], new) if name in before else new
        return before != self._types

    def schema(self) -> pa.Schema:
        """Return the schema of the file that will be written."""
        import pyarrow as pa

        as_json = [name for name, type_ in self._types.items() if type_ is None]
        fields = [(name, type_ or pa.string()) for name, type_ in self._types.items()]
        return pa.schema(fields, metadata={JSON_FIELDS: json.dumps(as_json)})

    def batch(self, records: Sequence[Mapping[str, object]]) -> pa.RecordBatch:
        """Return the records as one Arrow batch; a missing field is null."""
        import pyarrow as pa

        arrays = []
        for name, type_ in self._types.items():
            values: list[object] = [record.get(name) for record in records]
            if type_ is None:
                values = [json.dumps(value) for value in values]
            arrays.append(pa.array(values, type_ or pa.string()))
        return pa.record_batch(arrays, schema=self.schema())


def _type_of(values: Sequence[object]) -> pa.DataType | None:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    types = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    type_ = types.get(kinds.pop())
    if kinds or type_ is None:
        return None
    try:
        pa.array(values, type_)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None  # an integer of more than 64 bits, or half of a surrogate pair
    return type_


def _widened(known: pa.DataType | None, new: pa.DataType | None) -> pa.DataType | None:
    """Return the type that holds both, or None if only JSON does."""
    import pyarrow as pa

    if known == pa.null():
        return new
    return known if new in (known, pa.null()) else None
