"""One run of LENS: engines, cost estimate, rubrics, judgments of all candidates."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.views import View
from synque_select.errors import LLMError, ProxyError, RecordError
from synque_select.functional.racing import Race, race
from synque_select.lens.ahead import ask_ahead
from synque_select.lens.cache import AnswerCache
from synque_select.lens.config import AdaptiveJudging, LensConfig
from synque_select.lens.cost import Cost, JudgingCost, judging_cost, rubric_cost
from synque_select.lens.judge import Judged, Tally, judge, questions_of
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import (
    Rubric,
    SampleSet,
    ask_points_ahead,
    kept_rubric,
    load_rubrics,
    rubric_prompts,
    save_rubrics,
    write_rubric,
)
from synque_select.lens.samples import Limits, content_order, halves, show_sample
from synque_select.llm.base import BaseLLM
from synque_select.llm.prompt import PromptLike
from synque_select.llm.registry import get_llm
from synque_select.types.modality import Modality
from synque_select.utils.progress import ProgressBar

__all__ = ["LensRun", "answered"]

_log = logging.getLogger(__name__)
_QUESTIONS = 4  # per example: the candidate in two places, two sets asked about
_IMAGES_AT_ONCE = 128
_POINT = "x" * 160  # length of a typical point, to estimate rubrics that are not written yet

Values = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def answered(judgments: torch.Tensor) -> torch.Tensor:
    """Return the judgments of the examples without a failed question.

    Args:
        judgments: (n, 2, 2) float64, NaN where a question failed.

    Returns:
        (m, 2, 2) float64 with m <= n.
    """
    return judgments[~judgments.isnan().any(dim=-1).any(dim=-1)]


@dataclass
class LensRun:
    """One run of LENS over all candidates.

    Args:
        config: Configuration of LENS.
        real: The real sample.
        candidates: Candidate name to its examples.
        modality: Whether the examples are texts or images.
        seed: Random seed of the choice of examples.
        real_groups: Group of each real example, (n,) int64, of at least 2 groups, which
            `split_real` does not divide; None if all are independent.

    Attributes:
        parts: Candidate name to the positions of the examples that are judged, ascending.
        rubrics: Candidate name to its rubric; empty with `zero_shot`.
        cost: Estimated cost, set before judging starts.
        race: State of adaptive judging at its end; None without it.
        tally: Counts of questions.

    Raises:
        ProxyError: The real sample is too small for `split_real`.
        ConfigError: An engine or one of its arguments is unknown.
    """

    config: LensConfig
    real: SampleSet
    candidates: Mapping[str, SampleSet]
    modality: Modality
    seed: int
    real_groups: NDArray[np.int64] | None = None
    rubrics: dict[str, Rubric] = field(default_factory=dict, init=False)
    cost: Cost | None = field(default=None, init=False)
    race: Race | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        config = self.config
        self.cache = AnswerCache(config.answers)
        self.prompts = load_prompts(
            config.prompts or ("image" if self.modality == "image" else "text")
        )
        self.limits = Limits(config.max_sample_chars, config.image_side)
        self.scorer = get_llm(config.scorer)
        self.reasoner = self.scorer if config.reasoner is None else get_llm(config.reasoner)
        order = np.array(content_order(self.real.keys, self.seed))
        # rubrics are written from the first part; the second part debiases
        first, second = halves(order, self.real_groups) if config.split_real else (order, order)
        if min(len(first), len(second)) < 2:
            sizes = f"found {len(order)}"
            if self.real_groups is not None:
                sizes = f"2 in each half; groups allow {len(first)} and {len(second)}"
            raise ProxyError(f"split_real needs at least 4 real examples, {sizes}")
        self.rubric_real, self.normalising = np.sort(first), np.sort(second)
        self._orders = {name: self._order(samples) for name, samples in self.candidates.items()}
        self.parts = {name: np.sort(part) for name, part in self._orders.items()}
        n_judged = sum(len(self.normalising) + len(part) for part in self.parts.values())
        self.tally = Tally(_QUESTIONS * n_judged, config.failure_threshold)

    def _order(self, samples: SampleSet) -> NDArray[np.int64]:
        """Return the positions of examples that may be judged, in the order they are drawn."""
        return np.array(content_order(samples.keys, self.seed)[: self.config.max_samples])

    def judge(self, values: Values) -> dict[str, Judged]:
        """Show the estimated cost, write the missing rubrics, and judge all candidates.

        Args:
            values: Function of the judgments of the real sample (n, 2, 2) and of examples
                (m, 2, 2) that returns the values whose mean is the score, (m,) in [0, 1]. Adaptive
                judging bounds this mean.

        Returns:
            Candidate name to its judgments; rows of `synthetic` are in the order of `parts`.

        Raises:
            LLMError: A rubric could not be written, or too many questions failed.
            ProxyError: All questions about a candidate failed.
        """
        self._estimate_cost()
        if not self.config.zero_shot:
            self._write_rubrics()
        if self.reasoner is not self.scorer:
            # two models may not fit on one device; a closed engine can be used again
            self.reasoner.close()
        adaptive = self.config.adaptive
        if self.scorer.answers_in_batches:
            self._ask_ahead({n: p if adaptive is None else p[:0] for n, p in self.parts.items()})
        with self._bar() as advance:
            if adaptive is not None:
                return self._in_rounds(values, adaptive, advance)
            return {name: self._whole(name, advance) for name in self.candidates}

    @property
    def rubrics_by(self) -> str:
        """Where the rubrics come from: a file, the caller, or a model."""
        rubrics = self.config.rubrics
        if rubrics is None:
            return self.reasoner.id
        return rubrics if isinstance(rubrics, str) else "the caller"

    @property
    def top_k(self) -> int:
        """Number of best candidates that adaptive judging decides on.

        Without `top_k`, a ranking selects all candidates but those that are worse than at least
        half of the others. By score these are all but the best ⌊K/2⌋: at least (K − 1)/2 of the
        K − 1 others are better. So the border is there.
        """
        adaptive = self.config.adaptive
        given = adaptive.top_k if adaptive else None
        return min(given or max(1, len(self.candidates) // 2), len(self.candidates))

    def close(self) -> None:
        """Free the models that this run created; engines passed in by the user stay open.

        In a cache that machines share, the answers are sent first.
        """
        with suppress(RecordError):  # they are in the database, and the next run sends them
            self.cache.send()
        specs = (self.config.scorer, self.config.reasoner or self.config.scorer)
        for engine, spec in zip((self.scorer, self.reasoner), specs, strict=True):
            if engine is not spec:
                engine.close()

    def _estimate_cost(self) -> None:
        known = self._known_rubrics()
        missing = [asked for name, asked in self._asked.items() if name not in known]
        judging = [self._judging_cost(name, known) for name in self.candidates]
        self.cost = Cost(
            rubric_cost(self.reasoner, missing, self.config.sampling.max_answer_tokens),
            sum(judging, JudgingCost()),
            self.reasoner.id,
            self.scorer.id,
            self.config.adaptive is not None,
            self.config.prices,
            {"reasoner": _batches_of(self.reasoner), "scorer": _batches_of(self.scorer)},
        )
        _log.info("lens: %s", self.cost)
        if self.config.progress:
            ProgressBar.write(f"lens: {self.cost}", file=sys.stderr)

    def _known_rubrics(self) -> dict[str, Rubric]:
        """Return rubrics from the file and the cache; keep the prompts of all others for later."""
        config = self.config
        self._asked: dict[str, dict[str, PromptLike]] = {}
        if config.zero_shot:
            return {}
        known: dict[str, Rubric] = {}
        if isinstance(config.rubrics, str):
            known = load_rubrics(config.rubrics, config.rubrics_group)
        elif config.rubrics is not None:
            known = dict(config.rubrics)
        real = self.real.part(self.rubric_real)
        for name, samples in self.candidates.items():
            if name in known:
                continue
            self._asked[name] = rubric_prompts(
                self.reasoner, real, samples, self.prompts, config.sampling
            )
            cached = kept_rubric(self.reasoner, self._asked[name], config.sampling, self.cache)
            if cached is not None:
                known[name] = cached
        self.rubrics = {name: known[name] for name in self.candidates if name in known}
        return self.rubrics

    def _judging_cost(self, name: str, known: Mapping[str, Rubric]) -> JudgingCost:
        rubric = known.get(name)
        is_known = self.config.zero_shot or rubric is not None
        if not is_known:
            rubric = Rubric(*[(_POINT,) * self.config.sampling.n_points] * 3)
        views = (
            samples.views[int(i)]
            for samples, positions in (
                (self.candidates[name], self._orders[name]),
                (self.real, self.normalising),
            )
            for i in positions
        )
        tokens = self.scorer.control_tokens()
        return judging_cost(
            self.scorer,
            questions_of(self.scorer, rubric, self.prompts, self.config.readout),
            (show_sample(view, self.prompts, self.limits, tokens).item for view in views),
            self.cache if is_known else None,
            self.config.readout,
        )

    def _write_rubrics(self) -> None:
        config = self.config
        left = [name for name in self.candidates if name not in self.rubrics]
        if self.reasoner.answers_in_batches:
            prompts = [prompt for name in left for prompt in self._asked[name].values()]
            ask_points_ahead(self.reasoner, prompts, config.sampling, self.cache)
        bar = ProgressBar(
            left,
            desc="writing rubrics",
            unit="rubric",
            delay=2,
            leave=False,
            disable=not config.progress,
        )
        for name in bar:
            try:
                self.rubrics[name] = write_rubric(
                    self.reasoner, self._asked[name], config.sampling, self.cache
                )
            except LLMError as error:
                raise LLMError(f"the rubric of {name}: {error}") from error
        if config.save_rubrics:
            about = {"model": self.reasoner.id, "prompts": self.prompts.name}
            ordered = {name: self.rubrics[name] for name in self.candidates}
            save_rubrics(config.save_rubrics, ordered, about)

    def _ask_ahead(self, parts: Mapping[str, NDArray[np.int64]], *, with_real: bool = True) -> None:
        """Ask all questions about examples of candidates, and about the real sample, at once."""

        def items(name: str) -> Iterator[PromptLike]:
            tokens = self.scorer.control_tokens()
            samples = self.candidates[name]
            real = self.normalising if with_real else self.normalising[:0]
            for views, positions in ((self.real.views, real), (samples.views, parts[name])):
                for i in positions:
                    yield show_sample(views[int(i)], self.prompts, self.limits, tokens).item

        ask_ahead(
            (
                (questions, items(name))
                for name in parts
                for questions in questions_of(
                    self.scorer, self.rubrics.get(name), self.prompts, self.config.readout
                )
            ),
            self.cache,
            self.tally,
            progress=self.config.progress,
        )

    @contextmanager
    def _bar(self) -> Iterator[Callable[[int], None]]:
        """Show the number of answered questions, tokens per second, and the time left."""
        _log.info("lens: %d questions to %s", self.tally.n_planned, self.scorer.id)
        bar = ProgressBar(
            total=self.tally.n_planned,
            desc="judging",
            unit="question",
            delay=2,
            leave=False,
            disable=not self.config.progress,
        )
        started, before = time.perf_counter(), self.scorer.usage.n_tokens

        def advance(n: int) -> None:
            seconds = time.perf_counter() - started
            rate = (self.scorer.usage.n_tokens - before) / max(seconds, 1e-9)
            bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update(n)

        with bar:
            yield advance

    def _whole(self, name: str, advance: Callable[[int], None]) -> Judged:
        real = [self.real.views[int(i)] for i in self.normalising]
        part = self.parts[name]
        step = _IMAGES_AT_ONCE if self.modality == "image" else max(1, len(part))
        first, *rest = [part[start : start + step] for start in range(0, len(part), step)]
        chunks = [self._judged(name, real, first, advance)]
        chunks += [self._judged(name, (), chunk, advance) for chunk in rest]
        return self._checked(name, _joined(chunks))

    def _judged(
        self,
        name: str,
        real: Sequence[View],
        positions: NDArray[np.int64],
        advance: Callable[[int], None],
    ) -> Judged:
        samples = self.candidates[name]
        answers = judge(
            self.scorer,
            self.rubrics.get(name),
            real,
            [samples.views[int(i)] for i in positions],
            self.prompts,
            self.cache,
            self.tally,
            readout=self.config.readout,
            limits=self.limits,
        )
        for progress in answers:
            if isinstance(progress, Judged):
                return progress
            advance(progress)
        raise RuntimeError("judge ended without judgments")

    def _checked(self, name: str, judged: Judged) -> Judged:
        if not len(answered(judged.real)) or not len(answered(judged.synthetic)):
            raise ProxyError(f"lens: all questions about {name} failed")
        return judged

    def _in_rounds(
        self, values: Values, adaptive: AdaptiveJudging, advance: Callable[[int], None]
    ) -> dict[str, Judged]:
        """Judge the real sample in full, as it normalizes the scores; then candidates in rounds."""
        names = list(self.candidates)
        real = [self.real.views[int(i)] for i in self.normalising]
        nothing = np.empty(0, dtype=np.int64)
        chunks = {name: [self._judged(name, real, nothing, advance)] for name in names}

        def draw(i: int, start: int, stop: int) -> NDArray[np.float64]:
            name = names[i]
            if start == stop:  # more rounds than examples
                return np.empty(0)
            chunk = self._judged(name, (), self._orders[name][start:stop], advance)
            chunks[name].append(chunk)
            row_values = values(answered(chunks[name][0].real), answered(chunk.synthetic))
            return np.asarray(row_values.numpy(), dtype=np.float64)

        def announce(draws: Sequence[tuple[int, int, int]]) -> None:
            if self.scorer.answers_in_batches:
                orders = {names[i]: self._orders[names[i]][a:b] for i, a, b in draws}
                self._ask_ahead(orders, with_real=False)

        self.race = race(
            draw,
            [len(self._orders[name]) for name in names],
            [len(self.candidates[name].keys) for name in names],
            self.top_k,
            adaptive.delta,
            adaptive.rounds,
            announce,
        )
        return {name: self._sorted(name, _joined(chunks[name])) for name in names}

    def _sorted(self, name: str, judged: Judged) -> Judged:
        """Bring judgments from the order of drawing into the order of rows."""
        drawn_part = self._orders[name][: len(judged.synthetic)]
        rows = np.argsort(drawn_part)
        self.parts[name] = drawn_part[rows]
        synthetic = judged.synthetic[torch.from_numpy(rows)]
        return self._checked(name, Judged(judged.real, synthetic, judged.n_cut))


def _batches_of(engine: BaseLLM) -> bool | None:
    """Return whether an engine answers in batches; None if it cannot."""
    return engine.answers_in_batches if engine.can_batch else None


def _joined(chunks: Sequence[Judged]) -> Judged:
    return Judged(
        chunks[0].real,
        torch.cat([chunk.synthetic for chunk in chunks]),
        sum(chunk.n_cut for chunk in chunks),
    )
