"""The part of the protocol that a server supports, learned from the requests that it rejects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synque_select.llm.prompt import PromptLike, data_url, prompt_parts
from synque_select.llm.structured import enforceable_schema
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam

__all__ = ["Dialect", "Question", "is_about_length", "messages"]

# words in an error message that mean structured outputs
_CONSTRAINT_WORDS = ("response_format", "schema", "structured", "guided", "grammar", "json")
# names that are part of such a parameter, or that servers translate it to
_CONSTRAINT_NAMES = ("json_schema", "json_object", "structured_outputs?", r"guided_\w+")
# the parameters that the ways to constrain an answer send
_SENT = {
    "vllm": "structured_outputs",
    "strict": "response_format (strict)",
    "json_schema": "response_format",
    "json_object": "response_format (json_object)",
}
# OpenAI's protocol allows 20; some servers allow 5
_TOP_LOGPROBS = (20, 5)
# parameters that a server may refuse and that an answer can do without
_PLAIN = ("seed", "max_tokens", "temperature")


@dataclass(frozen=True)
class Question:
    """One request.

    Args:
        prompt: The user turn.
        choices: Texts of which the answer must be one; None for any answer.
        schema: JSON schema of the answer; None for any answer.
        max_tokens: Maximum length of the answer.
        temperature: Sampling temperature.
        seed: Random seed for sampling.
        logprobs: Whether to request the probabilities of the answer's tokens.
    """

    prompt: PromptLike
    choices: Sequence[str] | None = None
    schema: JsonObject | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    logprobs: bool = False


@dataclass(frozen=True)
class Dialect:
    """How to send a question to one server.

    A server answers with an error to a parameter that it does not support. `after` then replaces
    the parameter that it named by the next best one, and finally drops it.

    Args:
        choices: Ways to constrain an answer to the choices that have not been rejected, best
            first: "vllm" (`structured_outputs`), "json_schema", or "none".
        schema: The same for a JSON schema: "strict", "json_schema", "json_object", "none".
        top_logprobs: Numbers of alternative tokens to request that have not been rejected.
        dropped: Parameters that the server rejects.
    """

    choices: tuple[str, ...] = ("json_schema", "none")
    schema: tuple[str, ...] = ("strict", "json_schema", "json_object", "none")
    top_logprobs: tuple[int, ...] = _TOP_LOGPROBS
    dropped: frozenset[str] = frozenset()

    @property
    def frame(self) -> str:
        """What comes before an answer that is one of the choices: a key of `FRAMES`."""
        return "json" if self.choices[0] == "json_schema" else "text"

    def parameters(self, question: Question) -> dict[str, Json]:
        """Return the parameters of a chat completion, apart from its model and messages."""
        limit = "max_completion_tokens" if "max_tokens" in self.dropped else "max_tokens"
        parameters: dict[str, Json] = {
            limit: question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
            **self._constraint(question),
        }
        if question.logprobs and self.top_logprobs:
            parameters |= {"logprobs": True, "top_logprobs": self.top_logprobs[0]}
        return {name: value for name, value in parameters.items() if name not in self.dropped}

    def form(self, question: Question) -> tuple[str, ...]:
        """Return what tells requests apart that a server may treat differently."""
        ways = [
            way
            for way, given in (
                (self.choices[0], question.choices),
                (self.schema[0], question.schema),
            )
            if given is not None
        ]
        # some servers accept one temperature only; a seed is as good as any other
        values = (*self.top_logprobs[:1], question.temperature, question.max_tokens)
        return (*self.parameters(question), *ways, *map(str, values))

    def _constraint(self, question: Question) -> dict[str, Json]:
        if question.choices is not None:
            if self.choices[0] == "vllm":
                return {"structured_outputs": {"choice": list(question.choices)}}
            if self.choices[0] == "json_schema":
                return _json_schema(_answer_schema(question.choices), strict=True)
        if question.schema is not None:
            if self.schema[0] in ("strict", "json_schema"):
                schema = enforceable_schema(question.schema)
                return _json_schema(schema, strict=self.schema[0] == "strict")
            if self.schema[0] == "json_object":
                return {"response_format": {"type": "json_object"}}
        return {}

    def after(
        self, error_message: str, question: Question, *, by_name: bool = False
    ) -> Dialect | None:
        """Return the dialect to use after a rejection.

        Args:
            error_message: Message of the server.
            question: Question that was rejected.
            by_name: Whether the message must name the parameter as it was sent. Otherwise, words
                such as "schema" are enough.

        Returns:
            A dialect without the parameter that the message names; None if it names none that can
            be replaced.

        Example:
            >>> Dialect().after("unknown parameter: 'seed'", Question("Is it?")).dropped
            frozenset({'seed'})
            >>> Dialect().after("the prompt is too long", Question("Is it?")) is None
            True
        """
        message = error_message.lower()
        if is_about_length(message):
            return None
        if question.logprobs and self.top_logprobs and "logprobs" in message:
            return replace(self, top_logprobs=self.top_logprobs[1:])
        constraint = self._constraint(question)
        # an exact name first: "response_format.json_schema" also contains a word
        exact = [*constraint, *_CONSTRAINT_NAMES] if constraint else []
        if not any(_names(message, name) for name in exact):
            for name in sorted({*_PLAIN} - self.dropped):
                if _names(message, name, quoted=by_name):
                    return replace(self, dropped=self.dropped | {name})
            if by_name or not any(word in message for word in _CONSTRAINT_WORDS):
                return None
        if question.choices is not None and len(self.choices) > 1:
            return replace(self, choices=self.choices[1:])
        if question.schema is not None and len(self.schema) > 1:
            return replace(self, schema=self.schema[1:])
        return None

    def without_one_more(self, question: Question) -> Dialect | None:
        """Return the dialect that sends a question with one parameter less, or a plainer one.

        Args:
            question: A question that was rejected for a reason that names no parameter.

        Returns:
            The dialect; None if nothing else can be left out.

        Example:
            >>> Dialect().without_one_more(Question("Is it?", choices=["yes", "no"])).choices
            ('none',)
        """
        if question.choices is not None and len(self.choices) > 1:
            return replace(self, choices=self.choices[1:])
        if question.schema is not None and len(self.schema) > 1:
            return replace(self, schema=self.schema[1:])
        if question.logprobs and self.top_logprobs:
            return replace(self, top_logprobs=self.top_logprobs[1:])
        left = [name for name in _PLAIN if name not in self.dropped]
        return replace(self, dropped=self.dropped | {left[0]}) if left else None

    def with_one_back(self, earlier: Dialect) -> Iterator[tuple[str, Dialect]]:
        """Yield what can be put back of an earlier dialect: a name, and the dialect with it.

        Example:
            >>> [name for name, _ in Dialect(dropped=frozenset({"seed"})).with_one_back(Dialect())]
            ['seed']
        """
        for i in range(len(earlier.choices) - len(self.choices)):
            yield f"choices {i}", replace(self, choices=earlier.choices[i:])
        for i in range(len(earlier.schema) - len(self.schema)):
            yield f"schema {i}", replace(self, schema=earlier.schema[i:])
        for i in range(len(earlier.top_logprobs) - len(self.top_logprobs)):
            yield f"top_logprobs {i}", replace(self, top_logprobs=earlier.top_logprobs[i:])
        for name in sorted(self.dropped - earlier.dropped):
            yield name, replace(self, dropped=self.dropped - {name})

    def left_out_since(self, earlier: Dialect) -> list[str]:
        """Return what an earlier dialect sends and this one does not, for a message.

        Example:
            >>> Dialect(dropped=frozenset({"seed"})).left_out_since(Dialect())
            ['seed']
        """
        changed = sorted(self.dropped - earlier.dropped)
        if self.top_logprobs != earlier.top_logprobs:
            n_shown = self.top_logprobs[0] if self.top_logprobs else 0
            changed.append(f"top_logprobs above {n_shown}" if n_shown else "logprobs")
        if self.choices != earlier.choices:
            changed.append(f"{_SENT[earlier.choices[0]]} for the labels")
        if self.schema != earlier.schema:
            changed.append(f"{_SENT[earlier.schema[0]]} for JSON")
        return changed


def is_about_length(message: str) -> bool:
    """Return whether an error is about the length of the prompt, whatever parameter it names.

    Example:
        >>> is_about_length("max_tokens is too large: the context length is 4096")
        True
    """
    lower = message.lower()
    return "context length" in lower or "too long" in lower


def _names(message: str, name: str, *, quoted: bool = False) -> bool:
    """Whether a message contains the name of a parameter, as a word of its own or in quotes."""
    mark = r"['\"`]" if quoted else ""
    return re.search(rf"(?<!\w){mark}{name}(?!\w){mark}", message) is not None


def _json_schema(schema: JsonObject, *, strict: bool) -> dict[str, Json]:
    named: JsonObject = {"name": "answer", "schema": dict(schema), "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _answer_schema(choices: Sequence[str]) -> JsonObject:
    # hosted servers accept only an object at the top
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def messages(prompt: PromptLike) -> list[ChatCompletionMessageParam]:
    """Return a prompt as the messages of a chat, with images as data URLs.

    Example:
        >>> messages("Is it?")
        [{'role': 'user', 'content': 'Is it?'}]
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    content: list[ChatCompletionContentPartParam] = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in prompt_parts(prompt)
    ]
    return [{"role": "user", "content": content}]
