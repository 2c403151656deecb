"""The form of examples: what a model writes becomes an example of the same types, or nothing."""

from __future__ import annotations

import json

import pytest

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError
from synque_select.generation.record_form import (
    LabelSet,
    RecordForm,
    as_records,
    json_record,
    label_set,
)

CHAT = {
    "id": None,
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}


def answer(*examples: object) -> str:
    return json.dumps({"examples": examples})


def test_a_chat_keeps_its_roles_and_turns():
    form = RecordForm(CHAT, None, 100)
    assert form.fields == ("messages.0.content", "messages.1.content")
    records, n_wrong = form.read(
        answer({"messages.0.content": "Bye", "messages.1.content": "See you"}), 1
    )
    assert n_wrong == 0
    assert records == [
        {
            "id": None,
            "messages": [
                {"role": "user", "content": "Bye"},
                {"role": "assistant", "content": "See you"},
            ],
        }
    ]
    assert CHAT["messages"][0]["content"] == "Hi"  # the template is not changed


def test_types_are_those_of_the_data():
    form = RecordForm({"text": "x", "n": 3, "share": 0.5, "ok": True}, None, 100)
    good = {"text": "y", "n": "4", "share": "1", "ok": "False"}
    assert form.read(answer(good), 1)[0] == [{"text": "y", "n": 4, "share": 1.0, "ok": False}]
    for wrong in (
        {"n": "4.5"},
        {"n": "many"},
        {"share": "NaN"},
        {"ok": "perhaps"},
        {"n": None},
        {"n": "1e99"},
    ):
        assert form.read(answer({**good, **wrong}), 1) == ([], 1)


@pytest.mark.parametrize(
    "text",
    [
        "", "no JSON", "[]", '{"examples": 3}', '{"examples": [3, null, "x"]}', '{"other": []}',
        answer({"text": "x", "more": "y"}), answer({"text": ["x"]}), "{" * 5000,
        '{"examples": ' + "[" * 2000 + "]" * 2000 + "}",
    ],
)  # fmt: skip
def test_other_answers_give_nothing(text: str):
    assert RecordForm({"text": "x"}, None, 100).read(text, 3) == ([], 3)


def test_more_than_was_asked_for_is_ignored_and_less_is_counted():
    form = RecordForm({"text": "x"}, None, 100)
    many = answer(*({"text": f"t{i}"} for i in range(9)))
    assert form.read(many, 4) == ([{"text": f"t{i}"} for i in range(4)], 0)
    assert form.read(answer({"text": "t"}), 4)[1] == 3
    assert form.read(f"<think>{{}}</think>{answer({'text': 't'})} and more", 1)[1] == 0


def test_half_a_surrogate_pair_is_replaced():
    ((record,), _) = RecordForm({"text": "x"}, None, 100).read(
        '{"examples":[{"text":"\\ud800"}]}', 1
    )
    assert record["text"] == "?"


def test_classes_keep_their_values():
    rows = [{"text": t, "kind": k} for t, k in (("a", 1), ("b", 0), ("c", 1), ("d", None))]
    labels = label_set(Candidate("a", rows, view="text", label="kind"))
    assert labels == LabelSet("kind", {"0": 0, "1": 1}, (1, 2))
    form = RecordForm(rows[0], labels, 100)
    assert form.texts(rows[1]) == {"text": "b", "kind": "0"}
    read, _ = form.read(answer({"text": "x", "kind": " 1"}, {"text": "y", "kind": "7"}), 2)
    assert [record["kind"] for record in read] == [1, "7"]  # the second is dropped by `screen`


def test_quota_follows_the_proportions():
    quota = LabelSet("y", {"a": "a", "b": "b", "c": "c"}, (50, 30, 20)).quota(10)
    assert [quota.count(name) for name in "abc"] == [5, 3, 2]


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0.25, 0.5], "are numbers, not one class"), ([["x"], ["y"]], "are lists, not one class")],
)
def test_labels_that_are_not_classes(labels: list[object], words: str):
    rows = [{"text": t, "y": y} for t, y in zip("ab", labels, strict=True)]
    with pytest.raises(ConfigError, match=words):
        label_set(Candidate("a", rows, view="text", label="y"))


def test_a_label_that_is_not_a_field():
    with pytest.raises(ConfigError, match="is not a field"):
        label_set(Candidate("a", [{"text": "x"}, {"text": "y"}], view="text", label=len))


def test_texts_become_records():
    assert as_records(Candidate("a", ["x", "y"]))[1] == {"text": "y"}
    with pytest.raises(DataError, match="examples are tuples"):
        as_records(Candidate("a", [("x", 1), ("y", 2)], view=0))


def test_what_cannot_be_written():
    with pytest.raises(DataError, match="33 fields"):
        RecordForm({f"f{i}": "x" for i in range(33)}, None, 100)
    with pytest.raises(DataError, match="same path"):
        RecordForm({"a": {"b": "x"}, "a.b": "y"}, None, 100)
    with pytest.raises(DataError, match="nested more than 8"):
        RecordForm({"a": [[[[[[[[["x"]]]]]]]]]}, None, 100)
    with pytest.raises(DataError, match=r"example 0 .*of type object"):
        json_record(Candidate("a", [{"t": "x", "o": object()}] * 2, view="t"), 0)
