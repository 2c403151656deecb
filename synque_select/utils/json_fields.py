"""Typed reading of JSON objects: every field is checked, and an error names it by its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from synque_select.errors import RecordError
from synque_select.utils.json_types import Json
from synque_select.utils.validation import kind_of

__all__ = ["JsonFields", "null_if_undefined"]


_Text = TypeVar("_Text", bound=str)


def null_if_undefined(value: float | None) -> float | None:
    """Return None for NaN and infinities, which JSON does not have, and any other value as it is.

    Example:
        >>> null_if_undefined(float("nan")), null_if_undefined(0.5)
        (None, 0.5)
    """
    return None if value is None or not math.isfinite(value) else value


class JsonFields:
    """One JSON object whose fields are read as values of a known type.

    Args:
        value: What was read from a file or passed by a caller.
        path: Where the object is in its file, such as "candidates[0]"; empty for the whole file.

    Raises:
        RecordError: The value is not an object; each method raises the same for its field.

    Example:
        >>> fields = JsonFields({"n": 3, "scores": {"pad": None}})
        >>> fields.count("n"), fields.object("scores").number("pad")
        (3, nan)
        >>> fields.text("n")
        Traceback (most recent call last):
        synque_select.errors.RecordError: n must be a text, found a number
    """

    def __init__(self, value: object, path: str = "") -> None:
        self._path = path
        if not isinstance(value, Mapping):
            raise RecordError(f"{path or 'the file'} must be an object, found {kind_of(value)}")
        self._state: Mapping[str, Json] = value

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    @property
    def content(self) -> Mapping[str, Json]:
        """The object itself, unchecked."""
        return self._state

    def path(self, name: str) -> str:
        """Return the path of a field within the file."""
        return f"{self._path}.{name}" if self._path else name

    def value(self, name: str) -> Json:
        """Return a field as it is; None where it is missing."""
        return self._state.get(name)

    def expect(self, holds: bool, name: str, allowed: str) -> None:
        """Raise an error that names the field unless a condition holds.

        Raises:
            RecordError: The condition does not hold.
        """
        if not holds:
            raise self._error(name, allowed)

    def version(self, *known: int) -> int:
        """Return the file's version if this library reads it."""
        version = self.value("version")
        for one in known:
            if version == one and not isinstance(version, bool):
                return one
        allowed = " or ".join(map(str, known))
        raise RecordError(f"{self.path('version')} must be {allowed}, found {version!r}")

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; the default, if there is one, where the field is missing."""
        value = self._state.get(name, default)
        if isinstance(value, str):
            return value
        raise self._error(name, "a text")

    def optional_text(self, name: str) -> str | None:
        """Return a text; None where the field is missing or null."""
        return None if self.value(name) is None else self.text(name)

    def choice(self, name: str, allowed: Sequence[_Text]) -> _Text:
        """Return a text that is one of those allowed."""
        value = self.value(name)
        for one in allowed:
            if value == one:
                return one
        raise RecordError(
            f"{self.path(name)} must be one of {', '.join(map(repr, allowed))}, found {value!r}"
        )

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return true or false; the default, if there is one, where the field is missing."""
        value = self._state.get(name, default)
        if isinstance(value, bool):
            return value
        raise self._error(name, "true or false")

    def integer(self, name: str, *, least: int | None = None) -> int:
        """Return an integer, which must not be below `least` where that is given."""
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            if least is None or value >= least:
                return value
            raise RecordError(f"{self.path(name)} must be {least} or more, found {value}")
        raise self._error(name, "an integer")

    def count(self, name: str) -> int:
        """Return an integer that is 1 or more."""
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        raise self._error(name, "a count")

    def optional_number(self, name: str) -> float | None:
        """Return a number; None where the field is missing or null."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise self._error(name, "a number or null")

    def number(self, name: str) -> float:
        """Return a number; NaN for null, which is how the files of this library write it."""
        if name not in self._state:
            raise self._error(name, "a number or null")
        value = self.optional_number(name)
        return math.nan if value is None else value

    def object(self, name: str) -> JsonFields:
        """Return a field that is an object."""
        if name not in self._state:
            raise self._error(name, "an object")
        return JsonFields(self.value(name), self.path(name))

    def optional_object(self, name: str) -> JsonFields | None:
        """Return a field that is an object; None where it is missing or null."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._error(name, "an object or null")
        return JsonFields(value, self.path(name))

    def named_objects(self, name: str) -> dict[str, JsonFields]:
        """Return a field that is an object of objects."""
        fields = self.object(name)
        return {key: fields.object(key) for key in fields}

    def list(self, name: str) -> Sequence[Json]:
        """Return a field that is a list."""
        value = self.value(name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return value
        raise self._error(name, "a list")

    def objects(self, name: str) -> tuple[JsonFields, ...]:
        """Return a field that is a list of objects."""
        path = self.path(name)
        return tuple(JsonFields(part, f"{path}[{i}]") for i, part in enumerate(self.list(name)))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts; none where it is missing."""
        values = self._state.get(name, ())
        if isinstance(values, Sequence) and not isinstance(values, str):
            texts = tuple(text for text in values if isinstance(text, str))
            if len(texts) == len(values):
                return texts
        raise self._error(name, "a list of texts")

    def number_list(self, name: str) -> tuple[float, ...]:
        """Return a field that is a list of numbers, NaN for null."""
        names = {f"{name}[{i}]": value for i, value in enumerate(self.list(name))}
        fields = JsonFields(names, self._path)
        return tuple(fields.number(place) for place in names)

    def flags(self, name: str) -> dict[str, bool]:
        """Return a field that is an object of true and false."""
        fields = self.object(name)
        return {key: fields.flag(key) for key in fields}

    def numbers(self, name: str) -> dict[str, float]:
        """Return a field that is an object of numbers, NaN for null; none where it is missing."""
        if name not in self._state:
            return {}
        fields = self.object(name)
        return {key: fields.number(key) for key in fields}

    def _error(self, name: str, allowed: str) -> RecordError:
        kind = kind_of(self._state[name]) if name in self._state else "nothing"
        return RecordError(f"{self.path(name)} must be {allowed}, found {kind}")
