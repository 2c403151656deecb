"""Arrow types for records whose fields are not known beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from synque_select.utils.written_number import WrittenNumber, replace_written

if TYPE_CHECKING:
    import pyarrow as pa

    _Type: TypeAlias = "pa.DataType | _Stored"

__all__ = [
    "JSON_FIELDS",
    "NUMBER_FIELDS",
    "Columns",
    "LongNumber",
    "json_of",
    "value_of",
    "with_texts",
]

# keys in the file's metadata that list the fields whose values are stored as JSON texts, and those
# whose numbers are stored as they were written
JSON_FIELDS = b"synque_select.json_fields"
NUMBER_FIELDS = b"synque_select.number_fields"


_LONG = "\0number"


@dataclass(frozen=True)
class LongNumber:
    """A number of JSON whose digits a float does not hold.

    Args:
        text: The number as it was written.
    """

    text: str


def json_of(value: object) -> str:
    """Return a value as a JSON text; see `value_of`.

    Args:
        value: A value as JSON has it, which may hold a `LongNumber` in place of a number.
    """
    return json.dumps(value, default=lambda number: {_LONG: number.text})


def value_of(text: str) -> object:
    """Return the value of a text that `json_of` wrote; a `LongNumber` is a `WrittenNumber` then.

    Example:
        >>> value_of(json_of([0.5, LongNumber("0.12345678901234567891")]))
        [0.5, 0.12345678901234567891]
    """
    is_long = "\\u0000number" in text
    value: object = json.loads(text, object_hook=_written if is_long else None)
    return value


def with_texts(value: object) -> object:
    """Return a value of JSON in which each `WrittenNumber` keeps its text when it is written.

    Example:
        >>> value_of(json_of(with_texts([0.5, WrittenNumber("3.10")])))
        [0.5, 3.10]
    """
    return replace_written(value, lambda number: {_LONG: number.text})


def _written(part: dict[str, object]) -> object:
    text = part.get(_LONG)
    with suppress(ValueError):  # a user's record may have the same key
        return WrittenNumber(text) if isinstance(text, str) and len(part) == 1 else part
    return part


class _Stored(Enum):
    """What the texts of a field are."""

    JSON = "JSON"
    NUMBERS = "numbers"


class Columns:
    """The Arrow types of the fields seen so far, or what is stored as texts in their place.

    Every value is read back as it was: a field has an Arrow type only if all of its values are
    texts, all booleans, all integers of 64 bits, or all floats. Of other fields, Arrow would change
    values: an integer beside a float loses digits, and an object gets the keys of its neighbors.
    Numbers that keep their text (`WrittenNumber`) are stored as texts, all else as JSON.
    """

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}

    def grow(self, records: Sequence[Mapping[str, object]]) -> bool:
        """Widen the types so that they hold these records too; return whether any type changed."""
        before = dict(self._types)
        for name in dict.fromkeys(name for record in records for name in record):
            new = _type_of([record.get(name) for record in records])
            self._types[name] = _widened(before[name], new) if name in before else new
        return before != self._types

    def clear(self) -> None:
        """Forget all fields."""
        self._types.clear()

    @property
    def are_plain(self) -> bool:
        """Whether there are fields, and none is stored as JSON."""
        return bool(self._types) and _Stored.JSON not in self._types.values()

    def schema(self) -> pa.Schema:
        """Return the schema of the file that will be written."""
        import pyarrow as pa

        names = {
            key: json.dumps([name for name, type_ in self._types.items() if type_ is stored])
            for key, stored in ((JSON_FIELDS, _Stored.JSON), (NUMBER_FIELDS, _Stored.NUMBERS))
        }
        fields = [(name, _arrow_type(type_)) for name, type_ in self._types.items()]
        return pa.schema(fields, metadata=names)

    def batch(self, records: Sequence[Mapping[str, object]]) -> pa.RecordBatch:
        """Return the records as one Arrow batch; a missing field is null."""
        import pyarrow as pa

        arrays = []
        for name, type_ in self._types.items():
            values: list[object] = [record.get(name) for record in records]
            if type_ is _Stored.JSON:
                values = [json_of(value) for value in values]
            elif type_ is _Stored.NUMBERS:
                values = [None if value is None else str(value) for value in values]
            arrays.append(pa.array(values, _arrow_type(type_)))
        return pa.record_batch(arrays, schema=self.schema())


def _arrow_type(type_: _Type) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if isinstance(type_, _Stored) else type_


def _type_of(values: Sequence[object]) -> _Type:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    if kinds == {WrittenNumber}:
        return _Stored.NUMBERS
    types = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    type_ = types.get(kinds.pop())
    if kinds or type_ is None:
        return _Stored.JSON
    try:
        pa.array(values, type_)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return _Stored.JSON  # an integer of more than 64 bits, or half of a surrogate pair
    return type_


def _widened(known: _Type, new: _Type) -> _Type:
    """Return the type that holds both."""
    import pyarrow as pa

    if known == pa.null():
        return new
    return known if new in (known, pa.null()) else _Stored.JSON
