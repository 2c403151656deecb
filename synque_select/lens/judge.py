"""Judging: four questions per example, answered by labels or by their probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from synque_select.data.views import View
from synque_select.errors import LLMError
from synque_select.functional.lens import LABELS, label_value
from synque_select.lens.cache import AnswerCache, AnswerSession, answer_key
from synque_select.lens.prompt_sets import PromptSet
from synque_select.lens.rubric import Rubric
from synque_select.lens.samples import Limits, show_sample
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.prompt import PromptLike, join_prompts, prompt_text
from synque_select.utils.validation import is_number
from synque_select.utils.wording import counted, one_line, percent

__all__ = ["Judged", "Questions", "Readout", "Tally", "judge", "questions_of"]

Readout = Literal["label", "expectation"]

_PLACES = ("A", "B")
_SHOWN_FAILURES = 3
_SHOWN_CHARS = 200
_ROUNDING = 0.01  # by which the probabilities of an answer may miss a sum of 1
_REAL = "Dataset {} is real."
_SYNTHETIC = "Dataset {} is synthetic: a model generated it."


@dataclass
class Tally:
    """Counts the questions of a run, and stops it if too many fail.

    Args:
        n_planned: Number of questions in the whole run.
        threshold: Share of questions that may fail.

    Attributes:
        n_asked: Number of questions answered by the model.
        n_kept: Number of questions answered by the cache.
        n_failed: Number of questions that failed.
        failures: The first reasons, each with its example.
        ahead: What became of questions that were asked before judging, by their cache keys: None
            where they were answered.
    """

    n_planned: int
    threshold: float = 0.02
    n_asked: int = 0
    n_kept: int = 0
    failures: list[str] = field(default_factory=list)
    n_failed: int = 0
    ahead: dict[tuple[str, ...], Failure | None] = field(default_factory=dict)

    def fail(self, reason: str, sample: str, n_questions: int) -> None:
        """Count failed questions.

        Raises:
            LLMError: More than the allowed share of questions have failed.
        """
        self.n_failed += n_questions
        if len(self.failures) < _SHOWN_FAILURES:
            self.failures.append(f"{reason} (example: {one_line(sample, _SHOWN_CHARS)})")
        if self.n_failed > self.threshold * self.n_planned:
            examples = "; ".join(self.failures)
            raise LLMError(
                f"{self.n_failed} of {counted(self.n_planned, 'question')} failed, more than "
                f"the allowed {percent(self.threshold, 1)}: {examples}. The answers so far are "
                "cached."
            )


@dataclass(frozen=True)
class Judged:
    """Judgments of the real sample and of a candidate under one rubric.

    Axis 1 is where the candidate is shown (dataset A or B), axis 2 which set is asked about (real
    or synthetic).

    Args:
        real: Judgments of the real sample, (n, 2, 2) float64 in [0, 4]; NaN where a question
            about the example failed.
        synthetic: Judgments of the candidate's examples, (N, 2, 2), in the same form.
        n_cut: Number of examples that were too long or too large and were cut.
    """

    real: torch.Tensor
    synthetic: torch.Tensor
    n_cut: int


def judge(
    engine: BaseLLM,
    rubric: Rubric | None,
    real: Sequence[View],
    synthetic: Sequence[View],
    prompts: PromptSet,
    cache: AnswerCache,
    tally: Tally,
    *,
    readout: Readout = "expectation",
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Iterator[int | Judged]:
    """Ask how likely it is that each example belongs to the real and to the synthetic set.

    The candidate is shown once as dataset A and once as dataset B, and both sets are asked about:
    four questions per example. All prompts with the candidate in the same place share a prefix
    (instructions and rubric), followed by the example and the question. Every answer is cached as
    it arrives, so another run asks only for the rest. Equal examples are asked about once.

    Args:
        engine: The model that judges.
        rubric: Rubric of the candidate; None to ask without a rubric, with the section `zero_shot`
            of the prompts.
        real: Texts or images of the real sample; empty to judge only the candidate.
        synthetic: Texts or images of the candidate.
        prompts: Prompts for the kind of task.
        cache: Answer cache.
        tally: Counts of the run.
        readout: "label" takes the label that the model writes, constrained to the five labels.
            "expectation" takes the mean of the labels' values under the model's probabilities.
        limits: Maximum size of an example; larger ones are cut or scaled down, and counted.

    Yields:
        The number of questions answered since the last yield; at the end, the judgments.

    Raises:
        LLMError: More questions failed than the tally allows.
    """
    tokens = engine.control_tokens()
    shown = [show_sample(view, prompts, limits, tokens) for view in (*real, *synthetic)]
    names = [prompt_text(sample.item) for sample in shown]
    counts = Counter(names)
    items = {name: sample.item for name, sample in zip(names, shown, strict=True)}
    values = {name: torch.full((2, 2), torch.nan, dtype=torch.float64) for name in items}
    for place, questions in enumerate(questions_of(engine, rubric, prompts, readout)):
        with cache.session() as session:
            for name, row in questions.answers(items, session, tally):
                if row is not None:
                    values[name][place] = torch.tensor(row, dtype=torch.float64)
                yield 2 * counts[name]
    rows = torch.stack([values[name] for name in names])
    rows[rows.isnan().any(dim=-1).any(dim=-1)] = torch.nan
    n_cut = sum(sample.cut for sample in shown)
    yield Judged(rows[: len(real)], rows[len(real) :], n_cut)


def questions_of(
    engine: BaseLLM, rubric: Rubric | None, prompts: PromptSet, readout: Readout
) -> list[Questions]:
    """Return the questions with the candidate as dataset A, and as dataset B.

    Raises:
        ConfigError: `rubric` is None, and the prompts have no section `zero_shot`.
    """
    questions = []
    for synthetic_is in _PLACES:
        real_is = "B" if synthetic_is == "A" else "A"
        if rubric is None:
            kinds = {synthetic_is: _SYNTHETIC, real_is: _REAL}
            named = {f"kind_{name.lower()}": text.format(name) for name, text in kinds.items()}
            shared = prompts.fill("zero_shot", **named)
        else:
            shared = prompts.fill("shared", **rubric.shown(synthetic_is, engine.control_tokens()))
        # column 0 asks for the real set, column 1 for the synthetic one
        questions.append(Questions(engine, shared, (real_is, synthetic_is), prompts, readout))
    return questions


class Questions:
    """The two questions about each example, with the candidate in one place (A or B)."""

    def __init__(
        self,
        engine: BaseLLM,
        shared: PromptLike,
        asked: Sequence[str],
        prompts: PromptSet,
        readout: Readout,
    ) -> None:
        self._engine = engine
        self.shared = shared
        self.suffixes = [str(prompts.fill("question", asked=name)) for name in asked]
        self._readout = readout
        # part of the cache key: keeps its name of version 0.1, or cached answers would be lost
        self._decoding = {"choices": LABELS, "way": readout}

    def keys(self, item: PromptLike) -> list[str]:
        """Return the cache keys of the answers about an example."""
        return [
            answer_key(self._engine.key, prompt_text(self._prompt(item, suffix)), self._decoding)
            for suffix in self.suffixes
        ]

    def answers(
        self, items: Mapping[str, PromptLike], cache: AnswerSession, tally: Tally
    ) -> Iterator[tuple[str, list[float] | None]]:
        """Yield the name of each example with the values of its answers, or None if one failed."""
        keys = {name: self.keys(item) for name, item in items.items()}
        kept = cache.get([key for pair in keys.values() for key in pair])
        missing = []
        for name in items:
            pair = tuple(keys[name])
            failure = tally.ahead.get(pair)
            if all(key in kept and self.is_usable(kept[key]) for key in pair):
                if pair in tally.ahead:
                    tally.n_asked += 2
                else:
                    tally.n_kept += 2
                yield name, [self._value(kept[key]) for key in pair]
            elif failure is not None:
                tally.fail(failure.reason, name, 2)
                yield name, None
            else:
                missing.append(name)
        for position, result in self._ask([items[name] for name in missing]):
            name = missing[position]
            if isinstance(result, list) and not self._are_usable(result):
                # an engine of the user's own may return anything, and NaN would spread silently
                result = Failure(f"{self._engine.id} returned {str(result)[:_SHOWN_CHARS]}")
            if isinstance(result, Failure):
                tally.fail(result.reason, name, 2)
                yield name, None
                continue
            cache.put(zip(keys[name], result, strict=True))
            tally.n_asked += 2
            yield name, [self._value(answer) for answer in result]

    def prompts(self, item: PromptLike) -> list[PromptLike]:
        """Return the questions about an example, in the order of `keys`."""
        return [self._prompt(item, suffix) for suffix in self.suffixes]

    def ask_each(self, prompts: Sequence[PromptLike]) -> Iterator[tuple[int, Any | Failure]]:
        """Yield the position of each of several questions, of any candidate, with its answer."""
        if self._readout == "label":
            yield from self._engine.generate(prompts, choices=LABELS)
            return
        for position, rows in self._engine.choice_probabilities("", prompts, [""], LABELS):
            yield position, rows if isinstance(rows, Failure) else rows[0]

    def _prompt(self, item: PromptLike, suffix: str) -> PromptLike:
        return join_prompts(self.shared, item, suffix)

    def _ask(self, items: Sequence[PromptLike]) -> Iterator[tuple[int, list[Any] | Failure]]:
        if not items:
            return
        if self._readout == "expectation":
            yield from self._engine.choice_probabilities(self.shared, items, self.suffixes, LABELS)
            return
        n = len(self.suffixes)
        prompts = [prompt for item in items for prompt in self.prompts(item)]
        answers: dict[int, dict[int, str | Failure]] = {}
        for position, answer in self._engine.generate(prompts, choices=LABELS):
            answered = answers.setdefault(position // n, {})
            answered[position % n] = answer
            if len(answered) == n:
                row = [answered[i] for i in range(n)]
                failed = [a for a in row if isinstance(a, Failure)]
                yield position // n, failed[0] if failed else row

    def _are_usable(self, answers: list[Any]) -> bool:
        return len(answers) == len(self.suffixes) and all(map(self.is_usable, answers))

    def is_usable(self, answer: Any) -> bool:
        """Return whether an answer is one of the labels, or one probability per label."""
        if self._readout == "label":
            return isinstance(answer, str) and answer in LABELS
        return (
            isinstance(answer, list | tuple)
            and len(answer) == len(LABELS)
            and all(is_number(p) and 0 <= p <= 1 + _ROUNDING for p in answer)
            and abs(sum(answer) - 1) <= _ROUNDING
        )

    def _value(self, answer: Any) -> float:
        if self._readout == "label":
            return float(label_value(answer))
        return float(sum(p * i for i, p in enumerate(answer)))
