"""What a server understands of the protocol: found out from what it refuses, and remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synque_select.llm.prompt import PromptLike, data_url, prompt_parts
from synque_select.llm.structured import forcible

__all__ = ["Dialect", "Question", "messages"]

_FORM_WORDS = ("response_format", "schema", "structured", "guided", "grammar", "json")
_TOP_LOGPROBS = (20, 5)


@dataclass(frozen=True)
class Question:
    """One request.

    Args:
        prompt: The user turn.
        choices: The answer is one of them.
        schema: The answer is JSON of this schema.
        max_tokens: Length of the answer.
        temperature: Of sampling.
        seed: Of sampling.
        logprobs: Whether the probabilities of the answer's tokens are wanted.
    """

    prompt: PromptLike
    choices: Sequence[str] | None = None
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    logprobs: bool = False


@dataclass(frozen=True)
class Dialect:
    """How to put a question to one server.

    A server says "400" to what it does not know. `after` then gives up the part of the question
    that it named: first for another way of saying it, then altogether.

    Args:
        choices: How an answer is held to the choices: by "vllm" (`structured_outputs`), by a
            "json_schema", or not at all ("none"); the ways that are left, best first.
        schema: The same for a schema: "strict", "json_schema", "json_object", "none".
        top_logprobs: How many tokens may be shown beside the one that was written.
        dropped: Parameters that the server refuses.
    """

    choices: tuple[str, ...] = ("json_schema", "none")
    schema: tuple[str, ...] = ("strict", "json_schema", "json_object", "none")
    top_logprobs: tuple[int, ...] = _TOP_LOGPROBS
    dropped: frozenset[str] = frozenset()

    @property
    def frame(self) -> str:
        """What stands before an answer that is one of the choices: a key of `FRAMES`."""
        return "json" if self.choices[0] == "json_schema" else "text"

    def body(self, model_id: str, question: Question) -> dict[str, Any]:
        """Return the body of a request for a chat completion."""
        limit = "max_completion_tokens" if "max_tokens" in self.dropped else "max_tokens"
        body: dict[str, Any] = {
            "model": model_id,
            "messages": messages(question.prompt),
            limit: question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
            **self._form(question),
        }
        if question.logprobs and self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs[0]}
        return {name: value for name, value in body.items() if name not in self.dropped}

    def _form(self, question: Question) -> dict[str, Any]:
        if question.choices is not None:
            if self.choices[0] == "vllm":
                return {"structured_outputs": {"choice": list(question.choices)}}
            if self.choices[0] == "json_schema":
                return _json_schema(_answer_schema(question.choices), strict=True)
        if question.schema is not None:
            if self.schema[0] in ("strict", "json_schema"):
                return _json_schema(forcible(question.schema), strict=self.schema[0] == "strict")
            if self.schema[0] == "json_object":
                return {"response_format": {"type": "json_object"}}
        return {}

    def after(self, refusal: str, question: Question) -> Dialect | None:
        """Return how to ask after a refusal; None where it is of another kind.

        Example:
            >>> Dialect().after("unknown parameter: 'seed'", Question("Is it?")).dropped
            frozenset({'seed'})
            >>> Dialect().after("the prompt is too long", Question("Is it?")) is None
            True
        """
        said = refusal.lower()
        if "context length" in said or "too long" in said:
            return None
        if question.logprobs and self.top_logprobs and "logprobs" in said:
            return replace(self, top_logprobs=self.top_logprobs[1:])
        for name in {"temperature", "seed", "max_tokens"} - self.dropped:
            if name in said:
                return replace(self, dropped=self.dropped | {name})
        if any(word in said for word in _FORM_WORDS):
            if question.choices is not None and len(self.choices) > 1:
                return replace(self, choices=self.choices[1:])
            if question.schema is not None and len(self.schema) > 1:
                return replace(self, schema=self.schema[1:])
        return None


def _json_schema(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    named = {"name": "answer", "schema": dict(schema), "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _answer_schema(choices: Sequence[str]) -> dict[str, Any]:
    # hosted servers take only objects
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def messages(prompt: PromptLike) -> list[dict[str, Any]]:
    """Return a prompt as the messages of a chat, images as data URLs.

    Example:
        >>> messages("Is it?")
        [{'role': 'user', 'content': 'Is it?'}]
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in prompt_parts(prompt)
    ]
    return [{"role": "user", "content": content}]
