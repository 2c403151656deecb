"""Typed reading of JSON objects: what is accepted, and that an error names the field."""

from __future__ import annotations

import math

import pytest

from synque_select.errors import RecordError
from synque_select.utils.json_fields import JsonFields

STATE = {
    "version": 1,
    "text": "a",
    "flag": True,
    "count": 3,
    "zero": 0,
    "number": 0.5,
    "null": None,
    "object": {"inner": {"n": "x"}},
    "list": [{"n": 1}, {"n": "x"}],
    "texts": ["a", "b"],
    "numbers": {"a": 1, "b": None},
}


def test_fields_are_read_as_values_of_their_type():
    fields = JsonFields(STATE)
    assert (fields.version(1, 2), fields.text("text"), fields.flag("flag")) == (1, "a", True)
    assert (fields.count("count"), fields.integer("zero", least=0)) == (3, 0)
    assert fields.number("number") == fields.optional_number("number") == 0.5
    assert math.isnan(fields.number("null"))
    assert fields.optional_number("null") is fields.optional_number("missing") is None
    assert fields.optional_text("missing") is fields.optional_object("null") is None
    assert (fields.text("missing", "b"), fields.flag("missing", False)) == ("b", False)
    assert fields.texts("texts") == ("a", "b")
    assert fields.texts("missing") == ()
    assert list(fields.numbers("numbers")) == ["a", "b"]
    assert fields.objects("list")[0].count("n") == 1
    assert list(fields.named_objects("object")) == ["inner"]
    assert "text" in fields
    assert "missing" not in fields


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda f: f.text("count"), "count must be a text, found a number"),
        (lambda f: f.text("missing"), "missing must be a text, found nothing"),
        (lambda f: f.flag("count"), "count must be true or false, found a number"),
        (lambda f: f.count("zero"), "zero must be a count"),
        (lambda f: f.count("flag"), "flag must be a count, found a boolean"),
        (lambda f: f.integer("number"), "number must be an integer"),
        (lambda f: f.integer("zero", least=1), "zero must be 1 or more, found 0"),
        (lambda f: f.number("text"), "text must be a number or null, found a text"),
        (lambda f: f.number("flag"), "flag must be a number or null, found a boolean"),
        (lambda f: f.number("missing"), "missing must be a number or null, found nothing"),
        (lambda f: f.version(2), "version must be 2, found 1"),
        (lambda f: f.object("list"), "list must be an object, found a list"),
        (lambda f: f.list("text"), "text must be a list, found a text"),
        (lambda f: f.objects("texts"), r"texts\[0\] must be an object, found a text"),
        (lambda f: f.objects("list")[1].count("n"), r"list\[1\].n must be a count, found a text"),
        (lambda f: f.object("object").object("inner").count("n"), "object.inner.n must be a count"),
        (lambda f: f.texts("list"), "list must be a list of texts"),
        (lambda f: f.texts("text"), "text must be a list of texts"),
        (lambda f: f.numbers("object"), "object.inner must be a number or null"),
        (lambda f: f.expect(False, "list", "sorted"), "list must be sorted, found a list"),
        (lambda f: JsonFields([]), "the file must be an object, found a list"),
        (lambda f: JsonFields(None, "a.b"), "a.b must be an object, found null"),
    ],
)
def test_a_field_of_another_type_is_named(read, words):
    with pytest.raises(RecordError, match=words):
        read(JsonFields(STATE))


@pytest.mark.parametrize("version", [True, "1", None, 1.5])
def test_a_version_of_another_type_is_refused(version):
    with pytest.raises(RecordError, match="version must be 1"):
        JsonFields({"version": version}).version(1)
