"""A language model that follows a script, for tests of code that uses one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from synque_select.errors import ConfigError
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_form
from synque_select.llm.prompt import PromptLike, join_prompts

__all__ = ["ScriptedLLM"]


class ScriptedLLM(BaseLLM):
    """An engine whose answers are functions of the prompt; it keeps every prompt it was asked.

    Args:
        answer: Takes a prompt (a `str`, or a `Prompt` where there are images) and gives the
            answer, or a `Failure`; None where nothing is to be generated.
        probabilities: Takes a prompt and the choices and gives a weight for each (they are
            scaled to sum to 1), or a `Failure`; None for equal ones.
        id: Name of the model.
        revision: Change it where another script must not find this one's answers.

    Attributes:
        prompts: What it was asked, in order.

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
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer by the script; an answer that is none of the choices is a failure."""
        allowed = check_form(choices, schema)
        if self._answer is None:
            raise ConfigError("ScriptedLLM was made without answer=, and is asked to generate")
        for position, prompt in enumerate(prompts):
            self._keep(prompt)
            found = self._answer(prompt)
            if allowed is not None and isinstance(found, str) and found not in allowed:
                found = Failure(f"answered {found!r}, which is none of the choices")
            if isinstance(found, str):
                self.usage.n_answer_tokens += self.count_tokens(found)
            yield position, found

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Give the script's weights, scaled to sum to 1."""
        allowed = check_choices(choices)
        for position, item in enumerate(items):
            rows = [
                self._row(join_prompts(shared_prefix, item, suffix), allowed) for suffix in suffixes
            ]
            failed = [row for row in rows if isinstance(row, Failure)]
            yield position, failed[0] if failed else [r for r in rows if isinstance(r, list)]

    def _row(self, prompt: PromptLike, choices: Sequence[str]) -> list[float] | Failure:
        self._keep(prompt)
        if self._probabilities is None:
            return [1 / len(choices)] * len(choices)
        weights = self._probabilities(prompt, choices)
        if isinstance(weights, Failure):
            return weights
        total = float(sum(weights))
        if len(weights) != len(choices) or not total > 0:
            raise ConfigError(f"probabilities gave {list(weights)!r} for {len(choices)} choices")
        return [float(weight) / total for weight in weights]

    def _keep(self, prompt: PromptLike) -> None:
        self.prompts.append(prompt)
        self.usage.n_requests += 1
        self.usage.n_prompt_tokens += self.count_tokens(prompt)
