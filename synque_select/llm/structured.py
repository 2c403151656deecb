"""Structured answers: the JSON syntax is written for the model, which fills in the strings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json, JsonObject

__all__ = ["StringWriter", "enforceable_schema", "fill_schema", "without_thinking"]

Mark = TypeVar("Mark")

# what models and servers write between their reasoning and the answer
_THINKING = re.compile(
    r"\A.*(?:</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]|◁/think▷"
    r"|<\|END_THINKING\|>|<\|channel\|>final<\|message\|>)",
    re.DOTALL,
)
# attempts to get an item that is not in the list already, and their temperature
_TRIES = 5
_RETRY_TEMPERATURE = 1.0


class StringWriter(Protocol[Mark]):
    """A model that writes the strings, with what it has read so far."""

    def read(self, text: str) -> None:
        """Append text that the model did not write."""
        ...

    def write_string(self, max_length: int, temperature: float | None) -> str:
        """Write up to a quotation mark or the end of the line, which is not appended."""
        ...

    def write_choice(self, choices: Sequence[str]) -> str:
        """Write one of some texts, as they are written inside a JSON string, and return it."""
        ...

    def mark(self) -> Mark:
        """Return the current state, for `rewind`."""
        ...

    def rewind(self, mark: Mark) -> None:
        """Return to the state of a mark."""
        ...


def fill_schema(schema: JsonObject, writer: StringWriter[Mark]) -> str:
    """Have a model fill in a JSON schema of objects, arrays and strings.

    An object gets all its properties. An array gets `minItems` items (1 if absent); with
    `uniqueItems`, an item that repeats another is written again a few times. A string has at most
    `maxLength` characters (200 if absent) and no line break; with `enum`, it is one of these texts.

    Args:
        schema: A JSON schema.
        writer: The model, which has read the prompt.

    Returns:
        The JSON text.

    Raises:
        ConfigError: The schema has a type other than these three, or lacks the properties of an
            object or the items of an array.
    """
    return json.dumps(_value(schema, writer), ensure_ascii=False)


def enforceable_schema(schema: JsonObject) -> JsonObject:
    """Return a schema without `uniqueItems`, which a grammar cannot enforce.

    Args:
        schema: A JSON schema.

    Example:
        >>> enforceable_schema({"type": "array", "uniqueItems": True, "items": {"type": "string"}})
        {'type': 'array', 'items': {'type': 'string'}}
    """
    return {name: _enforceable(part) for name, part in schema.items() if name != "uniqueItems"}


def _enforceable(part: Json) -> Json:
    if isinstance(part, Mapping):
        return enforceable_schema(part)
    return [_enforceable(item) for item in part] if isinstance(part, list) else part


def without_thinking(answer: str) -> str:
    """Return the part of a reasoning model's answer that follows its reasoning.

    Example:
        >>> without_thinking('<think>Is it {}?</think>{"points": []}')
        '{"points": []}'
    """
    return _THINKING.sub("", answer)


def _value(schema: JsonObject, writer: StringWriter[Mark]) -> Json:
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, writer)
    if kind == "array":
        return _array(schema, writer)
    if kind == "string":
        return _string(schema, writer, None)
    raise ConfigError(f"schema type {kind!r}: allowed here are object, array and string")


def _object(schema: JsonObject, writer: StringWriter[Mark]) -> dict[str, Json]:
    values: dict[str, Json] = {}
    properties = _subschema(schema, "properties")
    for name in properties:
        writer.read(("{" if not values else ", ") + json.dumps(name) + ": ")
        values[name] = _value(_subschema(properties, name), writer)
    writer.read("}")
    return values


def _array(schema: JsonObject, writer: StringWriter[Mark]) -> list[Json]:
    items = _subschema(schema, "items")
    is_unique = schema.get("uniqueItems") and items.get("type") == "string"
    values: list[Json] = []
    # one item per line: small models lose the structure of a long list in a single line
    for i in range(_size(schema, "minItems", 1)):
        writer.read("[\n" if i == 0 else ",\n")
        values.append(_new_string(values, items, writer) if is_unique else _value(items, writer))
    writer.read("\n]")
    return values


def _new_string(values: Sequence[Json], schema: JsonObject, writer: StringWriter[Mark]) -> str:
    """Write a string that is not among the values, if the model finds one in a few attempts."""
    start = writer.mark()
    text = _string(schema, writer, None)
    for _ in range(_TRIES):
        if _normalized(text) not in {_normalized(str(value)) for value in values}:
            break
        writer.rewind(start)
        text = _string(schema, writer, _RETRY_TEMPERATURE)
    return text


def _normalized(text: str) -> str:
    """Return an item without case and without the number that a model may put before it."""
    return text.lstrip("0123456789.) ").casefold()


def _string(schema: JsonObject, writer: StringWriter[Mark], temperature: float | None) -> str:
    writer.read('"')
    choices = schema.get("enum")
    if isinstance(choices, list):
        quoted = {json.dumps(text, ensure_ascii=False)[1:-1]: str(text) for text in choices}
        text = quoted[writer.write_choice(list(quoted))]
    else:
        text = writer.write_string(_size(schema, "maxLength", 200), temperature)
    writer.read('"')
    return text


def _subschema(schema: JsonObject, name: str) -> JsonObject:
    part = schema.get(name)
    if not isinstance(part, Mapping):
        raise ConfigError(f"schema: {name!r} must be an object, found {part!r}")
    return part


def _size(schema: JsonObject, name: str, default: int) -> int:
    size = schema.get(name, default)
    if not isinstance(size, int):
        raise ConfigError(f"schema: {name!r} must be an integer, found {size!r}")
    return size
