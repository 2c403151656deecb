"""Chats in records: lists of turns, as OpenAI's `messages` or ShareGPT's `conversations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CHAT_FIELDS", "Turn", "turns_of"]

CHAT_FIELDS = ("messages", "conversations", "conversation")
_KEYS = (("role", "content"), ("from", "value"))
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "bot", "model", "ai"), "assistant"),
}


class Turn(NamedTuple):
    """One turn of a chat; its role is "user", "assistant" or as it is written."""

    role: str
    text: str


def turns_of(value: object) -> list[Turn] | None:
    """Return the turns of a chat; None if the value is not a chat.

    Args:
        value: A list of {"role", "content"} or {"from", "value"}, or, as some tables store it, one
            such mapping of lists. A content may be a list of parts, of which the texts are read.

    Example:
        >>> turns_of([{"from": "human", "value": "Hi"}])
        [Turn(role='user', text='Hi')]
        >>> turns_of(["Hi"]) is None
        True
    """
    if isinstance(value, Mapping):
        value = _transposed(value)
    if not isinstance(value, list | tuple):
        return None
    turns = []
    for part in value:
        keys = _keys(part)
        if keys is None or not isinstance(part, Mapping):
            return None
        role, content = (part[key] for key in keys)
        if not isinstance(role, str):
            return None
        turns.append(Turn(_ROLES.get(role.lower(), role), _text(content)))
    return turns


def _keys(part: object) -> tuple[str, str] | None:
    if not isinstance(part, Mapping):
        return None
    # in a table that holds both kinds, the columns of the other kind are empty
    held = [keys for keys in _KEYS if part.get(keys[0]) is not None and keys[1] in part]
    return held[0] if held else None


def _transposed(value: Mapping[object, object]) -> object:
    columns = {key: part for key, part in value.items() if isinstance(part, list | tuple)}
    if not columns or len({len(part) for part in columns.values()}) != 1:
        return value
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _text(content: object) -> str:
    if content is None:  # as of a turn that calls a tool
        return ""
    parts = content if isinstance(content, list | tuple) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    is_number = [isinstance(text, int | float) for text in texts]
    shown = [str(text) if number else text for text, number in zip(texts, is_number, strict=True)]
    return "\n".join(text for text in shown if isinstance(text, str))
