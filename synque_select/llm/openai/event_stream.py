"""Answers that a server sends as a stream of events, although none was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from synque_select.errors import LLMError
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject

__all__ = ["completion_of_events"]

_END = "[DONE]"
# fields of a message that arrive in pieces
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


def completion_of_events(text: str) -> JsonObject | None:
    r"""Return the chat completion that a stream of events consists of.

    Args:
        text: Body of an answer.

    Returns:
        The completion, or the event that is an error; None if the text is not such a stream, or
        ends before its completion does.

    Example:
        >>> stream = (
        ...     'data: {"choices": [{"delta": {"content": "li"}}]}\n\n'
        ...     'data: {"choices": [{"delta": {"content": "kely"}, "finish_reason": "stop"}]}\n\n'
        ... )
        >>> completion_of_events(stream)["choices"][0]["message"]
        {'content': 'likely'}
        >>> completion_of_events('data: {"choices": [{"delta": {"content": "li"}}]}') is None
        True
    """
    message: dict[str, Json] = {}
    tokens: list[Json] = []
    finish_reason: Json = None
    usage: Json = None
    for event in _events(text):
        if event.get("error"):
            return event
        usage = event.get("usage") or usage
        choice = _first_choice(event)
        if isinstance(choice.get("message"), Mapping):
            return event
        delta, logprobs = choice.get("delta"), choice.get("logprobs")
        if isinstance(delta, Mapping):
            for name in _TEXTS:
                piece = delta.get(name)
                if isinstance(piece, str):
                    message[name] = str(message.get(name) or "") + piece
            if delta.get("tool_calls"):
                message["tool_calls"] = delta["tool_calls"]
        content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        tokens += content if isinstance(content, list) else []
        finish_reason = choice.get("finish_reason") or finish_reason
    if finish_reason is None:
        return None
    choices: list[Json] = [
        {
            "message": message,
            "finish_reason": finish_reason,
            "logprobs": {"content": tokens} if tokens else None,
        }
    ]
    return {"choices": choices, "usage": usage}


def _events(text: str) -> list[JsonObject]:
    """Return the objects in a stream of events; none if another line than those of events is in."""
    events: list[JsonObject] = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if name not in ("data", "event", "id", "retry", "") or not (colon or not line.strip()):
            return []
        if name != "data" or value.strip() in ("", _END):
            continue
        try:
            event = parse_json(value.strip(), "the answer", error=LLMError)
        except LLMError:
            return []
        if isinstance(event, Mapping):
            events.append(event)
    return events


def _first_choice(event: JsonObject) -> JsonObject:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) and first.get("index", 0) == 0 else {}
