"""Judging: four questions a sample, answered by labels or by their probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from synque_select.errors import LLMError
from synque_select.functional.lens import LABELS, label_value
from synque_select.lens.cache import AnswerCache, AnswerSession, answer_key
from synque_select.lens.prompt_sets import PromptSet
from synque_select.lens.rubric import Rubric
from synque_select.lens.samples import quote_sample
from synque_select.llm.base import BaseLLM, Failure

__all__ = ["Judged", "Tally", "Way", "judge"]

Way = Literal["label", "expectation"]

_PLACES = ("A", "B")
_SHOWN_FAILURES = 3


@dataclass
class Tally:
    """Counts over all judging of a run; ends it where too many questions fail.

    Args:
        n_planned: Questions of the whole run.
        threshold: Share of them that may fail.

    Attributes:
        n_asked: Answered by the model.
        n_kept: Answered by the cache.
        failures: Reasons, with the sample.
    """

    n_planned: int
    threshold: float = 0.02
    n_asked: int = 0
    n_kept: int = 0
    failures: list[str] = field(default_factory=list)
    n_failed: int = 0

    def fail(self, reason: str, sample: str, n_questions: int) -> None:
        """Count questions that failed.

        Raises:
            LLMError: More than the threshold have.
        """
        self.n_failed += n_questions
        if len(self.failures) < _SHOWN_FAILURES:
            self.failures.append(f"{reason} (sample {sample[:200]})")
        if self.n_failed > self.threshold * self.n_planned:
            examples = "; ".join(self.failures)
            raise LLMError(
                f"{self.n_failed} of {self.n_planned} questions failed, more than "
                f"{self.threshold:.1%}: {examples}. Answers so far are kept."
            )


@dataclass(frozen=True)
class Judged:
    """Judgements of the real sample and a candidate by one rubric.

    Args:
        real: (n, 2, 2) float64, values 0..4; NaN rows where a question failed.
        synthetic: (N, 2, 2) of the candidate's samples.
        n_cut: Samples that were longer than what is shown.
    """

    real: torch.Tensor
    synthetic: torch.Tensor
    n_cut: int


def judge(
    engine: BaseLLM,
    rubric: Rubric,
    real: Sequence[str],
    synthetic: Sequence[str],
    prompts: PromptSet,
    cache: AnswerCache,
    tally: Tally,
    *,
    way: Way = "expectation",
    max_sample_chars: int = 2000,
) -> Iterator[int | Judged]:
    """Ask how likely each sample belongs to the real and to the synthetic set.

    The candidate is shown as dataset A and as dataset B, and each sample is asked about both: four
    questions. Rubric and instructions begin all prompts of a place, a sample stands before its two
    questions. Every answer is kept as it arrives, so the next run asks only for the rest; equal
    samples are asked about once.

    Args:
        engine: The scorer.
        rubric: Of this candidate.
        real: Texts of the real sample.
        synthetic: Texts of the candidate.
        prompts: Of the kind of task.
        cache: Where answers are kept.
        tally: Counts of the run.
        way: "label": what the model writes, constrained to the five labels. "expectation": the
            mean of the labels' values under the model's probabilities.
        max_sample_chars: Longer samples are cut, and counted.

    Yields:
        How many questions were answered since the last time; at the end the judgements.

    Raises:
        LLMError: More questions fail than the tally allows.
    """
    quoted = [quote_sample(text, max_sample_chars) for text in (*real, *synthetic)]
    distinct = list(dict.fromkeys(q.text for q in quoted))
    values = {text: torch.full((2, 2), torch.nan, dtype=torch.float64) for text in distinct}
    for place, synthetic_is in enumerate(_PLACES):
        shared = prompts.fill("shared", **rubric.shown(synthetic_is))
        # column 0 asks for the real set, column 1 for the synthetic one
        asked = ("B", "A") if synthetic_is == "A" else ("A", "B")
        questions = _Questions(engine, shared, asked, prompts, way)
        with cache.session() as session:
            for text, row in questions.answers(distinct, session, tally):
                if row is not None:
                    values[text][place] = torch.tensor(row, dtype=torch.float64)
                yield 2
    rows = torch.stack([values[q.text] for q in quoted])
    rows[rows.isnan().any(dim=-1).any(dim=-1)] = torch.nan
    n_cut = sum(q.cut for q in quoted)
    yield Judged(rows[: len(real)], rows[len(real) :], n_cut)


class _Questions:
    """The two questions about each sample, at one place of the synthetic set."""

    def __init__(
        self, engine: BaseLLM, shared: str, asked: Sequence[str], prompts: PromptSet, way: Way
    ) -> None:
        self._engine = engine
        self._shared = shared
        self._suffixes = [prompts.fill("question", asked=name) for name in asked]
        self._prompts = prompts
        self._way = way
        self._decoding = {"choices": LABELS, "way": way}

    def answers(
        self, samples: Sequence[str], cache: AnswerSession, tally: Tally
    ) -> Iterator[tuple[str, list[float] | None]]:
        """Yield a sample with the values of its answers, None where one failed."""
        items = {s: self._prompts.fill("sample", sample=s) for s in samples}
        keys = {
            s: [self._key(item + suffix) for suffix in self._suffixes] for s, item in items.items()
        }
        kept = cache.get([key for pair in keys.values() for key in pair])
        missing = []
        for sample in samples:
            if all(key in kept for key in keys[sample]):
                tally.n_kept += 2
                yield sample, [self._value(kept[key]) for key in keys[sample]]
            else:
                missing.append(sample)
        for position, found in self._ask([items[s] for s in missing]):
            sample = missing[position]
            if isinstance(found, Failure):
                tally.fail(found.reason, sample, 2)
                yield sample, None
                continue
            cache.put(zip(keys[sample], found, strict=True))
            tally.n_asked += 2
            yield sample, [self._value(answer) for answer in found]

    def _key(self, rest: str) -> str:
        return answer_key(self._engine.key, self._shared + rest, self._decoding)

    def _ask(self, items: Sequence[str]) -> Iterator[tuple[int, list[Any] | Failure]]:
        if not items:
            return
        if self._way == "expectation":
            yield from self._engine.choice_probabilities(
                self._shared, items, self._suffixes, LABELS
            )
            return
        n = len(self._suffixes)
        prompts = [self._shared + item + suffix for item in items for suffix in self._suffixes]
        found: dict[int, dict[int, str | Failure]] = {}
        for position, answer in self._engine.generate(prompts, choices=LABELS):
            item = found.setdefault(position // n, {})
            item[position % n] = answer
            if len(item) == n:
                row = [item[i] for i in range(n)]
                failed = [a for a in row if isinstance(a, Failure)]
                yield position // n, failed[0] if failed else row

    def _value(self, answer: Any) -> float:
        if self._way == "label":
            return float(label_value(answer))
        return float(sum(p * i for i, p in enumerate(answer)))
