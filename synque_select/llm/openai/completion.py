"""The first choice of a chat completion, in whatever form a server writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from synque_select.llm.openai.json_access import value_at
from synque_select.utils.json_types import Json, JsonObject

__all__ = ["Completion", "read_completion"]

_TEXT_PARTS = ("text", "output_text", None)
# reasons to stop that are neither the model's end nor the limit of tokens
_REFUSED = (
    "filter",
    "safety",
    "refus",
    "recitation",
    "prohibited",
    "blocklist",
    "sensitive",
    "spii",
    "guardrail",
    "moderation",
)


@dataclass(frozen=True)
class Completion:
    """An answer of a chat model.

    Args:
        text: What it wrote, without its reasoning where the server separates it; may be empty.
        refusal: Why it refused, in words; None if it did not.
        finish_reason: Why it stopped, by the server's name.
        no_text: Why the text is empty, in words.
        tokens: `logprobs.content` as it came; None if the server shows no tokens.
    """

    text: str
    refusal: str | None
    finish_reason: str
    no_text: str
    tokens: Json

    @property
    def is_broken_off(self) -> bool:
        """Whether the server stopped for a reason of its own."""
        return self.finish_reason in ("error", "abort", "aborted", "network_error")

    @property
    def is_cut(self) -> bool:
        """Whether the answer ended because it was too long."""
        return self.finish_reason in ("length", "max_tokens", "max_output_tokens")


def read_completion(state: JsonObject) -> Completion | None:
    """Read the first choice of a completion; None if there is none, or its content is not text.

    Example:
        >>> parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "likely"}]
        >>> read_completion({"choices": [{"message": {"content": parts}}]}).text
        'likely'
        >>> read_completion({"choices": [{"message": {"content": None, "refusal": "No."}}]}).refusal
        'No.'
        >>> read_completion({"choices": []}) is None
        True
    """
    try:
        choice = value_at(state, "choices", 0)
    except (LookupError, TypeError):
        return None
    if not isinstance(choice, Mapping):
        return None
    reason = choice.get("finish_reason")
    finish_reason = reason.lower() if isinstance(reason, str) else ""
    message = choice.get("message", choice.get("delta"))
    if not isinstance(message, Mapping):
        text = choice.get("text")
        # a filter may leave no message
        if not isinstance(text, str) and _refusal(None, finish_reason) is None:
            return None
        message = {"content": text}
    text, refused = _content(message.get("content"))
    if text is None:
        return None
    logprobs = choice.get("logprobs")
    return Completion(
        text,
        _refusal(message.get("refusal") or refused, finish_reason),
        finish_reason,
        _no_text(message),
        logprobs.get("content") if isinstance(logprobs, Mapping) else None,
    )


def _content(content: Json) -> tuple[str | None, str | None]:
    """Return the text of a message and the refusal in its parts; no text if it has another form."""
    if content is None:
        return "", None
    if isinstance(content, str):
        return content, None
    if isinstance(content, Mapping):
        # the answer as an object: some servers parse the JSON that the model wrote
        text = content.get("text")
        return (text if isinstance(text, str) else json.dumps(content)), None
    if not isinstance(content, list):
        return None, None
    texts: list[str] = []
    refusals: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type") == "refusal":
            refusals.append(str(part.get("refusal")))
        elif isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS:
            written = part.get("text")
            written = written.get("value") if isinstance(written, Mapping) else written
            texts += [written] if isinstance(written, str) else []
    return "".join(texts), " ".join(refusals) or None


def _refusal(refusal: Json, finish_reason: str) -> str | None:
    if refusal:
        return str(refusal)
    if any(word in finish_reason for word in _REFUSED):
        return f"its filter (finish_reason {finish_reason!r})"
    return None


def _no_text(message: Mapping[str, Json]) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool instead of answering"
    if any(message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details")):
        return "the answer contains reasoning only"
    return "the answer is empty"
