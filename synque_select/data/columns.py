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
    """The Arrow types of the fields seen so far; None for a field that only JSON can hold."""

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
        fields = [(name, _stored_type(type_)) for name, type_ in self._types.items()]
        return pa.schema(fields, metadata={JSON_FIELDS: json.dumps(as_json)})

    def batch(self, records: Sequence[Mapping[str, object]]) -> pa.RecordBatch:
        """Return the records as one Arrow batch; a missing field is null."""
        import pyarrow as pa

        arrays = []
        for name, type_ in self._types.items():
            values: list[object] = [record.get(name) for record in records]
            if type_ is None:
                values = [json.dumps(value) for value in values]
            arrays.append(pa.array(values, _stored_type(type_)))
        return pa.record_batch(arrays, schema=self.schema())


_MAX_DEPTH = 32  # Arrow cannot write values that are nested 64 deep


def _stored_type(type_: pa.DataType | None) -> pa.DataType:
    import pyarrow as pa

    # not `type_ or …`: the type of a struct without fields is falsy
    return pa.string() if type_ is None else type_


def _type_of(values: Sequence[object]) -> pa.DataType | None:
    import pyarrow as pa

    try:
        type_ = pa.array(values).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None
    return None if _is_deep(type_) else type_


def _is_deep(type_: pa.DataType) -> bool:
    """Whether values of this type are nested too deeply for Arrow to write them to a file."""
    import pyarrow as pa

    level = [type_]
    for _ in range(_MAX_DEPTH):
        items = [outer.value_type for outer in level if pa.types.is_list(outer)]
        structs = [outer for outer in level if pa.types.is_struct(outer)]
        level = items + [outer.field(i).type for outer in structs for i in range(len(outer))]
    return bool(level)


def _widened(known: pa.DataType | None, new: pa.DataType | None) -> pa.DataType | None:
    """Return the narrowest type that holds both, or None if only JSON does."""
    import pyarrow as pa

    if known == new:
        return new
    if known is None or new is None:
        return None
    fields = [pa.schema([("field", type_)]) for type_ in (known, new)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field("field").type
    except pa.ArrowException:
        return None
