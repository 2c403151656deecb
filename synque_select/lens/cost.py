"""The estimated cost of a LENS run, shown before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synque_select.lens.cache import AnswerCache
from synque_select.lens.judge import Questions, Readout
from synque_select.llm.base import BATCH_PRICE, BaseLLM
from synque_select.llm.prompt import PromptLike
from synque_select.utils.wording import counted

__all__ = ["Cost", "JudgingCost", "RubricCost", "judging_cost", "rubric_cost"]

_MEASURED = 64  # examples of a candidate whose tokens are counted
_MILLION = 1_000_000
# a label such as "very unlikely" and the end of the turn; an expectation needs one token
_WRITTEN: Mapping[Readout, int] = {"label": 4, "expectation": 1}


@dataclass(frozen=True)
class RubricCost:
    """The cost of the rubrics that still have to be written.

    Args:
        n_rubrics: Number of rubrics.
        n_prompts: Number of prompts: three per rubric, and up to three times as many if answers
            have to be repaired.
        n_input: Number of tokens in these prompts.
        n_output: Maximum number of tokens in the answers.
    """

    n_rubrics: int = 0
    n_prompts: int = 0
    n_input: int = 0
    n_output: int = 0


@dataclass(frozen=True)
class JudgingCost:
    """The cost of judging; an upper bound if judging is adaptive.

    Args:
        n_questions: Number of questions: four per distinct example of the real sample and the
            candidates.
        n_kept: Number of questions that the cache answers.
        n_input: Number of tokens in the prompts that have to be sent.
        n_shared: Number of these tokens that are in prefixes shared by the prompts of a candidate,
            which an engine may compute once.
        n_output: Number of tokens in the answers.
    """

    n_questions: int = 0
    n_kept: int = 0
    n_input: int = 0
    n_shared: int = 0
    n_output: int = 0

    def __add__(self, other: JudgingCost) -> JudgingCost:
        return JudgingCost(*[a + b for a, b in zip(_all(self), _all(other), strict=True)])


def _all(cost: JudgingCost) -> tuple[int, ...]:
    return cost.n_questions, cost.n_kept, cost.n_input, cost.n_shared, cost.n_output


@dataclass(frozen=True)
class Cost:
    """The estimated cost of a run.

    Args:
        rubrics: Cost of writing rubrics.
        judging: Cost of judging.
        reasoner: Id of the model that writes rubrics.
        scorer: Id of the model that judges.
        is_adaptive: Whether judging may stop early.
        prices: Price per million tokens, as in `LensConfig`.
        batches: Whether the model of each role answers in batches, at half the price; None if its
            engine cannot.
    """

    rubrics: RubricCost
    judging: JudgingCost
    reasoner: str
    scorer: str
    is_adaptive: bool = False
    prices: Mapping[str, Mapping[str, float]] | None = None
    batches: Mapping[str, bool | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([*self._of_rubrics(), self._of_judging(), *self._of_prices()])

    def _of_rubrics(self) -> list[str]:
        rubrics = self.rubrics
        if not rubrics.n_rubrics:
            return []
        return [
            f"{self.reasoner} writes {counted(rubrics.n_rubrics, 'rubric')}: "
            f"{counted(rubrics.n_prompts, 'prompt')} (more if an answer has to be repaired) with "
            f"{rubrics.n_input:,} input tokens and at "
            f"most {rubrics.n_output:,} output tokens."
        ]

    def _of_judging(self) -> str:
        judging = self.judging
        left = judging.n_questions - judging.n_kept
        most = "at most " if self.is_adaptive else ""
        total = (
            f"{self.scorer} judges: {most}{counted(judging.n_questions, 'question')}, "
            f"{judging.n_kept:,} of them answered by the cache"
        )
        if not left:
            return f"{total}."
        return (
            f"{total}; {left:,} to ask with about {judging.n_input:,} input tokens, "
            f"{judging.n_shared:,} of them in prefixes that prompts share (estimated from up to "
            f"{_MEASURED} examples per candidate)."
        )

    def _of_prices(self) -> list[str]:
        if self.prices is None:
            return []
        parts = []
        for role, n_input, n_output, words in (
            ("reasoner", self.rubrics.n_input, self.rubrics.n_output, "rubrics at most"),
            ("scorer", self.judging.n_input, self.judging.n_output, "judging about"),
        ):
            if role in self.prices and n_input:
                price = self.prices[role]
                paid = (n_input * price["input"] + n_output * price["output"]) / _MILLION
                parts.append(f"{words} {_both(paid, self.batches.get(role))}")
        return [f"At the given prices: {', '.join(parts)}."] if parts else []


def _both(paid: float, in_batches: bool | None) -> str:
    """Return a price, with that in batches or that of direct questions beside it."""
    direct, batched = f"{paid:,.2f}", f"{BATCH_PRICE * paid:,.2f}"
    if in_batches is None:
        return direct
    if in_batches:
        return f"{batched} in batches ({direct} if asked directly)"
    return f"{direct} ({batched} in batches, with `batch: true`)"


def rubric_cost(
    engine: BaseLLM, missing: Sequence[Mapping[str, PromptLike]], max_answer_tokens: int
) -> RubricCost:
    """Estimate the cost of the missing rubrics.

    Args:
        engine: The model that writes them.
        missing: Prompts of each missing rubric, from `rubric_prompts`.
        max_answer_tokens: Maximum number of tokens in an answer.
    """
    prompts = [prompt for asked in missing for prompt in asked.values()]
    return RubricCost(
        len(missing),
        len(prompts),
        sum(engine.count_tokens(prompt) for prompt in prompts),
        len(prompts) * max_answer_tokens,
    )


def judging_cost(
    engine: BaseLLM,
    questions: Sequence[Questions],
    items: Iterable[PromptLike],
    cache: AnswerCache | None,
    readout: Readout,
) -> JudgingCost:
    """Estimate the cost of judging a candidate and the real sample.

    Args:
        engine: The model that judges.
        questions: Questions with the candidate as dataset A, and as dataset B.
        items: Examples of the candidate and of the real sample as the judge sees them; only one
            at a time is held in memory.
        cache: Answer cache; None if the rubric still has to be written, as no answer can be
            cached then.
        readout: "label" or "expectation"; see `judge`.
    """
    # the two answers about an example are requested together, so they are cached together
    pairs: dict[tuple[str, ...], None] = {}
    lengths: list[int] = []
    for item in items:
        known = len(pairs)
        pairs |= dict.fromkeys(tuple(part.keys(item)) for part in questions)
        if len(pairs) > known and len(lengths) < _MEASURED:
            lengths.append(engine.count_tokens(item))
    kept = {} if cache is None else cache.get([key for pair in pairs for key in pair])
    n_questions = sum(len(pair) for pair in pairs)
    n_kept = sum(len(pair) for pair in pairs if all(key in kept for key in pair))
    mean = float(np.mean(lengths))
    n_shared = np.mean([engine.count_tokens(part.shared) for part in questions])
    n_suffix = np.mean([engine.count_tokens(s) for part in questions for s in part.suffixes])
    left = n_questions - n_kept
    return JudgingCost(
        n_questions,
        n_kept,
        round(left * (mean + n_shared + n_suffix)),
        round(left * n_shared),
        left * _WRITTEN[readout],
    )
