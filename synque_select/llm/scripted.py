"""A language model that follows a script, for tests of code that uses language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from synque_select.errors import ConfigError
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_constraint
from synque_select.llm.prompt import PromptLike, join_prompts
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

__all__ = ["ScriptedLLM"]


class ScriptedLLM(BaseLLM):
    """An engine whose answers are functions of the prompt; it records every prompt.

    Args:
        answer: Function of a prompt (a `str`, or a `Prompt` if it has images) that returns the
            answer or a `Failure`; None if nothing will be generated.
        probabilities: Function of a prompt and the choices that returns a weight per choice, which
            are scaled to sum to 1, or a `Failure`; None for equal probabilities.
        id: Id of the model.
        revision: Version of the script. Change it if cached answers of an earlier script must not
            be reused.

    Attributes:
        prompts: All prompts received, in order.

    Example:
        >>> llm = ScriptedLLM(lambda prompt: prompt.upper())
        >>> list(llm.generate(["yes", "no"]))
        [(0, 'YES'), (1, 'NO')]
        >>> list(llm.choice_probabilities("Is it? ", ["a"], ["?", "!"], ["yes", "no"]))
        [(0, [[0.5, 0.5], [0.5, 0.5]])]
        >>> len(llm.prompts)
        4
    """

    def __init__(
        self,
        # Any, not PromptLike: a script for texts takes a str, one for images takes a Prompt
        answer: Callable[[Any], str | Failure] | None = None,
        probabilities: Callable[[Any, Sequence[str]], Sequence[float] | Failure] | None = None,
        *,
        id: str = "scripted",
        revision: str = "user",
    ) -> None:
        self.id = id
        self.revision = revision
        self.prompts: list[PromptLike] = []
        self._answer = answer
        self._probabilities = probabilities

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
        """Answer by the script; an answer that is not one of the choices becomes a `Failure`."""
        allowed = check_constraint(choices, schema)
        if self._answer is None:
            raise ConfigError(
                "this ScriptedLLM has no script for generating text: create it with answer="
            )
        for position, prompt in enumerate(prompts):
            self._record(prompt)
            answer = self._answer(prompt)
            if allowed is not None and isinstance(answer, str) and answer not in allowed:
                answer = Failure(f"answered {answer!r}, which is none of the choices")
            if isinstance(answer, str):
                self.usage.n_answer_tokens += self.count_tokens(answer)
            yield position, answer

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return the script's weights, scaled to sum to 1."""
        allowed = check_choices(choices)
        for position, item in enumerate(items):
            rows = [
                self._row(join_prompts(shared_prefix, item, suffix), allowed) for suffix in suffixes
            ]
            failed = [row for row in rows if isinstance(row, Failure)]
            yield position, failed[0] if failed else [r for r in rows if isinstance(r, list)]

    def _row(self, prompt: PromptLike, choices: Sequence[str]) -> list[float] | Failure:
        self._record(prompt)
        if self._probabilities is None:
            return [1 / len(choices)] * len(choices)
        weights = self._probabilities(prompt, choices)
        if isinstance(weights, Failure):
            return weights
        total = float(sum(weights))
        if len(weights) != len(choices) or not total > 0:
            raise ConfigError(
                f"probabilities returned {list(weights)!r} for {counted(len(choices), 'choice')}: "
                "allowed is one weight per choice, with a sum above 0"
            )
        return [float(weight) / total for weight in weights]

    def _record(self, prompt: PromptLike) -> None:
        self.prompts.append(prompt)
        self.usage.n_requests += 1
        self.usage.n_prompt_tokens += self.count_tokens(prompt)
