"""JSON by construction: the frame is written for the model, and it fills in the strings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from synque_select.errors import ConfigError

__all__ = ["StringWriter", "fill", "forcible", "without_thinking"]

_THINKING = re.compile(r"\A.*</think>", re.DOTALL)
_TRIES = 5
_HOT = 1.0


class StringWriter(Protocol):
    """What writes the strings: a model with what it has read so far."""

    def read(self, text: str) -> None:
        """Append text that was not written by the model."""
        ...

    def write_string(self, max_length: int, temperature: float | None) -> str:
        """Write up to a quotation mark or the end of the line, which is not appended."""
        ...

    def mark(self) -> Any:
        """Return the place that `rewind` goes back to."""
        ...

    def rewind(self, mark: Any) -> None:
        """Forget what came after a mark."""
        ...


def fill(schema: Mapping[str, Any], writer: StringWriter) -> str:
    """Have a model fill in a JSON schema of objects, arrays and strings.

    An object gets all its properties; an array gets `minItems` items (1 without it), none twice
    where `uniqueItems` is set and the model finds another in a few tries; a string has at most
    `maxLength` characters (200 without it) and no line break.

    Args:
        schema: A JSON schema.
        writer: The model, which has read the prompt.

    Returns:
        The JSON text.

    Raises:
        ConfigError: The schema has a type other than these three.
    """
    return json.dumps(_value(schema, writer), ensure_ascii=False)


def forcible(schema: Any) -> Any:
    """Return a schema without what no grammar can force: that items differ.

    Example:
        >>> forcible({"type": "array", "uniqueItems": True, "items": {"type": "string"}})
        {'type': 'array', 'items': {'type': 'string'}}
    """
    if isinstance(schema, Mapping):
        return {name: forcible(part) for name, part in schema.items() if name != "uniqueItems"}
    return [forcible(part) for part in schema] if isinstance(schema, list) else schema


def without_thinking(answer: str) -> str:
    """Return what a reasoning model wrote after its thinking.

    Example:
        >>> without_thinking('<think>Is it {}?</think>{"points": []}')
        '{"points": []}'
    """
    return _THINKING.sub("", answer)


def _value(schema: Mapping[str, Any], writer: StringWriter) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, writer)
    if kind == "array":
        return _array(schema, writer)
    if kind == "string":
        return _string(schema, writer, None)
    raise ConfigError(f"schema type {kind!r}: allowed here is object, array or string")


def _object(schema: Mapping[str, Any], writer: StringWriter) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in schema["properties"].items():
        writer.read(("{" if not found else ", ") + json.dumps(name) + ": ")
        found[name] = _value(part, writer)
    writer.read("}")
    return found


def _array(schema: Mapping[str, Any], writer: StringWriter) -> list[Any]:
    found: list[Any] = []
    # an item a line: long lists keep their form better than in one line
    for i in range(schema.get("minItems", 1)):
        writer.read("[\n" if i == 0 else ",\n")
        if schema.get("uniqueItems") and schema["items"].get("type") == "string":
            found.append(_unlike(found, schema["items"], writer))
        else:
            found.append(_value(schema["items"], writer))
    writer.read("\n]")
    return found


def _unlike(found: list[Any], schema: Mapping[str, Any], writer: StringWriter) -> str:
    start = writer.mark()
    text = _string(schema, writer, None)
    for _ in range(_TRIES):
        if _bare(text) not in {_bare(other) for other in found}:
            break
        writer.rewind(start)
        text = _string(schema, writer, _HOT)
    return text


def _bare(text: str) -> str:
    """An item without the number that a model may put before it."""
    return text.lstrip("0123456789.) ").casefold()


def _string(schema: Mapping[str, Any], writer: StringWriter, temperature: float | None) -> str:
    writer.read('"')
    text = writer.write_string(schema.get("maxLength", 200), temperature)
    writer.read('"')
    return text
