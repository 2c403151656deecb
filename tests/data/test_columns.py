"""Values of records are read back as they were, whatever their neighbors are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.data import load_dataset_file, tables
from synque_select.data.examples import Examples
from synque_select.data.iterables import open_stored, store_iterable
from synque_select.data.views import fields_view
from synque_select.errors import DataError

UNLIKE: list[dict[str, Any]] = [
    {"text": "weather?", "call": {"city": "Oslo"}},
    {"text": "add", "call": {"a": 1, "b": 2}},
    {"text": "none", "call": {}},
    {"text": "chat", "call": [{"role": "user", "content": "hi"}, {"role": "tool", "x": [1, 2.5]}]},
    {"text": "nothing", "call": None},
]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    dataset = load_dataset_file(path)
    return [dataset[position] for position in range(len(dataset))]


@pytest.mark.parametrize("small", [True, False], ids=["in_memory", "memory_mapped"])
def test_unlike_objects_get_no_keys_of_their_neighbors(
    small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 8 << 20 if small else 0)
    assert read(write(tmp_path / "a.jsonl", UNLIKE)) == UNLIKE
    stored = open_stored(store_iterable("a", UNLIKE))
    assert [stored[i] for i in range(len(stored))] == UNLIKE


def test_a_view_does_not_depend_on_the_neighbors(tmp_path: Path):
    view = fields_view("call")
    alone = write(tmp_path / "a.jsonl", UNLIKE[:1] * 2)
    beside = write(tmp_path / "b.jsonl", UNLIKE)
    shown = [Examples("x", load_dataset_file(path), view).views[0] for path in (alone, beside)]
    assert shown == ['{"call": {"city": "Oslo"}}'] * 2


@pytest.mark.parametrize(
    "values",
    [
        [2**53 + 1, 0.5],
        [1, 1.0, 1.5],
        [True, 1],
        [-(2**63), 2**63 - 1],
        [2**63, 1],
        [10**400, None],
        ["1", 1],
        [None, None],
        [[1, 2.0], [3]],
        [[], [None]],
        ["a\ud83d", "b"],
        ["\ud83d\ude00", "x"],
    ],
    ids=repr,
)
def test_a_value_keeps_its_type_and_digits(values: list[Any], tmp_path: Path):
    records = [{"text": "t", "x": value} for value in values]
    result = [record["x"] for record in read(write(tmp_path / "a.jsonl", records))]
    assert repr(result) == repr(json.loads(json.dumps(values)))  # 1 == 1.0 == True, but not here


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(values=st.lists(JSON, min_size=1, max_size=6))
def test_any_json_is_read_back_as_it_was(values: list[Any], tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    result = [record["x"] for record in read(write(path, [{"x": value} for value in values]))]
    assert repr(result) == repr(json.loads(json.dumps(values)))


def test_one_field_is_read_without_decoding_the_others(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", UNLIKE)
    examples = Examples("a", load_dataset_file(path), "text")
    assert examples.views._column is not None
    assert examples.views._column.column_names == ["text"]
    assert list(examples.views) == [record["text"] for record in UNLIKE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": "b", "mood\\ud83d": 1}\n', r"line 2: the field 'mood\\ud83d'"),
        ('{"text": "a"}\n{"text": "b", "x\\u0000": 1}\n', r"line 2: .*'x\\x00' holds a NUL"),
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n', "line 2: .*a key more than once: 'text'"),
        ('{"x": {"k": 1, "k": 2}}\n', "line 1: .*a key more than once: 'k'"),
        ('{"x": ' + "[" * 400 + "]" * 400 + "}\n", "line 1: .*nested too deeply; allowed are 300"),
        ("[" * 100_000 + "\n", "line 1: .*nested too deeply; allowed are 300 levels"),
        ('{"x": ' * 100_000 + "\n", "line 1: .*nested too deeply; allowed are 300 levels"),
        ('{"x": ' + "9" * 5000 + "}\n", "line 1, field 'x': found a number of 5,000 digits"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_that_cannot_be_kept_is_one_error(
    content: str, message: str, suffix: str, tmp_path: Path
):
    path = tmp_path / f"a{suffix}"
    lines = content.splitlines()
    path.write_text(content if suffix == ".jsonl" else "[" + ",\n".join(lines) + "]")
    with pytest.raises(DataError, match=rf"^{path}, {message}"):
        load_dataset_file(path)


def test_keys_that_are_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "_MAX_FIELDS", 10)
    path = write(tmp_path / "a.jsonl", [{f"id{i}": "text"} for i in range(20)])
    with pytest.raises(DataError, match="line 11: more than 10 different fields; is a key"):
        load_dataset_file(path)


def test_fields_of_an_iterable_that_cannot_be_kept():
    with pytest.raises(DataError, match=r"a, example 0 .*'mood\\ud83d' holds half of a surrogate"):
        store_iterable("a", [{"mood\ud83d": 1}])
    with pytest.raises(DataError, match=r"a, example 1 .*the key 1 is of type int; allowed are te"):
        store_iterable("a", [{"1": "x"}, {1: "x", "1": "y"}])
