"""Records as people have them get the view that they need, and what is proposed works."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.chats import turns_of
from synque_select.data.record_formats import FORMATS, choose_view
from synque_select.data.selectors import TextsView, WordsView, find_view, text_fields
from synque_select.data.sources import load_real
from synque_select.data.views import select
from synque_select.errors import ConfigError, DataError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
KINDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "messages": ({"messages": MESSAGES}, "chats", "chat:user", "Hi\n\nBye"),
    "with an id": ({"id": "7", "messages": MESSAGES}, "chats", "chat:user", "Hi\n\nBye"),
    "ShareGPT": ({"conversations": SHAREGPT}, "chats", "chat:user", "Hi"),
    "parts": ({"messages": PARTS}, "chats", "chat:user", "What is it?"),
    "columns": (
        {"conversations": {"from": ["human", "gpt"], "value": ["Hi", "Hello"]}},
        "chats",
        "chat:user",
        "Hi",
    ),
    "another name": ({"dialog": MESSAGES[1:]}, "chats", "dialog", "Hi\n\nBye"),
    "prompt, completion": (
        {"prompt": "Say hi", "completion": "Hi"},
        "prompts with answers",
        "prompt",
        "Say hi",
    ),
    "prompt, completion, chats": (
        {"prompt": MESSAGES[1:2], "completion": MESSAGES[2:3]},
        "prompts with answers",
        "prompt",
        "Hi",
    ),
    "KTO": (
        {"prompt": "Say hi", "completion": "Hi", "label": True},
        "prompts with answers",
        "prompt",
        "Say hi",
    ),
    "Alpaca": (
        {"instruction": "Add", "input": "1 and 2", "output": "3"},
        "Alpaca instructions",
        "alpaca:prompt",
        "Add\n1 and 2",
    ),
    "Alpaca without input": (
        {"instruction": "Say hi", "input": "", "output": "Hi"},
        "Alpaca instructions",
        "alpaca:prompt",
        "Say hi",
    ),
    "preferences": (
        {"prompt": "Say hi", "chosen": "Hi", "rejected": "No"},
        "preferences",
        "prompt",
        "Say hi",
    ),
    "preferences, chats": (
        {"chosen": MESSAGES, "rejected": MESSAGES, "score": 0.5},
        "preferences",
        "chosen",
        "Hi\n\nBye",
    ),
    "pair": (
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
        "pairs of texts",
        "premise+hypothesis",
        "It rains.\nIt is wet.",
    ),
    "question, answer": (
        {"question": "Why?", "answer": "So."},
        "prompts with answers",
        "question",
        "Why?",
    ),
    "tags": (
        {"id": "0", "tokens": ["EU", "rejects"], "ner_tags": [3, 0]},
        "words with tags",
        "tokens",
        "EU rejects",
    ),
    "several labels": ({"text": "Hi", "labels": ["a", "b"]}, "", "text", "Hi"),
    "a number": ({"sentence": "Hi", "score": 0.5}, "", "sentence", "Hi"),
    "a label that is a text": (
        {"text": "Hi", "label": "greeting"},
        "records with one text beside ids and labels",
        "text",
        "Hi",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_view_of_a_known_kind(kind: str):
    record, name, view, text = KINDS[kind]
    choice = choose_view(record)
    assert (choice.kind, str(choice.selector)) == (name, view)
    assert list(Candidate("a", [record, record]).views) == [text, text]


@pytest.mark.parametrize("kind", KINDS)
def test_each_other_view_that_is_proposed_works(kind: str):
    record = KINDS[kind][0]
    for view in choose_view(record).others:
        assert all(isinstance(text, str) for text in Candidate("a", [record] * 2, view).views)


@pytest.mark.parametrize(
    ("record", "label", "kind", "view", "others"),
    [
        ({"tokens": ["A", "b"], "ner_tags": [1, 0]}, "ner_tags", "words with tags", "tokens", ()),
        (
            {"instruction": "Add", "input": "1 and 2", "output": "3"},
            "output",
            "Alpaca instructions",
            "alpaca:prompt",
            ("instruction",),
        ),
        (
            {"question": "Why?", "answer": "So."},
            "answer",
            "prompts with answers",
            "question",
            (),
        ),
        ({"premise": "It rains.", "hypothesis": "Wet."}, "premise", "pairs of texts",
         "hypothesis", ()),
        ({"messages": MESSAGES, "tone": "warm"}, "tone", "chats", "chat:user",
         ("chat:assistant", "chat:all")),
        ({"messages": MESSAGES, "text": "Hi"}, "messages", "", "text", ()),
    ],
)  # fmt: skip
def test_a_label_tells_the_format_but_is_in_no_view(
    record: dict[str, Any], label: str, kind: str, view: str, others: tuple[str, ...]
):
    choice = choose_view(record, label)
    assert (choice.kind, str(choice.selector), choice.others) == (kind, view, others)


def test_every_format_is_tried():
    assert {kind for _, kind, _, _ in KINDS.values() if kind} >= {each.kind for each in FORMATS}


@pytest.mark.parametrize(
    ("view", "text"),
    [
        ("chat:user", "Hi\n\nBye"),
        ("chat:assistant", "Hello"),
        ("chat:system", "Be brief."),
        ("chat:all", "system: Be brief.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Bye"),
        ("messages", "Hi\n\nBye"),
        ("messages.1.content", "Hi"),
        ("messages.-1.content", "Bye"),
        ("meta.topic", "greeting"),
        ("words", "a b"),
        ("meta.topic,n", '{"meta.topic": "greeting", "n": 3}'),
        (["n", "meta.topic"], '{"n": 3, "meta.topic": "greeting"}'),
        (("n", "q"), '{"n": 3, "q": "Why?"}'),
        (["q"], "Why?"),
        ("q + n", "Why?\n3"),
        ("q+words+messages", "Why?\na b\nHi\n\nBye"),
        ("a+b", "plus"),
        ("x,y", "comma"),
    ],
)
def test_views_as_users_write_them(view: Any, text: str):
    record = {
        "messages": MESSAGES,
        "meta": {"topic": "greeting"},
        "words": ["a", "b"],
        "n": 3,
        "q": "Why?",
        "a+b": "plus",
        "x,y": "comma",
    }
    assert Candidate("a", [record] * 2, view).views[1] == text


def test_a_chat_that_is_the_example_or_a_part_of_a_tuple():
    assert Candidate("a", [MESSAGES, MESSAGES]).views[0] == "Hi\n\nBye"
    assert Candidate("a", [(MESSAGES, 0)] * 2).views[0] == "Hi\n\nBye"
    assert Candidate("a", [("x", 0)] * 2, view="0").views[0] == "x"


def test_a_chat_without_a_turn_of_the_user_is_an_empty_text():
    assert Candidate("a", [{"messages": MESSAGES}, {"messages": []}]).views[1] == ""


@pytest.mark.parametrize(
    ("record", "view", "message"),
    [
        ({"text": "x"}, "chat:user", "chat:user needs a chat.*there are: text"),
        ({"messages": MESSAGES}, "chat:usr", "unknown role 'usr'; did you mean 'user'"),
        ({"text": "x"}, "alpaca:promt", "allowed are alpaca:prompt and alpaca:all"),
        ({"text": "x"}, "alpaca:prompt", "no field 'instruction'"),
        ({"text": "x"}, "text,titel", "no field 'titel'"),
        ({"text": "x"}, "text+titel", "no field 'titel'"),
        ({"meta": {"a": "x"}}, "meta.b", "the path 'meta.b' ends before 'b': no field 'b'"),
        ({"turns": ["x"]}, "turns.3", "ends before '3': no position 3: the example has 1 part"),
        ({"text": "x", "n": 1}, "n", "must be a text or an image, found int"),
    ],
)
def test_what_is_not_there_is_said(record: dict[str, Any], view: str, message: str):
    with pytest.raises((ConfigError, DataError), match=message):
        Candidate("a", [record, record], view=view)


def test_paths_are_proposed_where_the_texts_are_inside():
    record = {"id": 3, "request": {"body": "Hi", "n": 1}}
    with pytest.raises(ConfigError, match=r"choose one of 'request\.body'$"):
        choose_view(record)
    assert select(record, find_view(record, "request.body")) == "Hi"


def test_token_ids_without_text_say_what_to_do():
    record = {"input_ids": [101, 7], "attention_mask": [1, 1], "labels": 0}
    # a class in words is not the text that was tokenized, whether or not it is given as the label
    named = {**record, "labels": "sports"}
    for example, label in ((record, None), (record, "labels"), (named, None), (named, "labels")):
        with pytest.raises(ConfigError, match=r"token ids.*without remove_columns.*\.decode"):
            Candidate("a", [example, example], label=label)
    with pytest.raises(ConfigError, match=r"token ids"):
        choose_view({**named, "id": "7"})
    with pytest.raises(ConfigError, match=r"choose one of 'title', 'body'$"):
        choose_view({**named, "title": "x", "body": "y"}, label="labels")
    assert choose_view({**named, "title": "x"}).selector == "title"
    assert choose_view({"label": "x", "n": 1}).selector == "label"


def test_the_text_that_a_format_or_transform_hides_is_found_again():
    import datasets
    import torch.utils.data

    records = {"text": ["x", "y"], "input_ids": [[1], [2]], "label": [0, 1]}
    formatted = datasets.Dataset.from_dict(records)
    formatted.set_format("torch", columns=["input_ids"])
    transformed = datasets.Dataset.from_dict(records).with_transform(
        lambda batch: {"input_ids": batch["input_ids"]}
    )
    part = torch.utils.data.Subset(formatted, [1, 0])
    for data in (formatted, transformed):
        candidate = Candidate("a", data, label="label")
        assert (list(candidate.views), candidate.labels) == (["x", "y"], ("0", "1"))
        assert "text" not in candidate[0]  # training gets what it got before
    assert list(RealSample("real", part).views) == ["y", "x"]
    assert list(Candidate("a", formatted).without([]).views) == ["x", "y"]


def test_the_fields_of_a_view_stay_texts_in_csv():
    assert text_fields("premise+hypothesis") >= {"premise", "hypothesis"}
    assert text_fields("alpaca:prompt") == {"instruction", "input"}
    assert text_fields(["a", "b"]) == {"a", "b"}


def test_a_function_in_the_working_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_own_views_7.py").write_text(
        "def loud(record):\n    return record['q'].upper()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert Candidate("a", [{"q": "x"}] * 2, view="my_own_views_7.loud").views[0] == "X"


def test_a_missing_number_of_several_fields_is_not_the_text_nan():
    view = TextsView(("a", "b"))
    assert view({"a": "x", "b": 1.5}) == "x\n1.5"
    with pytest.raises(DataError, match="expected a text in 'b', found"):
        view({"a": "x", "b": math.nan})


def test_words_may_be_none_at_all_but_not_other_values():
    assert WordsView("tokens")({"tokens": []}) == ""
    for value, what in ((["a", None], "nothing"), ("a b", "str"), (["a", 1], "int")):
        with pytest.raises(DataError, match=f"expected a list of words, found {what}"):
            WordsView("tokens")({"tokens": value})


def test_a_number_in_a_turn_is_its_text():
    contents = [5, [{"type": "text", "text": "a"}, 7], {"text": "b"}, None]
    turns = turns_of([{"role": "user", "content": content} for content in contents])
    assert [turn.text for turn in turns or ()] == ["5", "a\n7", "b", ""]


def test_a_module_that_ends_the_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ends_the_program.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(DataError, match="ends_the_program ends the program when it is imported"):
        load_real([{"text": "x"}, {"text": "y"}], view="ends_the_program.view")
