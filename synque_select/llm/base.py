"""What a language model is here: it answers prompts, and says how probable given answers are."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synque_select.errors import ConfigError
from synque_select.llm.prompt import PromptLike, estimated_tokens
from synque_select.utils.source_code import source_of

__all__ = ["BaseLLM", "Failure", "Usage", "check_choices", "check_form"]


@dataclass(frozen=True)
class Failure:
    """A prompt that got no usable answer; it is counted, never turned into a value.

    Args:
        reason: What went wrong, for the user.
    """

    reason: str


@dataclass
class Usage:
    """What an engine has read and written since it was made; it only grows.

    Two readings of it and the time between them are tokens a second; of a priced endpoint, they
    are what it asks for.

    Args:
        n_requests: Answers that were asked for, failed ones too.
        n_prompt_tokens: Tokens of their prompts, what they share counted in each.
        n_cached_tokens: How many of these were not computed again.
        n_answer_tokens: Tokens that the model wrote, its thinking among them.
    """

    n_requests: int = 0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_answer_tokens: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens read and written."""
        return self.n_prompt_tokens + self.n_answer_tokens


class BaseLLM(ABC):
    """Base of all engines; a subclass sets `id` and writes the two methods.

    A prompt is one user turn, a `str` or a `Prompt` with images; the engine puts the model's chat
    template around it. A model that reads no images says so with a `ConfigError`.
    Answers are yielded as they arrive, in any order, with the prompt's position, so that a caller
    can keep each one at once. Nothing may be asked twice or left out.

    Attributes:
        id: Which model.
        revision: Which weights. Part of the key that answers are kept by, so change it when yours
            change; while it is "user", a hash of the class's source is part of the key too.
        context_length: Tokens of prompt and answer together, at most; None where unknown.
    """

    id: str
    revision: str = "user"
    context_length: int | None = None

    @cached_property
    def usage(self) -> Usage:
        """What was read and written so far; the subclass counts."""
        return Usage()

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an answer (precision, quantisation), as plain values."""
        return {}

    @property
    def key(self) -> str:
        """All of the model that changes an answer, as JSON: answers are kept by it."""
        parts: dict[str, object] = {"id": self.id, "revision": self.revision, **self.options()}
        code = source_of(type(self)) if self.revision == "user" else None
        return json.dumps({**parts, "code": code} if code else parts, sort_keys=True)

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts.

        Args:
            prompts: User turns.
            choices: The answer is one of these texts, whatever the prompt says.
            schema: The answer is JSON that follows this JSON schema, as far as the engine can
                force it: callers parse and check it.
            max_tokens: Length of an answer, at most.
            temperature: 0 for the most probable answer.
            seed: Of sampling; equal calls give equal answers where the engine can promise it.

        Yields:
            The position of a prompt, and its answer or why there is none.

        Raises:
            ConfigError: Both `choices` and `schema` are given, the choices are not usable, or
                there are images and the model reads none.
            LLMError: The model cannot be loaded or reached.
        """

    @abstractmethod
    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return how probable each choice is as the answer to shared_prefix + item + suffix.

        The three parts tell an engine what prompts have in common; the answer is that of the
        prompt put together. The probability of a choice is that of its whole text, and those of
        all choices sum to 1.

        Args:
            shared_prefix: The beginning of all prompts.
            items: What follows, one an item.
            suffixes: The ends: every item is asked with each of them.
            choices: Possible answers, none the beginning of another.

        Yields:
            The position of an item, and its probabilities: one row a suffix, one column a choice.

        Raises:
            ConfigError: The choices are not usable, or there are images and the model reads none.
            LLMError: The model cannot be loaded or reached.
        """

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return how many tokens a prompt has.

        Unless overridden, an estimate: a token for 4 bytes of text and for 28 x 28 pixels.
        """
        return estimated_tokens(prompt)

    def close(self) -> None:  # noqa: B027 - a hook that need not be filled
        """Free the model and its device memory; the engine can be used again."""


def check_choices(choices: Iterable[str]) -> tuple[str, ...]:
    """Return the choices as a tuple.

    Raises:
        ConfigError: Fewer than two, an empty one, or one that begins another.

    Example:
        >>> check_choices(["likely", "unlikely"])
        ('likely', 'unlikely')
    """
    found = tuple(choices)
    if len(found) < 2 or not all(found):
        raise ConfigError(f"choices={found!r}: allowed are two or more texts, none empty")
    for i, text in enumerate(found):
        for other in found[:i] + found[i + 1 :]:
            if other.startswith(text):
                raise ConfigError(
                    f"choices: {text!r} begins {other!r}, so they cannot be told apart"
                )
    return found


def check_form(
    choices: Iterable[str] | None, schema: Mapping[str, Any] | None
) -> tuple[str, ...] | None:
    """Return the choices that `generate` was given as a tuple, None where there are none.

    Raises:
        ConfigError: A schema is given too, or the choices are not usable.
    """
    if choices is not None and schema is not None:
        raise ConfigError("choices and schema are both given: allowed is one of them")
    return None if choices is None else check_choices(choices)
