"""What a run has paid for: every answer is counted on disk before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from synque_select.errors import RecordError
from synque_select.llm.base import BATCH_PRICE, BaseLLM, Failure, Usage
from synque_select.llm.prompt import PromptLike
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.wording import counted

__all__ = ["Ledger", "MeteredLLM", "Prices", "Role", "Spent", "money"]

Role = Literal["generator", "reasoner"]
Prices = Mapping[str, Mapping[str, float]]

_MILLION = 1_000_000
_COUNTS = ("n_requests", "n_prompt_tokens", "n_cached_tokens", "n_answer_tokens")


@dataclass(frozen=True)
class Spent:
    """What models have read and written for a run.

    Args:
        n_requests: Number of answers requested, including failed ones.
        n_prompt_tokens: Number of tokens in their prompts.
        n_answer_tokens: Number of tokens that the models wrote, their reasoning included.
        money: What this costs at the given prices, in their currency; None without prices.
    """

    n_requests: int = 0
    n_prompt_tokens: int = 0
    n_answer_tokens: int = 0
    money: float | None = None

    def __str__(self) -> str:
        paid = "" if self.money is None else f", {self.money:,.4g} at the given prices"
        return (
            f"{counted(self.n_requests, 'call')}, {self.n_prompt_tokens:,} input and "
            f"{self.n_answer_tokens:,} output tokens{paid}"
        )

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `improve.json`."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Spent:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            fields.integer("n_requests", least=0),
            fields.integer("n_prompt_tokens", least=0),
            fields.integer("n_answer_tokens", least=0),
            fields.optional_number("money"),
        )


def money(n_input: int, n_output: int, price: Mapping[str, float], *, in_batches: bool) -> float:
    """Return the price of tokens, which in batches is half.

    Args:
        n_input: Number of input tokens.
        n_output: Number of output tokens.
        price: "input" and "output", per million tokens.
        in_batches: Whether the engine answers in batches.

    Example:
        >>> money(2_000_000, 500_000, {"input": 0.5, "output": 2.0}, in_batches=False)
        2.0
    """
    whole = (n_input * price["input"] + n_output * price["output"]) / _MILLION
    return whole * BATCH_PRICE if in_batches else whole


class Ledger:
    """The counts of all answers of a run, one line of JSON each, in one file.

    A line is handed to the operating system before the answer is used, so that a killed run that
    goes on still knows what it has paid for. A line that a kill cut off is left out.

    Args:
        path: The file, created on first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, role: Role, counts: Sequence[int], *, in_batches: bool) -> None:
        """Append the counts of an answer.

        Raises:
            RecordError: The file cannot be written.
        """
        line = {"role": role, "batch": in_batches, **dict(zip(_COUNTS, counts, strict=True))}
        try:
            # the line break comes first: behind a line that was cut off, it begins another one
            with self.path.open("ab") as stream:
                stream.write(b"\n" + json.dumps(line).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error}") from error

    def spent(self, prices: Prices | None = None) -> Spent:
        """Return the sum of all counts.

        Args:
            prices: Price per million tokens of each role; None for no prices.

        Raises:
            RecordError: The file cannot be read.
        """
        n_requests = n_prompt = n_answer = 0
        paid = 0.0
        for fields in self._lines():
            role, n_input = fields.text("role"), fields.integer("n_prompt_tokens", least=0)
            n_output = fields.integer("n_answer_tokens", least=0)
            n_requests += fields.integer("n_requests", least=0)
            n_prompt, n_answer = n_prompt + n_input, n_answer + n_output
            if prices is not None and role in prices:
                batch = fields.flag("batch")
                paid += money(n_input, n_output, prices[role], in_batches=batch)
        return Spent(n_requests, n_prompt, n_answer, None if prices is None else paid)

    def _lines(self) -> Iterator[JsonFields]:
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as error:
            raise RecordError(f"cannot read {self.path}: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                state = parse_json(line, str(self.path), error=RecordError, line=number)
            except RecordError:  # cut off, or the empty line at the beginning
                continue
            yield JsonFields(state, f"{self.path}, line {number}")


class MeteredLLM(BaseLLM):
    """An engine whose answers are entered in a ledger before they are passed on.

    Args:
        engine: The engine.
        ledger: Where its answers are counted.
        role: What it answers for.
    """

    def __init__(self, engine: BaseLLM, ledger: Ledger, role: Role) -> None:
        self.engine = engine
        self.id, self.revision = engine.id, engine.revision
        self.context_length = engine.context_length
        self.can_batch = engine.can_batch
        self.answers_in_batches = engine.answers_in_batches
        self._ledger = ledger
        self._role: Role = role

    @cached_property
    def usage(self) -> Usage:
        """The counts of the engine."""
        return self.engine.usage

    @cached_property
    def notes(self) -> list[str]:
        """The notes of the engine."""
        return self.engine.notes

    @property
    def key(self) -> str:
        """The key of the engine."""
        return self.engine.key

    def control_tokens(self) -> frozenset[str]:
        """Return those of the engine."""
        return self.engine.control_tokens()

    def options(self) -> JsonObject:
        """Return those of the engine."""
        return self.engine.options()

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return the number of tokens of a prompt, by the engine."""
        return self.engine.count_tokens(prompt)

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

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
        """Answer prompts by the engine."""
        before = self._counts()
        answers = self.engine.generate(
            prompts,
            choices=choices,
            schema=schema,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )
        try:
            for position, answer in answers:
                before = self._enter(before)
                yield position, answer
        finally:  # answers that arrived and were not taken
            self._enter(before)

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Answer by the engine."""
        before = self._counts()
        for answer in self.engine.choice_probabilities(shared_prefix, items, suffixes, choices):
            before = self._enter(before)
            yield answer

    def _counts(self) -> tuple[int, ...]:
        return tuple(getattr(self.engine.usage, name) for name in _COUNTS)

    def _enter(self, before: tuple[int, ...]) -> tuple[int, ...]:
        now = self._counts()
        if now != before:
            more = [b - a for a, b in zip(before, now, strict=True)]
            self._ledger.add(self._role, more, in_batches=self.engine.answers_in_batches)
        return now
