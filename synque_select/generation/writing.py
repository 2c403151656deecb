"""One round of writing: the rubric, the gaps, the prompts, their cost, and the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import LLMError
from synque_select.generation.ledger import MeteredLLM, Prices, money
from synque_select.generation.options import ImproveOptions
from synque_select.generation.prompts import BARE_INSTRUCTION, Request, request
from synque_select.generation.record_form import LabelSet, Record, RecordForm, json_record
from synque_select.generation.screening import DropReason
from synque_select.lens.cache import AnswerCache, answer_key
from synque_select.lens.cost import RubricCost, rubric_cost
from synque_select.lens.feedback import feedback_of
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import (
    Rubric,
    SampleSet,
    kept_rubric,
    rubric_prompts,
    write_rubric,
)
from synque_select.llm.base import Failure
from synque_select.llm.prompt import PromptLike
from synque_select.proxies.registry import resolve_suite
from synque_select.selection.gaps import gap_map
from synque_select.selection.scoring import score
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted, one_line

__all__ = ["Draft", "RoundCost", "Writer"]

_GAPS_PER_CALL = 5
_EXAMPLES_PER_CALL = 3
# each answer of a rubric may have to be repaired twice
_ATTEMPTS = 3
# length of a typical point, to estimate prompts before the rubric is written
_POINT = "x" * 160


@dataclass(frozen=True)
class RoundCost:
    """The estimated cost of a round, at most, up to the lengths of prompts of later rounds.

    Args:
        rubric: Cost of the rubric.
        n_calls: Number of calls of the generator that are left to make.
        n_input: Number of tokens in their prompts.
        n_output: Maximum number of tokens in their answers.
        money: What this costs at most at the given prices, with every answer of the rubric repaired
            twice; None without prices.
    """

    rubric: RubricCost
    n_calls: int
    n_input: int
    n_output: int
    money: float | None

    def with_later(self, later: RoundCost, n: int) -> RoundCost:
        """Return the cost of this round and of n further ones.

        Args:
            later: Cost of a round of which no answer is there yet.
            n: Number of further rounds.
        """
        mine, theirs = self.rubric, later.rubric
        return RoundCost(
            RubricCost(
                mine.n_rubrics + n * theirs.n_rubrics,
                mine.n_prompts + n * theirs.n_prompts,
                mine.n_input + n * theirs.n_input,
                mine.n_output + n * theirs.n_output,
            ),
            self.n_calls + n * later.n_calls,
            self.n_input + n * later.n_input,
            self.n_output + n * later.n_output,
            None if self.money is None else self.money + n * (later.money or 0.0),
        )

    def __str__(self) -> str:
        more = " (more if a rubric has to be repaired)" if self.rubric.n_prompts else ""
        paid = "" if self.money is None else f", at most {self.money:,.4g} at the given prices"
        return (
            f"{counted(self.rubric.n_prompts + self.n_calls, 'call')}{more}, about "
            f"{self.rubric.n_input + self.n_input:,} input tokens and at most "
            f"{self.rubric.n_output + self.n_output:,} output tokens{paid}"
        )


@dataclass(frozen=True)
class Draft:
    """The calls of a round before they are made.

    Args:
        rubric_prompts: Prompts of the rubric, by field.
        rubric: The rubric, if all of its answers are there already; None otherwise.
        gaps: The real examples that no candidate covers, the worst covered first.
        cost: What the round may still cost.
        later: What another round may cost.
    """

    rubric_prompts: Mapping[str, PromptLike]
    rubric: Rubric | None
    gaps: Sequence[str]
    cost: RoundCost
    later: RoundCost


@dataclass(frozen=True)
class Writer:
    """Writes the batch of one round.

    Args:
        number: Number of the round.
        data: The data so far.
        others: The other candidates, which may cover what this one does not.
        shown: The half of the real sample that may be shown.
        label: The classes of the data; None without.
        generator: The model that writes examples.
        reasoner: The model that writes the rubric.
        answers: Answers that are there already.
        options: Options of the loop.
    """

    number: int
    data: Candidate
    others: Sequence[Candidate]
    shown: RealSample
    label: LabelSet | None
    generator: MeteredLLM
    reasoner: MeteredLLM
    answers: AnswerCache
    options: ImproveOptions

    def draft(self) -> Draft:
        """Look for gaps, prepare the prompts and estimate the cost; no model is asked.

        Raises:
            DataError: An example of the data does not have a form that can be written.
            EncoderError: The encoder of the gap map cannot be loaded.
        """
        gaps = self._gaps()
        asked = rubric_prompts(
            self.reasoner,
            _samples(self.shown),
            _samples(self.data),
            load_prompts("text"),
            self.options.sampling,
        )
        try:
            rubric = kept_rubric(self.reasoner, asked, self.options.sampling, self.answers)
            is_refused = False
        except LLMError:  # kept answers that are not usable: `write` says so
            rubric, is_refused = None, True
        later = self._cost(asked, None, gaps, is_refused=False)
        cost = self._cost(asked, rubric, gaps, is_refused=is_refused)
        return Draft(asked, rubric, gaps, cost, later)

    def _gaps(self) -> list[str]:
        """Return the real examples that no candidate covers, the worst covered first."""
        options = self.options
        scoring = score(
            [self.data, *self.others],
            self.shown,
            resolve_suite(["mdm"], "text"),  # the cheapest proxy whose scoring has embeddings
            encoder=options.encoder,
            seed=options.seed,
            device=options.device,
            cache_dir=options.cache_dir,
            progress=options.progress,
        )
        return [str(self.shown.views[gap.real]) for gap in gap_map(scoring) if not gap.covered]

    def _cost(
        self,
        asked: Mapping[str, PromptLike],
        rubric: Rubric | None,
        gaps: Sequence[str],
        *,
        is_refused: bool,
    ) -> RoundCost:
        options, nothing = self.options, RubricCost()
        is_written = rubric is not None or is_refused
        part = nothing
        if not is_written:
            n_tokens = options.sampling.max_answer_tokens
            part = rubric_cost(self.reasoner, [asked], n_tokens)
            rubric = Rubric(*[(_POINT,) * options.sampling.n_points] * 3)
        requests = self._requests(self._instruction(rubric), gaps)
        left = self._missing(requests) if is_written else requests
        n_input = sum(self.generator.count_tokens(one.prompt) for one in left)
        n_output = len(left) * options.max_answer_tokens
        paid = self._money(part, n_input, n_output, options.prices_of_roles)
        return RoundCost(part, len(left), n_input, n_output, paid)

    def _money(
        self, rubric: RubricCost, n_input: int, n_output: int, prices: Prices | None
    ) -> float | None:
        if prices is None:
            return None
        batches = self.reasoner.answers_in_batches, self.generator.answers_in_batches
        of_rubric = money(
            rubric.n_input, rubric.n_output, prices["reasoner"], in_batches=batches[0]
        )
        return _ATTEMPTS * of_rubric + money(
            n_input, n_output, prices["generator"], in_batches=batches[1]
        )

    def rubric(self, draft: Draft) -> tuple[Rubric | None, str]:
        """Return the rubric, which is written if it is missing; None and why if it cannot be."""
        if draft.rubric is not None:
            return draft.rubric, ""
        options, asked = self.options, draft.rubric_prompts
        try:
            rubric = write_rubric(
                self.reasoner, asked, options.sampling, self.answers, progress=options.progress
            )
            return rubric, ""
        except LLMError as error:
            return None, f"no rubric was used: {one_line(str(error))}"

    def write(
        self, draft: Draft, rubric: Rubric | None
    ) -> tuple[list[tuple[RecordForm, Record]], dict[DropReason, int]]:
        """Ask for the examples.

        Args:
            draft: What `draft` returned.
            rubric: The rubric that prompts contain; None for prompts without one.

        Returns:
            The examples that have the form of the data, each with its form, and the number of those
            that were asked for and did not come ("no_answer") or have another form ("wrong_form").

        Raises:
            LLMError: No call was answered.
        """
        requests = self._requests(self._instruction(rubric), draft.gaps)
        answers = self._answers(requests)
        examples: list[tuple[RecordForm, Record]] = []
        lost: dict[DropReason, int] = {"no_answer": 0, "wrong_form": 0}
        for asked, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Failure):
                lost["no_answer"] += asked.n
                continue
            records, n_wrong = asked.form.read(answer, asked.n)
            lost["wrong_form"] += n_wrong
            examples += [(asked.form, record) for record in records]
        return examples, {reason: n for reason, n in lost.items() if n}

    def _instruction(self, rubric: Rubric | None) -> str:
        if rubric is None:
            return BARE_INSTRUCTION
        points = {name: list(lines) for name, lines in vars(rubric).items()}
        return feedback_of(self.data.name, {"rubric": points, "least_real": []}).instruction()

    def _requests(self, instruction: str, gaps: Sequence[str]) -> list[Request]:
        """Return the calls of the round; what each shows depends on the seed and the round."""
        sizes = self.options.requests()
        generator = np.random.default_rng([self.options.seed, self.number])
        labels = [None] * len(sizes) if self.label is None else self.label.quota(len(sizes))
        tokens, requests = self.generator.control_tokens(), []
        for i, (n, label) in enumerate(zip(sizes, labels, strict=True)):
            pool = self._positions[label]
            size = min(_EXAMPLES_PER_CALL, len(pool))
            chosen = generator.choice(pool, size, replace=False)
            records = [json_record(self.data, int(position)) for position in chosen]
            form = RecordForm(records[0], self.label, self.options.max_chars)
            place = f"call {i + 1} of {len(sizes)} in round {self.number}"
            shown = [gaps[j % len(gaps)] for j in _places(i)] if gaps else []
            requests.append(
                request(
                    form,
                    n,
                    instruction=instruction,
                    gaps=list(dict.fromkeys(shown)),
                    examples=records,
                    label=label,
                    place=place,
                    control_tokens=tokens,
                )
            )
        return requests

    @cached_property
    def _positions(self) -> dict[str | None, list[int]]:
        """Positions of the examples of each class; of all under None."""
        if self.label is None:
            return {None: list(range(len(self.data)))}
        positions: dict[str | None, list[int]] = {}
        for position, label in enumerate(self.data.labels):
            positions.setdefault(label, []).append(position)
        return positions

    def _decoding(self, one: Request) -> dict[str, object]:
        return {
            "schema": one.schema,
            "max_tokens": self.options.max_answer_tokens,
            "temperature": self.options.temperature,
            "seed": self.options.seed,
        }

    def _key(self, one: Request) -> str:
        return answer_key(self.generator.key, one.prompt, self._decoding(one))

    def _missing(self, requests: Sequence[Request]) -> list[Request]:
        kept = self.answers.get([self._key(one) for one in requests])
        return [one for one in requests if self._key(one) not in kept]

    def _answers(self, requests: Sequence[Request]) -> list[str | Failure]:
        """Return the answers; each is stored as it arrives, and asked for once."""
        keys = [self._key(one) for one in requests]
        answers: dict[str, str | Failure] = {k: str(v) for k, v in self.answers.get(keys).items()}
        by_schema: dict[str, list[Request]] = {}
        for one, key in zip(requests, keys, strict=True):
            if key not in answers:
                by_schema.setdefault(json.dumps(one.schema), []).append(one)
        left = sum(map(len, by_schema.values()))
        bar = ProgressBar(
            total=left,
            desc=f"writing examples, round {self.number}",
            unit="call",
            delay=2,
            leave=False,
            disable=not self.options.progress,
        )
        with self.answers.session() as session, bar:
            for part in by_schema.values():
                for position, answer in self._ask(part):
                    key = self._key(part[position])
                    answers[key] = answer
                    if not isinstance(answer, Failure):
                        session.put({key: answer})
                    bar.update()
        failures = [answer for answer in answers.values() if isinstance(answer, Failure)]
        if len(failures) == len(answers):
            raise LLMError(
                f"{self.generator.id}: none of {counted(len(keys), 'call')} of round {self.number} "
                f"was answered: {failures[0].reason}"
            )
        return [answers[key] for key in keys]

    def _ask(self, part: Sequence[Request]) -> Iterator[tuple[int, str | Failure]]:
        """Ask for answers of one schema."""
        return self.generator.generate(
            [one.prompt for one in part],
            schema=part[0].schema,
            max_tokens=self.options.max_answer_tokens,
            temperature=self.options.temperature,
            seed=self.options.seed,
        )


def _places(call: int) -> range:
    """Return which of the gaps a call shows, counted on over all calls."""
    return range(call * _GAPS_PER_CALL, (call + 1) * _GAPS_PER_CALL)


def _samples(examples: Candidate | RealSample) -> SampleSet:
    return SampleSet.of_texts([str(view) for view in examples.views])
