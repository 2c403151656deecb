"""What a run of LENS will ask, said before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synque_select.lens.cache import AnswerCache
from synque_select.lens.judge import Questions, Readout
from synque_select.llm.base import BaseLLM
from synque_select.llm.prompt import PromptLike

__all__ = ["Cost", "JudgingCost", "RubricCost", "judging_cost", "rubric_cost"]

_MEASURED = 64  # samples of a candidate whose tokens are counted
_MILLION = 1_000_000
# tokens of "very unlikely" and the end of the turn; by probabilities, one is read off
_WRITTEN: Mapping[Readout, int] = {"label": 4, "expectation": 1}


@dataclass(frozen=True)
class RubricCost:
    """What rubrics cost that are not there yet.

    Args:
        n_rubrics: How many.
        n_prompts: Three each; up to three times as many where answers have to be repaired.
        n_input: Tokens of these prompts.
        n_output: Tokens that the answers may have, at most.
    """

    n_rubrics: int = 0
    n_prompts: int = 0
    n_input: int = 0
    n_output: int = 0


@dataclass(frozen=True)
class JudgingCost:
    """What judging costs; at most, where it is adaptive.

    Args:
        n_questions: Of all distinct samples of both sides, four each.
        n_kept: How many are answered by the cache, as far as rubrics are there.
        n_input: Tokens of the prompts that are to be asked.
        n_shared: How many of these are beginnings that prompts of a candidate share, which an
            engine may compute once.
        n_output: Tokens of their answers.
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
    """What a run will ask.

    Args:
        rubrics: Of the reasoner.
        judging: Of the scorer.
        reasoner: Its id.
        scorer: Its id.
        is_adaptive: Whether candidates may stop early.
        prices: As in `LensConfig`.
    """

    rubrics: RubricCost
    judging: JudgingCost
    reasoner: str
    scorer: str
    is_adaptive: bool = False
    prices: Mapping[str, Mapping[str, float]] | None = None

    def __str__(self) -> str:
        return " ".join([*self._of_rubrics(), self._of_judging(), *self._of_prices()])

    def _of_rubrics(self) -> list[str]:
        rubrics = self.rubrics
        if not rubrics.n_rubrics:
            return []
        return [
            f"{rubrics.n_rubrics} rubrics to write by {self.reasoner}: {rubrics.n_prompts} prompts "
            f"(more where an answer has to be repaired), {rubrics.n_input:,} tokens to read, at "
            f"most {rubrics.n_output:,} to write."
        ]

    def _of_judging(self) -> str:
        judging = self.judging
        left = judging.n_questions - judging.n_kept
        most = "at most " if self.is_adaptive else ""
        said = (
            f"Judging by {self.scorer}: {most}{judging.n_questions:,} questions, of which "
            f"{judging.n_kept:,} are answered by the cache"
        )
        if not left:
            return f"{said}."
        return (
            f"{said}; {left:,} to ask with about {judging.n_input:,} tokens to read, "
            f"{judging.n_shared:,} of them in beginnings that prompts share (an estimate, from up "
            f"to {_MEASURED} samples a candidate)."
        )

    def _of_prices(self) -> list[str]:
        if self.prices is None:
            return []
        said = []
        for role, n_input, n_output, words in (
            ("reasoner", self.rubrics.n_input, self.rubrics.n_output, "rubrics at most"),
            ("scorer", self.judging.n_input, self.judging.n_output, "judging about"),
        ):
            if role in self.prices and n_input:
                price = self.prices[role]
                paid = (n_input * price["input"] + n_output * price["output"]) / _MILLION
                said.append(f"{words} {paid:,.2f}")
        return [f"At the given prices: {', '.join(said)}."] if said else []


def rubric_cost(
    engine: BaseLLM, missing: Sequence[Mapping[str, PromptLike]], max_answer_tokens: int
) -> RubricCost:
    """Count what the rubrics that are missing cost.

    Args:
        engine: The reasoner.
        missing: The prompts of each (`rubric_prompts`).
        max_answer_tokens: Length of an answer.
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
    """Count what judging a candidate and the real sample costs.

    Args:
        engine: The scorer.
        questions: Of both places of the synthetic set.
        items: The samples of both sides, as the judge sees them; one at a time is held.
        cache: Where answers may be kept; None where the rubric is still to be written, so that
            none can be.
        readout: As for `judge`.
    """
    # a sample's two answers at a place are asked for together
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
