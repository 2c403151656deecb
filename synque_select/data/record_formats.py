"""Kinds of records that people have, and the view that each of them gets by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from synque_select.data.chats import CHAT_FIELDS, turns_of
from synque_select.data.selectors import find_view, is_words, text_fields
from synque_select.data.views import Selector, modality_of
from synque_select.errors import ConfigError

__all__ = ["FORMATS", "RecordFormat", "ViewChoice", "choose_view"]

_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_A", "sentence_B"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "passage"),
    ("query", "document"),
)
_ANSWERED = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
# texts that are never meant as the view if there is another one
_ABOUT = frozenset(
    (
        *("id", "_id", "idx", "index", "uid", "uuid", "guid", "key", "hash", "url", "source"),
        *("label", "labels", "label_text", "category", "class", "intent", "topic", "split"),
        *("language", "lang"),
    )
)
_WITHOUT_TEXT = (
    "the examples hold token ids (input_ids) without their text, and proxies read texts. Keep the "
    "text when tokenizing (dataset.map without remove_columns, or without that column in it), or "
    "give a function that decodes, such as view=lambda example: "
    "tokenizer.decode(example['input_ids'], skip_special_tokens=True); in a config or on the "
    "command line, its dotted name"
)
_CHAT_VIEWS = ("chat:user", "chat:assistant", "chat:all")
_MAX_SHOWN = 8
_MAX_DEPTH = 3


class ViewChoice(NamedTuple):
    """A view that was chosen because none was given.

    Args:
        selector: The selector.
        kind: What the records were recognized as; "" if they have only one text or image.
        others: Views that may be given instead.
    """

    selector: Selector
    kind: str = ""
    others: tuple[str, ...] = ()


class RecordFormat(NamedTuple):
    """A kind of records.

    Args:
        kind: Its name.
        fields: Its fields, for documentation.
        find: Returns the view of an example and the other views; None for another kind of record.
    """

    kind: str
    fields: str
    find: Callable[[Mapping[str, object]], tuple[str, ...] | None]


def _is_text(value: object) -> bool:
    return isinstance(value, str) or bool(turns_of(value))


def _has(example: Mapping[str, object], *names: str) -> bool:
    return all(_is_text(example.get(name)) for name in names)


def _preference(example: Mapping[str, object]) -> tuple[str, ...] | None:
    if not _has(example, "chosen", "rejected"):
        return None
    if _has(example, "prompt"):
        return ("prompt", "chosen", "rejected")
    return ("chosen", "rejected")


def _chat(example: Mapping[str, object]) -> tuple[str, ...] | None:
    chats = [name for name, value in example.items() if turns_of(value)]
    is_chat = len(chats) == 1 or any(name in chats for name in CHAT_FIELDS)
    return _CHAT_VIEWS if is_chat else None


def _alpaca(example: Mapping[str, object]) -> tuple[str, ...] | None:
    if not _has(example, "instruction", "output"):
        return None
    return ("alpaca:prompt", "alpaca:all", "instruction", "output")


def _answered(example: Mapping[str, object]) -> tuple[str, ...] | None:
    for prompt, answer in _ANSWERED:
        if _has(example, prompt, answer):
            return (prompt, answer, f"{prompt}+{answer}")
    return None


def _pair(example: Mapping[str, object]) -> tuple[str, ...] | None:
    for first, second in _PAIRS:
        if _has(example, first, second):
            return (f"{first}+{second}", first, second)
    return None


def _tags(example: Mapping[str, object]) -> tuple[str, ...] | None:
    if any(isinstance(example.get(name), str) for name in ("text", "sentence")):
        return None
    for name in ("tokens", "words"):
        words = example.get(name)
        if is_words(words):
            beside = (value for key, value in example.items() if key != name)
            if any(isinstance(v, list | tuple) and len(v) == len(words) for v in beside):
                return (name,)
    return None


# the first that fits counts: a conversational record of preferences also holds chats
FORMATS = (
    RecordFormat("preferences", "prompt, chosen, rejected", _preference),
    RecordFormat("Alpaca instructions", "instruction, input, output", _alpaca),
    RecordFormat("prompts with answers", "prompt, completion", _answered),
    RecordFormat("chats", "messages or conversations", _chat),
    RecordFormat("pairs of texts", "premise, hypothesis", _pair),
    RecordFormat("words with tags", "tokens, ner_tags", _tags),
)


def choose_view(example: object, label: Selector | None = None) -> ViewChoice:
    """Choose the view of records for which none was given.

    An image is chosen if there is exactly one; then the view of the format that the record has, see
    `FORMATS`; then the only text; then the only text that is not an id, a label or the like.

    Args:
        example: The first example.
        label: Selector of its label, which is not chosen; None without.

    Raises:
        ConfigError: No part or several parts of the example qualify; the message lists them.

    Example:
        >>> choose_view({"headline": "Shares rise", "sentiment": 1})
        ViewChoice(selector='headline', kind='', others=())
        >>> view = choose_view({"premise": "It rains.", "hypothesis": "It is wet.", "label": 0})
        >>> view.kind, str(view.selector)
        ('pairs of texts', 'premise+hypothesis')
    """
    if modality_of(example) is not None:
        return ViewChoice(_identity)
    parts = _parts(example)
    usable = [k for k, value in parts.items() if k != label and modality_of(value) is not None]
    images = [key for key in usable if modality_of(parts[key]) == "image"]
    if len(images) == 1:
        return ViewChoice(images[0])
    known = None if images else _of_format(example, parts, label)
    if known is not None:
        return known
    meant = [key for key in usable if str(key).lower() not in _ABOUT]
    # beside token ids, an only text such as a class is not what the ids were made from
    if len(usable) == 1 and (meant or not _is_tokenized(parts)):
        return ViewChoice(usable[0])
    if len(meant) != 1:
        raise _no_choice(usable, {key: value for key, value in parts.items() if key != label})
    others = tuple(str(key) for key in usable if key != meant[0])
    return ViewChoice(meant[0], "records with one text beside ids and labels", others)


def _of_format(
    example: object, parts: Mapping[str | int, object], label: Selector | None
) -> ViewChoice | None:
    """Return the view of the first format that fits."""
    if isinstance(example, Mapping):
        # what the label holds, such as tags, may be what tells the format
        fields = {str(key): value for key, value in parts.items()}
        for form in FORMATS:
            views = [v for v in form.find(fields) or () if not _reads_label(v, example, label)]
            if views:
                return ViewChoice(find_view(example, views[0]), form.kind, tuple(views[1:]))
    elif turns_of(example) or any(turns_of(part) for part in parts.values()):
        return ViewChoice(find_view(example, "chat:user"), "chats", _CHAT_VIEWS[1:])
    return None


def _reads_label(view: str, example: object, label: Selector | None) -> bool:
    """Return whether a view of a format shows the field of the label."""
    if not isinstance(label, str):
        return False
    if view in _CHAT_VIEWS:
        return getattr(find_view(example, view), "field", None) == label
    return label in text_fields(view)


def _identity(example: object) -> object:
    return example


def _parts(example: object) -> dict[str | int, object]:
    if isinstance(example, Mapping):
        return {str(key): value for key, value in example.items()}
    if isinstance(example, Sequence):
        return dict(enumerate(example))
    raise ConfigError(
        f"no view was given, and an example of type {type(example).__name__} has no fields: "
        "give a function as view="
    )


def _is_tokenized(parts: Mapping[str | int, object]) -> bool:
    return "input_ids" in parts


def _no_choice(usable: Sequence[str | int], parts: Mapping[str | int, object]) -> ConfigError:
    missing = "no view was given (view=, on the command line --view)"
    texts = usable or _paths(parts)
    if _is_tokenized(parts) and all(str(text).lower() in _ABOUT for text in texts):
        return ConfigError(_WITHOUT_TEXT)
    if texts:
        return ConfigError(f"{missing}: choose one of {', '.join(map(repr, texts))}")
    shown = ", ".join(map(repr, parts)) or "nothing"
    return ConfigError(
        f"{missing}, and the first example has no text or image, only {shown}: give a function of "
        "an example that returns one; in a config or on the command line, its dotted name"
    )


def _paths(parts: object, before: str = "", depth: int = 0) -> list[str]:
    """Return the paths of texts in an example."""
    if isinstance(parts, Mapping):
        inner = list(parts.items())
    elif isinstance(parts, list | tuple):
        inner = list(enumerate(parts))[:1]
    else:
        return []
    paths = []
    for key, value in inner:
        path = f"{before}{key}"
        if isinstance(value, str) or (is_words(value) and depth == 0):
            paths.append(path)
        elif depth < _MAX_DEPTH:
            paths += _paths(value, f"{path}.", depth + 1)
    return paths[:_MAX_SHOWN]
