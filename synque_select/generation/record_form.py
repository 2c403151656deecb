"""The form of a candidate's examples: what a model writes, and how it becomes an example."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from synque_select.data.candidate import Candidate
from synque_select.data.label_sets import NO_LABEL, label_kind, label_text
from synque_select.data.selector_names import selector_name
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError, LLMError, RecordError
from synque_select.llm.structured import without_thinking
from synque_select.records.run_folder import to_jsonable
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.validation import kind_of
from synque_select.utils.wording import counted

__all__ = ["LabelSet", "Record", "RecordForm", "as_records", "json_record", "label_set"]

Record = dict[str, Json]
_Leaf = str | int | float | bool

_MAX_LEAVES = 32
_MAX_DEPTH = 8
# fields of a turn in a chat that say who speaks: the same in the new example
_SPEAKERS = ("role", "from")
_NOT_RECORDS = "allowed are texts and records with named fields, as in JSON"


@dataclass(frozen=True)
class LabelSet:
    """The classes of a candidate.

    Args:
        field: The field, or path, that holds the label.
        values: Text of each class to the value that examples have for it, sorted by text.
        counts: Number of the candidate's examples of each class, in the same order.
    """

    field: str
    values: Mapping[str, Json]
    counts: tuple[int, ...]

    def quota(self, n: int) -> list[str]:
        """Return a class for each of n requests, in the proportions of the candidate.

        Example:
            >>> LabelSet("y", {"neg": 0, "pos": 1}, (30, 10)).quota(4)
            ['neg', 'neg', 'pos', 'neg']
        """
        # request i goes to the class that is furthest behind its share of i + 1 requests
        total, given = sum(self.counts), dict.fromkeys(self.values, 0)
        chosen = []
        for i in range(n):
            behind = {
                name: count * (i + 1) / total - given[name]
                for name, count in zip(self.values, self.counts, strict=True)
            }
            name = max(behind, key=behind.__getitem__)
            given[name] += 1
            chosen.append(name)
        return chosen


def label_set(candidate: Candidate) -> LabelSet | None:
    """Return the classes of a candidate; None if it has no label.

    Raises:
        ConfigError: The label is not a field, or the labels are not classes.
    """
    if candidate.label is None:
        return None
    field = candidate.label
    if not isinstance(field, str):
        raise ConfigError(
            f"{candidate.where}: label={selector_name(field)!r} is not a field: new examples can "
            "have a label only in a field"
        )
    kind = label_kind([candidate.labels])
    if kind != "classes":
        raise ConfigError(
            f"{candidate.where}: the labels in {field!r} are {kind}, not one class per example: "
            "omit label to have the field written like any other"
        )
    values: dict[str, Json] = {}
    for position, text in enumerate(candidate.labels):
        if text != NO_LABEL and text not in values:
            values[text] = to_jsonable(select(candidate[position], field))
    names = sorted(values)
    counts = tuple(candidate.labels.count(name) for name in names)
    return LabelSet(field, {name: values[name] for name in names}, counts)


def as_records(candidate: Candidate) -> Candidate:
    """Return the candidate with examples that are records; a text becomes {"text": text}.

    Raises:
        DataError: The examples are neither.
    """
    first = candidate[0]
    if isinstance(first, str):
        records = [{"text": text} for text in candidate]
        return replace(candidate, dataset=records, view="text")
    if not isinstance(first, Mapping):
        raise DataError(f"{candidate.where}: examples are {type(first).__name__}s; {_NOT_RECORDS}")
    return candidate


def json_record(candidate: Candidate, position: int) -> Record:
    """Return one example as JSON has it.

    Raises:
        DataError: The example has a value that JSON does not have, such as an image.
    """
    try:
        return cast("Record", to_jsonable(dict(candidate[position]), where="example"))
    except (RecordError, TypeError, ValueError) as error:
        raise DataError(
            f"{candidate.where}, example {position} (counted from 0): {error}; {_NOT_RECORDS}"
        ) from error


@dataclass(frozen=True)
class RecordForm:
    """The form of one example, as texts by path.

    A model writes one text per path. Who speaks in a chat, and what is null, is taken over.

    Args:
        template: An example of the form.
        label: The classes; None without labels.
        max_chars: Maximum number of characters of a text.

    Raises:
        DataError: The example is nested too deeply, has too many fields, or two of the same path.

    Example:
        >>> form = RecordForm({"text": "Yes.", "year": 1999}, None, 100)
        >>> form.read('{"examples": [{"text": "No.", "year": "2001"}, {"text": "No."}]}', 2)
        ([{'text': 'No.', 'year': 2001}], 1)
    """

    template: Record
    label: LabelSet | None
    max_chars: int

    def __post_init__(self) -> None:
        names = [".".join(path) for path, _ in self._leaves()]
        if len(names) > _MAX_LEAVES:
            raise DataError(
                f"an example has {counted(len(names), 'field')}, including nested ones; "
                f"at most {_MAX_LEAVES} are allowed"
            )
        if not names or len(set(names)) < len(names):
            raise DataError(
                "an example has no field to write"
                if not names
                else f"two fields of an example have the same path: {', '.join(sorted(names))}"
            )
        if self.label is not None and self.label.field not in names:
            raise ConfigError(
                f"label={self.label.field!r}: no text or number has this name; the fields are "
                f"{', '.join(names)}"
            )

    def _leaves(self) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
        return _leaves(self.template, (), 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of the texts that a model writes."""
        return tuple(".".join(path) for path, _ in self._leaves())

    def texts(self, record: Record) -> dict[str, str]:
        """Return an example as it is shown to a model: texts by path."""
        shown = {".".join(path): _as_text(value) for path, value in _leaves(record, (), 0)}
        if self.label is not None and self.label.field in shown:
            shown[self.label.field] = self._class_of(shown[self.label.field])
        return shown

    def _class_of(self, text: str) -> str:
        """Return the name of a class from its value, which may be its number."""
        assert self.label is not None
        for name, value in self.label.values.items():
            if _as_text(cast("_Leaf", value)) == text:
                return name
        return text

    def schema(self, n: int) -> JsonObject:
        """Return the JSON schema of an answer with n examples."""
        properties: dict[str, Json] = {
            name: {"type": "string", "minLength": 1, "maxLength": self.max_chars}
            for name in self.fields
        }
        if self.label is not None:
            properties[self.label.field] = {"type": "string", "enum": [*self.label.values]}
        item: Json = {
            "type": "object",
            "properties": properties,
            "required": [*properties],
            "additionalProperties": False,
        }
        examples: Json = {"type": "array", "items": item, "minItems": n, "maxItems": n}
        return {
            "type": "object",
            "properties": {"examples": examples},
            "required": ["examples"],
            "additionalProperties": False,
        }

    def read(self, answer: str, n: int) -> tuple[list[Record], int]:
        """Read the examples in an answer, which may be anything.

        Args:
            answer: What the model wrote.
            n: Number of examples that were asked for; further ones are ignored.

        Returns:
            The examples, and the number of those that were asked for and are missing or do not
            have the form. A label may still be none of the classes.
        """
        text = without_thinking(answer)
        start, end = text.find("{"), text.rfind("}")
        try:
            state = parse_json(text[start : end + 1], "the answer", error=LLMError)
        except LLMError:
            return [], n
        items = state.get("examples") if isinstance(state, dict) else None
        records = [self._record(item) for item in (items if isinstance(items, list) else [])[:n]]
        usable = [record for record in records if record is not None]
        return usable, n - len(usable)

    def _record(self, item: Json) -> Record | None:
        names = self.fields
        if not isinstance(item, dict) or set(item) != set(names):
            return None
        record = copy.deepcopy(self.template)
        for path, old in self._leaves():
            name = ".".join(path)
            value = self._value(name, item[name], old)
            if value is None:
                return None
            _set(record, path, value)
        return record

    def _value(self, name: str, given: Json, old: _Leaf) -> Json:
        """Return the value of a field, of the type that the template has; None if it has none."""
        if not isinstance(given, str | int | float):
            return None
        # JSON allows half a surrogate pair; files and prompts do not
        text = _as_text(given).encode("utf-8", "replace").decode()
        if self.label is not None and name == self.label.field:
            written = label_text(text)
            return self.label.values.get(written, written)
        if isinstance(old, str):
            return text
        return _number(text.strip(), old)


def _number(text: str, old: int | float | bool) -> Json:
    if isinstance(old, bool):
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = parse_json(text, "the number", error=LLMError)
    except LLMError:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if isinstance(old, float):
        return float(value)
    # files and tables have whole numbers of 64 bits
    return int(value) if value == int(value) and abs(value) < 2**63 else None


def _as_text(value: _Leaf) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _leaves(
    value: Json, path: tuple[str, ...], depth: int
) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
    if depth > _MAX_DEPTH:
        raise DataError(f"an example is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str | int | float):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if not (depth and name in _SPEAKERS and isinstance(part, str)):
                yield from _leaves(part, (*path, str(name)), depth + 1)
    elif isinstance(value, Sequence):
        for i, part in enumerate(value):
            yield from _leaves(part, (*path, str(i)), depth + 1)
    elif value is not None:
        raise DataError(f"{'.'.join(path)} is {kind_of(value)}; {_NOT_RECORDS}")


def _set(record: Record, path: tuple[str, ...], value: Json) -> None:
    inner: Json = record
    for name in path[:-1]:
        inner = inner[int(name)] if isinstance(inner, list) else cast("Record", inner)[name]
    if isinstance(inner, list):
        inner[int(path[-1])] = value
    else:
        cast("Record", inner)[path[-1]] = value
