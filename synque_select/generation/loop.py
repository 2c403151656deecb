"""The generator loop: ask for a batch, compare, keep it if it is better, else stop."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.data.contamination import duplicates_in
from synque_select.data.groups import GroupSelector
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, DataError
from synque_select.generation.comparison import Comparison, check_suite, compare, rehearsal
from synque_select.generation.ledger import MeteredLLM, Spent
from synque_select.generation.options import ImproveOptions
from synque_select.generation.record_form import (
    LabelSet,
    Record,
    RecordForm,
    as_records,
    json_record,
    label_set,
)
from synque_select.generation.result import Improvement, Round
from synque_select.generation.run_files import IMPROVED, RunFiles
from synque_select.generation.screening import replace_data, screen
from synque_select.generation.split import RealHalves, split_real
from synque_select.generation.writing import Draft, Writer
from synque_select.llm.base import BaseLLM
from synque_select.llm.registry import LLMSpec, check_llm, get_llm
from synque_select.records.run_folder import to_jsonable
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted, listed, percent, printable

__all__ = ["improve"]

_log = logging.getLogger(__name__)

# below, a batch cannot be scored beside the data
_LEAST_NEW = 5
_BUDGET = "Stopped for its cost"
_AGREED = "; this says nothing yet of a model that is trained on it"


def improve(
    candidate: object,
    real: object,
    generator: LLMSpec,
    run_dir: str | Path,
    *,
    others: object = (),
    reasoner: LLMSpec | None = None,
    view: Selector | None = None,
    real_view: Selector | None = None,
    label: Selector | None = None,
    real_groups: GroupSelector | None = None,
    options: ImproveOptions | None = None,
) -> Improvement:
    """Have a model write further examples for a candidate, and keep those that make it better.

    The real sample is divided into two halves. In each round, the reasoner compares examples of one
    half with the data and writes a rubric; the rubric, and the real examples of that half which no
    candidate covers, tell the generator what to write. Examples that break the form, have an
    unknown label, or are copies or near copies of real examples, of the data, or of each other are
    dropped. The other half, which no model that writes is shown, then decides: the new data is kept
    if a paired test of all proxies together shows it to be better, with an error of at most
    `options.error` over all rounds. The loop ends at the first round that is not better.

    A killed run continues where it was if it is started again with the same data, options and
    directory, and no answer is asked for twice.

    Args:
        candidate: A candidate, or anything that `load_candidates` takes for one; texts, or records
            with named fields.
        real: The real sample, or anything that `load_real` takes; its labels are never read.
        generator: The model that writes examples: an engine, or a mapping with "engine" and its
            arguments.
        run_dir: Directory of the run: `improve.json`, `round-N.jsonl` of each kept round,
            `improved.jsonl` with all examples to train on, and the answers.
        others: Other candidates, which may cover real examples that this one does not; the
            candidate itself may be among them, as in a glob.
        reasoner: The model that writes rubrics; None for the generator.
        view: What is compared, as for `rank`; of a text.
        real_view: View of the real sample; None as `view`.
        label: Field with the candidate's class; new examples get one as well; None for no label.
        real_groups: What real examples share that do not vary independently, as for `rank`; they
            are in one half.
        options: Sizes, limits, proxies and seed; None for the defaults.

    Returns:
        The rounds, what was kept and why, and what the run cost.

    Raises:
        ConfigError: An argument is not allowed, the first round may cost more than
            `options.max_cost`, or the directory holds another run.
        DataError: The data cannot be used, or the real sample is too small to be divided.
        LLMError: A model cannot be loaded or reached, or answered no call of a round.
        ProxyError: No proxy can compare on this data.
        RecordError: A file of the run cannot be read or written.

    Example:
        >>> import tempfile
        >>> from synque_select.llm import ScriptedLLM
        >>> def write(prompt):
        ...     key = "examples" if '"examples"' in prompt else "points"
        ...     return '{"%s": []}' % key  # it writes nothing that can be used
        >>> real = [f"how many {word}{i} are there" for i, word in enumerate("abcdefgh" * 6)]
        >>> made = [f"{word}{i} is a word" for i, word in enumerate("abcdefgh" * 6)]
        >>> options = ImproveOptions(n_examples=5, proxies=["ngram"], progress=False)
        >>> result = improve(
        ...     {"made": made}, real, ScriptedLLM(write), tempfile.mkdtemp(), options=options
        ... )
        >>> result.rounds[0].dropped, result.n_kept
        ({'wrong_form': 5}, 0)
    """
    options = options or ImproveOptions()
    check_suite(options)
    for role, spec in (("generator", generator), ("reasoner", reasoner)):
        _check_engine(role, spec)
    (data, *rest) = _candidates(candidate, others, view, label)
    sample = load_real(real, view=view if real_view is None else real_view, real_groups=real_groups)
    if data.modality != "text" or sample.modality != "text":
        raise ConfigError(f"{data.where}: improve writes texts, and the view is an image")
    halves = split_real(sample, options.seed)
    records = as_records(data)
    own = _without_copies(records, halves)
    loop = _Loop(
        data=own,
        n_copies=len(records) - len(own),
        others=rest,
        halves=halves,
        engines=_engines(generator, reasoner),
        files=RunFiles(run_dir),
        options=options,
    )
    try:
        return loop.run()
    finally:
        for engine in loop.engines:
            if engine is not generator and engine is not reasoner:  # the caller's own stay open
                engine.close()


def _without_copies(data: Candidate, halves: RealHalves) -> Candidate:
    """Leave out copies of real examples, which prompts would quote and which flatter old data."""
    is_copy = duplicates_in(data, halves.shown) | duplicates_in(data, halves.held_out)
    if not is_copy.any():
        return data
    if len(data) - is_copy.sum() < _LEAST_NEW:
        raise DataError(
            f"{data.where}: {is_copy.sum():,} of {counted(len(data), 'example')} are copies or "
            f"near copies of real examples, which leaves fewer than {_LEAST_NEW} to improve"
        )
    return data.without(np.flatnonzero(is_copy).tolist())


def _check_engine(role: str, spec: LLMSpec | None) -> None:
    if spec is None and role == "reasoner":
        return
    try:
        check_llm(spec)
    except ConfigError as error:
        raise ConfigError(f"{role}: {error}") from error


def _candidates(
    candidate: object, others: object, view: Selector | None, label: Selector | None
) -> list[Candidate]:
    if isinstance(candidate, Candidate):
        candidate = [candidate]
    loaded = load_candidates(candidate, view=view, label=label)
    if len(loaded) != 1:
        raise ConfigError(
            f"found {counted(len(loaded), 'candidate')} ({listed([c.name for c in loaded])}): "
            "improve takes one; give the rest as others"
        )
    check_not_drawn(loaded, "improve")
    if isinstance(others, Sequence) and not isinstance(others, str) and not others:
        return loaded
    own = loaded[0]
    rest = [one for one in load_candidates(others, view=view) if one.content != own.content]
    if own.name in {one.name for one in rest}:
        raise ConfigError(
            f"{own.name} is the name of the candidate and of a different one in others: give them "
            "different names"
        )
    return [own, *rest]


def _engines(generator: LLMSpec, reasoner: LLMSpec | None) -> tuple[BaseLLM, BaseLLM]:
    writes = get_llm(generator)
    return writes, writes if reasoner is None else get_llm(reasoner)


@dataclass
class _Loop:
    """The state of a run.

    Args:
        data: The candidate without copies of real examples; from then on, the data so far.
        n_copies: Number of these copies.
        others: The other candidates.
        halves: The real sample.
        engines: The generator and the reasoner.
        files: The files of the run.
        options: Options.
    """

    data: Candidate
    n_copies: int
    others: Sequence[Candidate]
    halves: RealHalves
    engines: tuple[BaseLLM, BaseLLM]
    files: RunFiles
    options: ImproveOptions

    def __post_init__(self) -> None:
        self.label: LabelSet | None = label_set(self.data)
        self.before = self.data
        self.is_announced = False
        RecordForm(json_record(self.data, 0), self.label, self.options.max_chars)
        ledger = self.files.ledger
        self.generator = MeteredLLM(self.engines[0], ledger, "generator")
        self.reasoner = MeteredLLM(self.engines[1], ledger, "reasoner")

    def run(self) -> Improvement:
        result = self.files.begin(self._nothing_yet())
        for part in result.rounds:
            if part.kept:
                self._take(self.files.read_round(part.number))
        if result.stopped and not result.stopped.startswith(_BUDGET):
            self._say(f"{self.files.folder} contains the finished run: no model is called again")
        else:
            n, n_real = len(self.data), len(self.halves.held_out)
            self._say(
                f"comparing {counted(n, 'example')} with {counted(n_real, 'held-out real example')}"
                ", to see that it can be done before a model is asked"
            )
            rehearsal(self.data, self.halves.held_out, self.options)
            result = replace(result, stopped="", improved=None)
        while not result.stopped:
            result = self._next(result)
            self.files.save(result)
        if result.n_kept and result.improved is None:
            self.files.write(IMPROVED, self._records())
            result = replace(result, improved=IMPROVED)
            self.files.save(result)
        return result

    def _nothing_yet(self) -> Improvement:
        return Improvement(
            candidate=self.before.name,
            n_copies=self.n_copies,
            n_before=len(self.before),
            n_after=len(self.before),
            n_shown=len(self.halves.shown),
            n_held_out=len(self.halves.held_out),
            seed=self.options.seed,
            estimate="",
            key=self._key(),
        )

    def _key(self) -> str:
        """Return a hash of the data and the options that change answers or decisions."""
        options = self.options
        changing = {
            name: value
            for name, value in vars(options).items()
            if name not in ("prices", "max_cost", "device", "cache_dir", "progress", "encoder")
        }
        changing["sampling"] = vars(options.sampling)
        changing["proxies"] = [[p.key, p.options()] for p in check_suite(options)]
        encoder = options.encoder
        state = {
            "options": changing,
            "encoder": encoder if encoder is None or isinstance(encoder, str) else encoder.key,
            "engines": [engine.key for engine in self.engines],
            "sets": [part.content for part in (self.before, *self.others)],
            "labels": None if self.label is None else self.before.labels_sha256,
            "real": [
                (part.content, part.groups_sha256)
                for part in (self.halves.shown, self.halves.held_out)
            ],
        }
        return hashlib.sha256(json.dumps(to_jsonable(state), sort_keys=True).encode()).hexdigest()

    def _next(self, result: Improvement) -> Improvement:
        """Do one more round, or say why there is none."""
        number = len(result.rounds) + 1
        writer = self._writer(number)
        self._say(f"round {number}: preparing the prompts")
        draft = writer.draft()
        result = self._announced(result, draft, number)
        stop = self._over_budget(draft, number)
        if stop:
            if number == 1 and not self.files.ledger.spent().n_requests:
                raise ConfigError(stop)
            return replace(result, stopped=f"{_BUDGET}: {stop}.")
        self._say(f"round {number}: {self._steps(draft)}")
        done = self._round(writer, draft, result)
        self._say(str(done))
        spent = self.files.ledger.spent(self.options.prices_of_roles)
        rounds = (*result.rounds, done)
        stopped = ""
        if not done.kept:
            stopped = f"Stopped after round {number}, which was not shown to be better."
        elif number == self.options.rounds:
            stopped = f"Stopped after {counted(number, 'round')}, the maximum."
        return replace(result, rounds=rounds, spent=spent, stopped=stopped, n_after=len(self.data))

    def _steps(self, draft: Draft) -> str:
        if draft.rubric is not None:
            return f"the rubric is already written; {self.generator.id} writes examples"
        n = counted(len(draft.rubric_prompts), "call")
        return f"{self.reasoner.id} writes the rubric ({n})"

    def _writer(self, number: int) -> Writer:
        return Writer(
            number,
            self.data,
            self.others,
            self.halves.shown,
            self.label,
            self.generator,
            self.reasoner,
            self.files.answers,
            self.options,
        )

    def _announced(self, result: Improvement, draft: Draft, number: int) -> Improvement:
        """Show the estimated cost before the first call of this process."""
        if self.is_announced:
            return result
        self.is_announced = True
        rounds = self.options.rounds - number + 1
        cost = draft.cost.with_later(draft.later, rounds - 1)
        words = f"{counted(rounds, 'round')} at most: {cost}."
        self._say(f"{self.generator.id} writes for {self.before.name}. {words}")
        result = replace(result, estimate=result.estimate or words)
        self.files.save(result)
        return result

    def _over_budget(self, draft: Draft, number: int) -> str:
        limit, needed = self.options.max_cost, draft.cost.money
        if limit is None or needed is None:
            return ""
        spent = self.files.ledger.spent(self.options.prices_of_roles).money or 0.0
        if spent + needed <= limit:
            return ""
        return (
            f"round {number} may cost {needed:,.4g}, but only {max(0.0, limit - spent):,.4g} of "
            f"max_cost={limit:,.4g} is left"
        )

    def _round(self, writer: Writer, draft: Draft, result: Improvement) -> Round:
        rubric, note = writer.rubric(draft)
        if draft.rubric is None:
            what = note if rubric is None else "the rubric is written"
            self._say(f"round {writer.number}: {what}; {self.generator.id} writes examples")
        written, lost = writer.write(draft, rubric)
        screened = screen(written, self.data, (self.halves.shown, self.halves.held_out))
        dropped = {**lost, **screened.dropped}
        records, number = list(screened.records), writer.number
        compared = self._compared(records, number)
        kept = compared is not None and compared.verdict == "better"
        self.files.write_round(number, records, kept=kept)
        if kept:
            self._take(records)
        return Round(
            number=number,
            n_asked=self.options.n_examples,
            n_new=len(records),
            dropped=dropped,
            n_gaps=len(draft.gaps),
            comparison=compared,
            kept=kept,
            decision=self._decision(compared),
            spent=self._spent_since(result),
            notes=self._notes(note, result),
        )

    def _compared(self, records: Sequence[Record], number: int) -> Comparison | None:
        if len(records) < _LEAST_NEW:
            return None
        old = self.data
        new = replace(self._with(records), name=f"{self.before.name} (round {number})")
        return compare(old, new, self.halves.held_out, self.options)

    def _with(self, records: Sequence[Record]) -> Candidate:
        """Return the data with a batch added, or the batch alone."""
        batch = replace_data(self.before, records)
        if self.options.keep == "replace":
            return batch
        parts = [cast("Dataset[object]", part.dataset) for part in (self.data, batch)]
        joined: ConcatDataset[object] = ConcatDataset(parts)
        return replace(batch, dataset=joined, view=self.before.selector)

    def _take(self, records: Sequence[Record]) -> None:
        self.data = self._with(records)

    def _decision(self, compared: Comparison | None) -> str:
        if compared is None:
            return f"Fewer than {_LEAST_NEW} new examples, nothing to compare: kept the old data."
        by = listed([part.key for part in compared.proxies], 8)
        where = f"by {by} on {counted(compared.n_real, 'held-out real example')}"
        if compared.verdict == "no improvement shown":
            return f"No improvement shown {where}: kept the old data."
        if compared.verdict == "worse":
            return f"Shown to be worse {where}: kept the old data."
        what = "added the new data" if self.options.keep == "add" else "replaced the old data"
        return (
            f"Shown to be nearer to the real data {where}, at an error of "
            f"{percent(self.options.error)} over all rounds: {what}{_AGREED}."
        )

    def _notes(self, note: str, result: Improvement) -> tuple[str, ...]:
        """Return what is new to say: the note of the round, and those of the engines."""
        told = [one for part in result.rounds for one in part.notes]
        notes = [*([note] if note else []), *self.reasoner.notes, *self.generator.notes]
        return tuple(dict.fromkeys(one for one in notes if one not in told))

    def _spent_since(self, result: Improvement) -> Spent:
        total = self.files.ledger.spent(self.options.prices_of_roles)
        before = [part.spent for part in result.rounds]
        paid = total.money
        if paid is not None:
            paid -= sum(part.money or 0.0 for part in before)
        return Spent(
            total.n_requests - sum(part.n_requests for part in before),
            total.n_prompt_tokens - sum(part.n_prompt_tokens for part in before),
            total.n_answer_tokens - sum(part.n_answer_tokens for part in before),
            paid,
        )

    def _records(self) -> Iterator[Record]:
        return (json_record(self.data, position) for position in range(len(self.data)))

    def _say(self, text: str) -> None:
        _log.info("improve: %s", text)
        if self.options.progress:
            ProgressBar.write(f"improve: {printable(text)}", file=sys.stderr)
