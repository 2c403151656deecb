"""The interface of all language models: answers to prompts, and probabilities of given answers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from synque_select.errors import ConfigError
from synque_select.llm.prompt import PromptLike, estimated_tokens
from synque_select.utils.json_types import JsonObject
from synque_select.utils.source_code import source_of
from synque_select.utils.wording import one_line

__all__ = ["BATCH_PRICE", "BaseLLM", "Failure", "Usage", "check_choices", "check_constraint"]


# what OpenAI and Anthropic charge for an answer in a batch, of the price of a direct one
BATCH_PRICE = 0.5


@dataclass(frozen=True)
class Failure:
    """The result for a prompt without a usable answer; counted, never replaced by a value.

    Args:
        reason: What went wrong, in words for the user. It is put on one line: it may contain the
            words of a server or a model.
    """

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", one_line(self.reason))


@dataclass
class Usage:
    """What an engine has read and written since it was created; the counts only grow.

    The difference of two readings, divided by the time between them, is the throughput; for a
    hosted model it is what will be billed.

    Args:
        n_requests: Number of answers requested, including failed ones.
        n_prompt_tokens: Number of tokens in their prompts; a shared prefix counts in each.
        n_cached_tokens: Number of these tokens that were not computed again.
        n_answer_tokens: Number of tokens that the model wrote, including its reasoning.
    """

    n_requests: int = 0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_answer_tokens: int = 0

    @property
    def n_tokens(self) -> int:
        """Number of tokens read and written."""
        return self.n_prompt_tokens + self.n_answer_tokens


class BaseLLM(ABC):
    """Base class of all engines; a subclass sets `id` and implements the two abstract methods.

    A prompt is one user turn: a `str`, or a `Prompt` with images. The engine applies the model's
    chat template. An engine whose model cannot read images raises a `ConfigError` for them.
    Results are yielded with the position of their prompt as soon as they arrive, in any order, so
    that the caller can save each one at once. Every prompt gets exactly one result.

    Attributes:
        id: Id of the model.
        revision: Version of the weights. It is part of the key of cached answers, so change it
            when the weights change; while it is "user", a hash of the class's source code is part
            of the key as well.
        context_length: Maximum number of tokens of prompt and answer; None if unknown.
        can_batch: Whether it could be told to answer in batches.
        answers_in_batches: Whether it does: answers may take hours, cost half the price, and
            should be requested all at once.
    """

    id: str
    revision: str = "user"
    context_length: int | None = None
    can_batch: bool = False
    answers_in_batches: bool = False

    @cached_property
    def usage(self) -> Usage:
        """What was read and written so far; the subclass updates the counts."""
        return Usage()

    @cached_property
    def notes(self) -> list[str]:
        """Sentences for the user on how answers were obtained, such as what a server refuses."""
        return []

    def control_tokens(self) -> frozenset[str]:
        """Return the texts that the tokenizer reads as special or added tokens.

        LENS escapes them in examples, so that no example can end its turn or write that of the
        model. Unless overridden, none are known, and LENS escapes the markup of known templates.
        """
        return frozenset()

    def options(self) -> JsonObject:
        """Return further settings that change answers, such as precision or quantization."""
        return {}

    @property
    def key(self) -> str:
        """JSON of everything about the model that changes answers: the key of cached answers."""
        parts: dict[str, object] = {"id": self.id, "revision": self.revision, **self.options()}
        code = source_of(type(self)) if self.revision == "user" else None
        return json.dumps({**parts, "code": code} if code else parts, sort_keys=True)

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: JsonObject | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts.

        Args:
            prompts: User turns.
            choices: Texts of which the answer must be one, whatever the prompt says; None for any
                answer.
            schema: JSON schema of the answer; None for any answer. Engines enforce it as far as
                they can, so callers must parse and check the answer.
            max_tokens: Maximum length of an answer.
            temperature: Sampling temperature; 0 takes the most probable token.
            seed: Random seed for sampling. Equal calls give equal answers if the engine can
                guarantee it.

        Yields:
            The position of a prompt, and its answer or a `Failure`.

        Raises:
            ConfigError: Both `choices` and `schema` are given, the choices are not usable, or a
                prompt has images and the model cannot read them.
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
        """Return the probability of each choice as the answer to shared_prefix + item + suffix.

        Prompts are passed in three parts so that an engine can compute what they share only once;
        the probabilities are those of the joined prompt. The probability of a choice is that of
        its whole text, and the probabilities of all choices sum to 1.

        Args:
            shared_prefix: Beginning of all prompts.
            items: Middle parts.
            suffixes: Endings; every item is combined with each of them.
            choices: Possible answers, none of them a prefix of another.

        Yields:
            The position of an item, and its probabilities (one row per suffix, one column per
            choice) or a `Failure`.

        Raises:
            ConfigError: The choices are not usable, or a prompt has images and the model cannot
                read them.
            LLMError: The model cannot be loaded or reached.
        """

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return the number of tokens of a prompt.

        Unless overridden, this is an estimate: one token per 4 bytes of text and per 28 x 28
        pixels.
        """
        return estimated_tokens(prompt)

    def close(self) -> None:  # noqa: B027 - a hook that subclasses may leave empty
        """Free the model and its device memory; the engine loads it again when it is next used."""


def check_choices(choices: Iterable[str]) -> tuple[str, ...]:
    """Check the choices of an answer and return them as a tuple.

    Raises:
        ConfigError: There are fewer than two choices, one is empty, or one is a prefix of another.

    Example:
        >>> check_choices(["likely", "unlikely"])
        ('likely', 'unlikely')
    """
    texts = tuple(choices)
    if len(texts) < 2 or not all(texts):
        raise ConfigError(f"choices={texts!r}: allowed are two or more texts, none of them empty")
    for i, text in enumerate(texts):
        for other in texts[:i] + texts[i + 1 :]:
            # a model that has written the shorter one may stop or go on: its probability would
            # contain that of the longer one
            if other.startswith(text):
                raise ConfigError(
                    f"choices: {text!r} is a prefix of {other!r}; no choice may be a prefix of "
                    "another"
                )
    return texts


def check_constraint(
    choices: Iterable[str] | None, schema: JsonObject | None
) -> tuple[str, ...] | None:
    """Check the arguments of `generate` that constrain an answer.

    Returns:
        The choices as a tuple; None if there are none.

    Raises:
        ConfigError: Both are given, or the choices are not usable.
    """
    if choices is not None and schema is not None:
        raise ConfigError("choices and schema are both given: allowed is only one of them")
    return None if choices is None else check_choices(choices)
