"""Language models as units of work: prompts are answered by workers, each with an engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from synque_select.errors import ExecutorError
from synque_select.execution.base import Executor, UnitFailure, Worker
from synque_select.llm.base import BaseLLM, Failure, Usage
from synque_select.llm.prompt import Prompt, PromptLike, prompt_text
from synque_select.llm.registry import LLMSpec, get_llm
from synque_select.utils.json_types import JsonObject

__all__ = ["AskEngine", "ExecutedLLM"]


_ITEMS = 32  # per unit: what is lost with a worker, and what shares a prefix


@dataclass(frozen=True)
class Asked:
    """The answers of a unit, and what they cost.

    Args:
        answers: Position and answer of each prompt.
        usage: What the engine has read and written for them.
        notes: Notes of the engine, so far.
    """

    answers: Sequence[tuple[int, object]]
    usage: Usage
    notes: Sequence[str]


@dataclass(frozen=True, eq=False)
class AskEngine:
    """Answer some prompts.

    Args:
        spec: The engine: a mapping with its name and options, or an instance.
        model: Key of the engine in the driver.
        method: "generate" or "choice_probabilities".
        items: The prompts, or what varies between them.
        options: The other arguments.
        start: Position of the first item.
    """

    spec: LLMSpec
    model: str
    method: str
    items: Sequence[PromptLike]
    options: Mapping[str, object]
    start: int

    @property
    def key(self) -> str:
        """Hash of the model, the prompts and the options."""
        shared = {name: _text(value) for name, value in self.options.items()}
        parts = [self.model, self.method, [prompt_text(item) for item in self.items], shared]
        return hashlib.sha256(json.dumps([*parts, self.start], default=str).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What it does, for messages."""
        return f"ask about items {self.start + 1:,} to {self.start + len(self.items):,}"

    def run(self, worker: Worker) -> Asked:
        """Return the answers."""
        engine = worker.keep(f"engine:{self.model}", self._load)
        before, options = replace(engine.usage), dict(self.options)
        answers: list[tuple[int, object]] = []
        if self.method == "generate":
            answers += engine.generate(self.items, **options)  # type: ignore[arg-type]
        else:
            prefix = options.pop("shared_prefix")
            answers += engine.choice_probabilities(prefix, self.items, **options)  # type: ignore[arg-type]
        cost = {
            part.name: getattr(engine.usage, part.name) - getattr(before, part.name)
            for part in fields(Usage)
        }
        return Asked(answers, Usage(**cost), tuple(engine.notes))

    def _load(self) -> BaseLLM:
        engine = get_llm(self.spec)
        if engine.key != self.model:
            raise ExecutorError(
                f"the language model is not the same everywhere: {self.model} in the driver, "
                f"{engine.key} in a worker"
            )
        return engine


def _text(value: object) -> object:
    return prompt_text(value) if isinstance(value, str | Prompt) else value


class ExecutedLLM(BaseLLM):
    """An engine whose prompts are answered by the workers of an executor.

    Every worker loads the model once. Answers arrive as units are finished, and the caller keeps
    them: the driver is the only one that writes to the cache of answers.

    Args:
        spec: The engine: a mapping with its name and options, or an instance.
        executor: Where to ask.
    """

    def __init__(self, spec: LLMSpec, executor: Executor) -> None:
        self._spec, self._executor = spec, executor
        # loads no model: it counts tokens and says what identifies the answers
        self._engine = get_llm(spec)
        self.id, self.revision = self._engine.id, self._engine.revision
        self.context_length = self._engine.context_length

    @property
    def key(self) -> str:
        """Key of the engine itself: answers are the same wherever they are computed."""
        return self._engine.key

    def options(self) -> JsonObject:
        """Return the options of the engine."""
        return self._engine.options()

    def control_tokens(self) -> frozenset[str]:
        """Return those of the engine."""
        return self._engine.control_tokens()

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return the number of tokens of a prompt."""
        return self._engine.count_tokens(prompt)

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
        """See `BaseLLM.generate`."""
        options: dict[str, object] = {
            "choices": choices,
            "schema": schema,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        for position, answer in self._asked("generate", prompts, options):
            assert isinstance(answer, str | Failure)
            yield position, answer

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """See `BaseLLM.choice_probabilities`."""
        options: dict[str, object] = {
            "shared_prefix": shared_prefix,
            "suffixes": suffixes,
            "choices": choices,
        }
        for position, answer in self._asked("choice_probabilities", items, options):
            assert isinstance(answer, list | Failure)
            yield position, answer

    def _asked(
        self, method: str, items: Sequence[PromptLike], options: Mapping[str, object]
    ) -> Iterator[tuple[int, object]]:
        units = [
            AskEngine(self._spec, self.key, method, items[start : start + _ITEMS], options, start)
            for start in range(0, len(items), _ITEMS)
        ]
        starts = {unit.key: unit.start for unit in units}
        for unit, result in self._executor.run(units):
            if isinstance(result, UnitFailure):
                raise result.error
            for name, value in vars(result.usage).items():
                setattr(self.usage, name, getattr(self.usage, name) + value)
            self.notes.extend(note for note in result.notes if note not in self.notes)
            for position, answer in result.answers:
                yield starts[unit.key] + position, answer

    def close(self) -> None:
        """Free what the driver holds; workers are ended by the executor."""
        self._engine.close()
