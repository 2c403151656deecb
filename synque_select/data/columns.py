"""Arrow types for records whose fields are not known beforehand."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["JSON_FIELDS", "Columns"]

# key of the file's metadata: the fields of which every value is kept as JSON
JSON_FIELDS = b"synque_select.json_fields"


class Columns:
    """The Arrow type of each field, as far as it is known; None where only JSON holds them all."""

    def __init__(self) -> None:
        self._types: dict[str, Any] = {}

    def grow(self, records: list[dict[str, Any]]) -> bool:
        """Widen the types to hold these records too; say whether that changed one."""
        before = dict(self._types)
        for name in dict.fromkeys(name for record in records for name in record):
            values = [record.get(name) for record in records]
            self._types[name] = _widened(before.get(name, _UNSEEN), _type_of(values))
        return before != self._types

    def schema(self) -> Any:
        """Return the schema of the file to be written."""
        import pyarrow as pa

        as_json = [name for name, type_ in self._types.items() if type_ is None]
        fields = [(name, _stored_type(type_)) for name, type_ in self._types.items()]
        return pa.schema(fields, metadata={JSON_FIELDS: json.dumps(as_json)})

    def batch(self, records: list[dict[str, Any]]) -> Any:
        """Return the records as one Arrow batch; what a record lacks is null."""
        import pyarrow as pa

        arrays = []
        for name, type_ in self._types.items():
            values = [record.get(name) for record in records]
            if type_ is None:
                values = [json.dumps(value) for value in values]
            arrays.append(pa.array(values, _stored_type(type_)))
        return pa.record_batch(arrays, schema=self.schema())


_UNSEEN = object()
_MAX_DEPTH = 32  # Arrow refuses 64


def _stored_type(type_: Any) -> Any:
    import pyarrow as pa

    # not `type_ or`: the type of an object without fields counts as false
    return pa.string() if type_ is None else type_


def _type_of(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        type_ = pa.array(values).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None
    return None if _is_deep(type_) else type_


def _is_deep(type_: Any) -> bool:
    """Whether values are nested deeper than Arrow writes them to a file."""
    import pyarrow as pa

    level = [type_]
    for _ in range(_MAX_DEPTH):
        items = [outer.value_type for outer in level if pa.types.is_list(outer)]
        structs = [outer for outer in level if pa.types.is_struct(outer)]
        level = items + [outer.field(i).type for outer in structs for i in range(len(outer))]
    return bool(level)


def _widened(known: Any, found: Any) -> Any:
    """Return the narrowest type for both, None where there is none but JSON."""
    import pyarrow as pa

    if known is _UNSEEN or known == found:
        return found
    if known is None or found is None:
        return None
    fields = [pa.schema([("field", type_)]) for type_ in (known, found)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field("field").type
    except pa.ArrowException:
        return None
