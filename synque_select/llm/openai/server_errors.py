"""What servers say when they cannot answer: their own words, from bodies of any shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import unescape

from synque_select.errors import LLMError
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json
from synque_select.utils.wording import one_line

__all__ = ["ServerError", "error_in_answer", "is_refusal", "server_words"]

# where servers put the message of an error, the most telling first
_MESSAGES = (
    "message", "msg", "detail", "details", "error", "errors", "error_message", "errormessage",
    "error_msg", "error_description", "description", "reason", "fault", "faultstring", "title",
    "metadata", "raw", "param", "code", "type",
)  # fmt: skip
_ERRORS = frozenset(("errors", "detail", "details", "error"))
_MOST_PARTS = 5
_MAX_BODY = 1 << 20
# an element without an end reaches to that of the text, so that each character is read once
_TITLE = re.compile(r"<(title|h1)\b[^<>]*>(.*?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)|<[^<>]*>", re.IGNORECASE | re.DOTALL)
# how servers say that they do not answer this prompt: the next one may be answered
_REFUSALS = re.compile(
    r"content[_ -]?(?:filter|management|policy|moderation)|responsibleai|inappropriate content"
    r"|data_?inspection|moderation|flagged|usage polic|safety (?:system|filter|setting|reason)"
    r"|invalid_prompt|prohibited_content|sensitive (?:content|word|information)|guardrail",
    re.IGNORECASE,
)


class ServerError(Exception):
    """An error that a server answered with, whatever the status of its answer says.

    Args:
        status: Status of the error: that of the answer, or the one in its body.
        words: The server's own words, on one line.
        headers: Headers of the answer, with lower-case names.
    """

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        # a proxy's page is titled "502 Bad Gateway"
        self.words = words.removeprefix(f"{status} ") or words
        super().__init__(f"{status}: {self.words}")
        self.headers = headers or {}


def server_words(body: str) -> str:
    r"""Return the message in the body of an error, on one line.

    Args:
        body: JSON of any shape, HTML or text.

    Example:
        >>> server_words('{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}')
        'body -> seed: not permitted'
        >>> server_words('[{"error": {"code": 400, "message": "Unknown name"}}]')
        'Unknown name'
        >>> server_words("<html><title>502 Bad Gateway</title></html>")
        '502 Bad Gateway'
        >>> server_words("")
        'no message'
    """
    text = body[:_MAX_BODY].strip().removeprefix("\ufeff").removeprefix("data:").strip()
    try:
        state = parse_json(text, "the answer", error=LLMError)
    except LLMError:
        return one_line(_plain(text)) or "no message"
    parts: list[str] = []
    for part in _words(state):
        # a parameter that the message has named already, or a message that is there twice
        if not any(part in earlier for earlier in parts):
            parts.append(part)
    return one_line("; ".join(parts[: 2 * _MOST_PARTS]) or json.dumps(state, ensure_ascii=False))


def _plain(text: str) -> str:
    if not text.startswith("<"):
        return text
    titles = [unescape(_TAG.sub(" ", match[1])) for match in _TITLE.findall(text[:_MAX_BODY])]
    return "; ".join(dict.fromkeys(map(one_line, titles))) or unescape(_TAG.sub(" ", text))


def _words(state: Json, *, names: bool = False) -> Iterator[str]:
    """Yield the messages in a value; with `names`, those of a mapping of names to messages too."""
    if isinstance(state, str):
        yield one_line(state)
    elif isinstance(state, Mapping):
        yield from _words_of_object(state, names=names)
    elif isinstance(state, list):
        for part in state[:_MOST_PARTS]:
            yield from _words(part, names=names)


def _words_of_object(state: Mapping[str, Json], *, names: bool) -> Iterator[str]:
    lower = {str(name).lower(): value for name, value in state.items()}
    place = lower.get("loc")
    sentence = lower.get("msg", lower.get("message"))
    if isinstance(place, list) and isinstance(sentence, str):
        yield one_line(f"{' -> '.join(str(step) for step in place)}: {sentence}")
        return
    known = [name for name in _MESSAGES if lower.get(name)]
    for name in known:
        if name in ("code", "type") and len(known) > 1 and known[0] not in ("code", "type"):
            # kept only if the words do not say what went wrong: "content_filter" does
            if isinstance(lower[name], str) and _REFUSALS.search(str(lower[name])):
                yield str(lower[name])
            continue
        yield from _words(lower[name], names=name in _ERRORS)
    if not known and names:
        for name, value in list(state.items())[:_MOST_PARTS]:
            yield from (f"{name}: {part}" for part in _words(value))


def is_refusal(words: str) -> bool:
    """Return whether a server says that it does not answer this prompt, because of its content.

    Example:
        >>> is_refusal("The response was filtered due to our content management policy.")
        True
        >>> is_refusal("Unknown parameter: 'seed'")
        False
    """
    return _REFUSALS.search(words) is not None


def error_in_answer(state: Mapping[str, Json]) -> ServerError | None:
    """Return the error in an answer whose status is 200, if it is one.

    Example:
        >>> error_in_answer({"error": {"message": "upstream busy", "code": 429}}).status
        429
        >>> error_in_answer({"choices": [], "error": None}) is None
        True
    """
    choices = state.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    holder = first if isinstance(first, Mapping) and first.get("error") else state
    if holder is state and (first is not None or not _is_error(state)):
        return None
    error = holder.get("error") or state
    codes = [
        part.get("code", part.get("status")) for part in (error, state) if isinstance(part, Mapping)
    ]
    words = server_words(json.dumps(error))
    # without a number, a refusal is an answer, and anything else may pass
    usual = 400 if is_refusal(words) else 500
    status = next((code for code in map(_status, codes) if code is not None), usual)
    return ServerError(status, words)


def _is_error(state: Mapping[str, Json]) -> bool:
    has_words = any(state.get(name) for name in ("message", "detail", "errors", "msg"))
    return (
        bool(state.get("error"))
        or state.get("object") == "error"
        or (has_words and "choices" not in state)
    )


def _status(code: Json) -> int | None:
    try:
        number = int(str(code))
    except ValueError:
        return None
    return number if 400 <= number < 600 else None
