"""What a language model is here: it answers prompts, and says how probable given answers are."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synque_select.errors import ConfigError

__all__ = ["BaseLLM", "Failure", "check_choices"]


@dataclass(frozen=True)
class Failure:
    """A prompt that got no usable answer; it is counted, never turned into a value.

    Args:
        reason: What went wrong, for the user.
    """

    reason: str


class BaseLLM(ABC):
    """Base of all engines; a subclass sets `id` and writes the two methods.

    A prompt is the text of one user turn; the engine puts the model's chat template around it.
    Answers are yielded as they arrive, in any order, with the prompt's position, so that a caller
    can keep each one at once. Nothing may be asked twice or left out.

    Attributes:
        id: Which model.
        revision: Which weights. Part of the key that answers are kept by.
        context_length: Tokens of prompt and answer together, at most; None where unknown.
    """

    id: str
    revision: str = "user"
    context_length: int | None = None

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an answer (precision, quantisation), as plain values."""
        return {}

    @property
    def key(self) -> str:
        """All of the model that changes an answer, as JSON: answers are kept by it."""
        return json.dumps(
            {"id": self.id, "revision": self.revision, **self.options()}, sort_keys=True
        )

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[str],
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts.

        Args:
            prompts: Texts of user turns.
            choices: The answer is one of these texts, whatever the prompt says.
            schema: The answer is JSON that follows this JSON schema, as far as the engine can
                force it: callers parse and check it.
            max_tokens: Length of an answer, at most.
            temperature: 0 for the most probable answer.
            seed: Of sampling; equal calls give equal answers where the engine can promise it.

        Yields:
            The position of a prompt, and its answer or why there is none.

        Raises:
            ConfigError: Both `choices` and `schema` are given, or the choices are not usable.
            LLMError: The model cannot be loaded or reached.
        """

    @abstractmethod
    def choice_probabilities(
        self,
        shared_prefix: str,
        items: Sequence[str],
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
            ConfigError: The choices are not usable.
            LLMError: The model cannot be loaded or reached.
        """

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has; an estimate (4 bytes a token) unless overridden."""
        return -(-len(text.encode("utf-8", "replace")) // 4)

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
