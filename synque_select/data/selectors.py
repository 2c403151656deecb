"""Selectors as users write them: fields, paths, positions, several fields, chats, dotted names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from synque_select.data.chats import CHAT_FIELDS, turns_of
from synque_select.data.views import FieldsView, Selector, describe, fields_view, select
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.utils.working_folder import modules_of_working_folder

__all__ = [
    "ChatView",
    "TextsView",
    "WordsView",
    "find_selector",
    "find_view",
    "is_words",
    "text_fields",
]

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PATH = re.compile(r"[^.]+(\.[^.]+)+")
_ALPACA = {
    "prompt": (("instruction", "input"), ("input",)),
    "all": (("instruction", "input", "output"), ("input",)),
}


@dataclass(frozen=True)
class ChatView:
    r"""View of a chat: the texts of one role, or all turns.

    Args:
        role: "user", "assistant" or another role; "all" for all turns, each after its role.
        field: Field, path or position of the chat; None if the example itself is the chat.

    Example:
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> ChatView("user", None)(chat), ChatView("all", None)(chat)
        ('Hi', 'user: Hi\n\nassistant: Hello')
    """

    role: str
    field: str | int | None

    def __str__(self) -> str:
        is_default = self.field is None or self.field in CHAT_FIELDS or self.role != "user"
        return f"chat:{self.role}" if is_default else str(self.field)

    def __call__(self, example: object) -> str:
        """Return the text of one example."""
        value = example if self.field is None else select(example, self.field)
        turns = turns_of(value)
        if turns is None:
            raise DataError(
                "expected a chat (a list of turns with role and content, or from and value), "
                f"found {describe(value, example)}"
            )
        if self.role == "all":
            return "\n\n".join(f"{turn.role}: {turn.text}" for turn in turns)
        return "\n\n".join(turn.text for turn in turns if turn.role == self.role)


@dataclass(frozen=True)
class TextsView:
    r"""View of several fields as one text, with a line break between them.

    Args:
        names: Fields or paths, in this order.
        optional: Those that may be missing, None or blank.
        name: How the view is written.

    Example:
        >>> TextsView(("premise", "hypothesis"))({"premise": "It rains.", "hypothesis": "Wet."})
        'It rains.\nWet.'
    """

    names: tuple[str, ...]
    optional: tuple[str, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        return self.name or "+".join(self.names)

    def __call__(self, example: object) -> str:
        """Return the text of one example."""
        return "\n".join(filter(None, (self._part(example, name) for name in self.names)))

    def _part(self, example: object, name: str) -> str:
        is_optional = name in self.optional
        if is_optional and isinstance(example, Mapping) and example.get(name) is None:
            return ""
        value = select(example, name)
        if isinstance(value, str):
            return value.strip() if is_optional else value
        text = _as_text(value)
        if text is None:
            raise DataError(f"expected a text in {name!r}, found {describe(value, example)}")
        return text


@dataclass(frozen=True)
class WordsView:
    """View of a list of words, such as `tokens` with tags, as one text.

    Args:
        field: Field, path or position of the list.

    Example:
        >>> WordsView("tokens")({"tokens": ["EU", "rejects", "call"]})
        'EU rejects call'
    """

    field: str | int

    def __str__(self) -> str:
        return str(self.field)

    def __call__(self, example: object) -> str:
        """Return the text of one example."""
        value = select(example, self.field)
        words = value if isinstance(value, list | tuple) else [value]
        for word in words:
            if not isinstance(word, str) or words is not value:
                raise DataError(f"expected a list of words, found {describe(word, example)}")
        return " ".join(words)


def _as_text(value: object) -> str | None:
    if is_words(value):
        return " ".join(value)
    turns = turns_of(value)
    if turns is not None:
        return "\n\n".join(turn.text for turn in turns if turn.role == "user")
    # NaN is a missing value
    return str(value) if isinstance(value, int | float) and value == value else None


def is_words(value: object) -> TypeGuard[list[str] | tuple[str, ...]]:
    """Whether a value is a list of texts that is not empty.

    Example:
        >>> is_words(["a", "b"]), is_words("a"), is_words([1])
        (True, False, False)
    """
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(part, str) for part in value)
    )


def find_selector(example: object, selector: Selector) -> Selector:
    """Return a selector as a field, path, position or function.

    A text is taken for the first of these that fits: a field of the example; a chat ("chat:user",
    "chat:assistant", "chat:all"); Alpaca fields ("alpaca:prompt", "alpaca:all"); several fields as
    the text of a JSON object ("a,b") or as one text ("a+b"); a path ("turns.0.text"); the dotted
    name of a function that can be imported, also from the working directory. A list or tuple of
    fields is like "a,b".

    Args:
        example: An example.
        selector: The selector as the user gave it.

    Raises:
        DataError: A field, role, path or function does not exist; the message lists what does.
        ConfigError: A list is empty, or "alpaca:…" has an unknown part.

    Example:
        >>> find_selector({"text": "x"}, "text")
        'text'
        >>> str(find_selector({"messages": [{"role": "user", "content": "Hi"}]}, "chat:user"))
        'chat:user'
        >>> find_selector(["/data/a.txt"], "os.path.basename").__name__
        'basename'
    """
    if isinstance(selector, list | tuple):
        names = [str(part) for part in selector]
        return find_selector(example, names[0]) if len(names) == 1 else _checked(example, names)
    if not isinstance(selector, str) or (isinstance(example, Mapping) and selector in example):
        return selector
    kind, colon, part = selector.partition(":")
    if colon and kind == "chat":
        return _chat(example, part)
    if colon and kind == "alpaca":
        return _alpaca(selector, part)
    if "," in selector:
        return _checked(example, [name.strip() for name in selector.split(",")])
    if "+" in selector:
        view = TextsView(tuple(name.strip() for name in selector.split("+")))
        view(example)
        return view
    if selector.isdecimal() and not isinstance(example, Mapping):
        return int(selector)
    if _is_path(example, selector):
        return selector
    return _function(example, selector) if _DOTTED.fullmatch(selector) else selector


def find_view(example: object, selector: Selector) -> Selector:
    """Return the selector of a view; a chat or a list of words that it names is read as text.

    Args:
        example: The first example.
        selector: As for `find_selector`.

    Example:
        >>> view = find_view({"messages": [{"role": "user", "content": "Hi"}]}, "messages")
        >>> view({"messages": [{"role": "user", "content": "Bye"}]})
        'Bye'
    """
    resolved = find_selector(example, selector)
    if callable(resolved) or isinstance(resolved, list | tuple):
        return resolved
    value = select(example, resolved)
    if turns_of(value):
        return ChatView("user", resolved)
    return WordsView(resolved) if is_words(value) else resolved


def text_fields(view: Selector | None) -> frozenset[str]:
    """Return the names of the fields that a view shows, which CSV files keep as text.

    Args:
        view: A selector; of a function, the fields are not known.

    Example:
        >>> sorted(text_fields("task,price")), sorted(text_fields("task"))
        (['price', 'task', 'task,price'], ['task'])
    """
    if isinstance(view, FieldsView | TextsView):
        return frozenset(view.names)
    if isinstance(view, list | tuple):
        return frozenset(map(str, view))
    if not isinstance(view, str):
        return frozenset()
    kind, _, part = view.partition(":")
    if kind == "alpaca" and part in _ALPACA:
        return frozenset(_ALPACA[part][0])
    parts = (name.strip() for name in re.split(r"[,+]", view))
    return frozenset(name for name in (view, *parts) if name)


def _checked(example: object, names: Sequence[str]) -> Selector:
    view = fields_view(*names)
    view(example)  # a name that does not exist is said here
    return view


def _chat(example: object, role: str) -> ChatView:
    field = _chat_field(example)
    if field is _NO_CHAT:
        raise DataError(
            f"chat:{role} needs a chat, a list of turns with role and content, or from and value; "
            f"{_fields_of(example)}"
        )
    view = ChatView(role, field)
    turns = turns_of(example if field is None else select(example, field)) or []
    roles = {turn.role for turn in turns} | {"user", "assistant", "system"}
    if role not in {*roles, "all"}:
        raise DataError(
            f"chat:{role}: unknown role {role!r}; {did_you_mean(role, [*roles, 'all'])}"
        )
    return view


_NO_CHAT = "\0"


def _chat_field(example: object) -> str | int | None:
    """Return the field that holds the chat; None if the example is one, `_NO_CHAT` without."""
    if isinstance(example, Mapping):
        fields = [name for name, value in example.items() if turns_of(value)]
        known = [name for name in (*CHAT_FIELDS, "prompt", "chosen") if name in fields]
        return next(iter([*known, *fields]), _NO_CHAT)
    if turns_of(example):
        return None
    parts = example if isinstance(example, list | tuple) else ()
    return next((place for place, part in enumerate(parts) if turns_of(part)), _NO_CHAT)


def _alpaca(selector: str, part: str) -> TextsView:
    if part not in _ALPACA:
        raise ConfigError(f"view={selector!r}: allowed are alpaca:prompt and alpaca:all")
    names, optional = _ALPACA[part]
    return TextsView(names, optional, selector)


def _is_path(example: object, selector: str) -> bool:
    if not _PATH.fullmatch(selector):
        return False
    head = selector.partition(".")[0]
    if isinstance(example, Mapping):
        return head in example
    return head.isdecimal() and not isinstance(example, str)


def _function(example: object, selector: str) -> Selector:
    module, _, name = selector.rpartition(".")
    try:
        with modules_of_working_folder():
            function = getattr(importlib.import_module(module), name)
    except SystemExit as error:
        raise DataError(
            f"view or label {selector!r}: the module {module} ends the program when it is imported "
            '(sys.exit, or options that it parses): put that below if __name__ == "__main__"'
        ) from error
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"no field {selector!r} and no such function ({error}); {_fields_of(example, selector)}"
        ) from error
    if not callable(function):
        raise DataError(f"{selector!r} is of type {type(function).__name__}, not a function")
    imported: Selector = function
    return imported


def _fields_of(example: object, name: str = "") -> str:
    if not isinstance(example, Mapping) or not example:
        return "the example has no fields"
    return did_you_mean(name, map(str, example))
