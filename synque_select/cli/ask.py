"""The command `synque-select ask`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import (
    add_compute_options,
    add_reservoir_option,
    executor_of,
    flat,
    max_device_memory_of,
)
from synque_select.errors import ConfigError, DataError, RecordError
from synque_select.utils.wording import counted

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser

    from synque_select.data.answers import QuestionSheet
    from synque_select.selection.camps import Camps

__all__ = ["arguments", "interview", "run"]

_MAX_TEXT = 2000
_DEFAULT_FILE = "questions.csv"
_HELP = "number or name of the class; ? if you cannot tell, < to go back, . to stop"


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "--candidates",
        action="extend",  # a repeated option adds to the first
        nargs="+",
        required=True,
        help="files, folders or globs; each file or subfolder is one candidate",
    )
    parser.add_argument("--real", required=True, help="the unlabeled real sample: a file or folder")
    parser.add_argument(
        "--label", required=True, help="field that holds the candidates' labels, which are classes"
    )
    parser.add_argument(
        "-m",
        "--questions",
        type=int,
        default=12,
        help="number of questions; a larger number later adds questions to the same file",
    )
    parser.add_argument(
        "--out",
        default=_DEFAULT_FILE,
        help="file of the questions, .csv or .jsonl; answers in an existing one are kept",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="ask in the terminal; every answer is saved at once, so that you can stop at any time",
    )
    parser.add_argument(
        "--family",
        metavar="REGEX",
        help="regular expression whose first group (or whole match) in a candidate's name is its "
        "family, such as ^[^_]+ for the generator; a family has one vote on what is contested",
    )
    parser.add_argument("--view", help="what is shown and encoded, as for rank")
    parser.add_argument("--real-view", help="view of the real sample (default: as --view)")
    parser.add_argument(
        "--split", help="split of datasets that have several, for both sides (default: train)"
    )
    parser.add_argument("--real-split", help="split of the real sample (default: as --split)")
    add_reservoir_option(parser)
    parser.add_argument("--encoder", help="model id, as for rank")
    add_compute_options(parser)


def run(options: Namespace) -> int:
    """Ask for the labels of the real examples that best settle which candidate to train on.

    A linear classifier is trained on each candidate. The questions are real examples, drawn with
    known probabilities, mostly from those whose label the classifiers disagree on. Fill in the
    column `label` of the file, or answer in the terminal (--interactive), and pass the file to
    `synque-select rank --answers FILE`.
    """
    from synque_select.data.answers import check_question_file
    from synque_select.report.table import terminal_width, wrap_text
    from synque_select.utils.wording import printable

    path = Path(options.out)
    check_question_file(path)
    if options.questions < 1:
        raise ConfigError(f"--questions {options.questions}: allowed is a number from 1 on")
    sheet, camps = _draw(options)
    sheet = _with_kept_answers(sheet, path)
    _save(path, sheet)
    if camps is not None:
        sentence = f"{camps.sentence[0].upper()}{camps.sentence[1:]}."
        text = f"{printable(sentence)} The questions ask which camp is right."
        print(*wrap_text(text, terminal_width()), sep="\n")
    if options.interactive:
        sheet = interview(sheet, lambda changed: _save(path, changed))
    n_open = sum(not question.label for question in sheet.questions)
    n = len(sheet.questions)
    print(f"wrote {path}: {counted(n, 'question')}, {n - n_open} answered")
    if n_open:
        print(f"Fill in the column label with one of: {', '.join(sheet.classes)}; ? = cannot tell")
    print(f"then: synque-select rank … --label {options.label} --answers {path}")
    return 0


def _save(path: Path, sheet: QuestionSheet) -> None:
    """Write the questions; print them, with their answers, if they cannot be written."""
    from synque_select.data.answers import question_text, write_questions
    from synque_select.utils.wording import printable

    try:
        write_questions(path, sheet)
    except RecordError:
        print(printable(question_text(path, sheet)))
        raise


def _draw(options: Namespace) -> tuple[QuestionSheet, Camps | None]:
    """Fit the heads and draw the questions."""
    from synque_select.data.sources import load_candidates, load_real
    from synque_select.selection.ask import check_askable, panel_of
    from synque_select.selection.scorer import Scorer
    from synque_select.utils.wording import printable

    candidates = load_candidates(
        flat(options.candidates),
        view=options.view,
        label=options.label,
        family=options.family,
        split=options.split,
        reservoir=options.reservoir,
        seed=options.seed,
    )
    real = load_real(
        options.real,
        view=options.real_view or options.view,
        split=options.split,
        real_split=options.real_split,
    )
    check_askable(candidates)
    for candidate in candidates:
        if candidate.population is not None:
            note = printable(f"{candidate.name}: {candidate.population.note}")
            print(f"synque-select: {note}", file=sys.stderr)
    scorer = Scorer(
        # the cheapest proxy whose scoring has embeddings
        ["mdm"],
        encoder=options.encoder,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        executor=executor_of(options),
        max_device_memory=max_device_memory_of(options),
        progress=not options.quiet,
    )
    scoring = scorer.score(candidates, real)
    scored = {part.name for part in scoring.candidates}
    panel = panel_of([c for c in candidates if c.name in scored], scoring, options.seed)
    return panel.questions(real, options.questions), panel.camps


def _with_kept_answers(sheet: QuestionSheet, path: Path) -> QuestionSheet:
    """Take over the answers of an existing file, and its questions if these are more."""
    from synque_select.data.answers import read_questions

    if not path.exists():
        return sheet
    kept = read_questions(path)
    if not kept.same_questions(sheet):
        raise DataError(
            f"{path} has other questions: they were drawn from other data, for other candidates or "
            "with another encoder, family or seed. Give another --out, or remove the file"
        )
    if len(kept.questions) > len(sheet.questions):
        return kept
    for number, question in enumerate(kept.questions):
        sheet = sheet.with_label(number, question.label)
    return sheet


def interview(sheet: QuestionSheet, save: Callable[[QuestionSheet], None]) -> QuestionSheet:
    """Ask the open questions in the terminal, in their order.

    Args:
        sheet: The questions; answered ones are not asked again.
        save: Called with the sheet after each answer.
    """
    number = len(sheet.answered)
    while number < len(sheet.questions):
        print(_shown(sheet, number))
        try:
            typed = input(f"label ({_HELP}): ").strip()
        except EOFError:
            print()
            return sheet
        if typed == ".":
            return sheet
        if typed == "<":
            number = max(0, number - 1)
            continue
        label = _label(typed, sheet.classes)
        if label is None:
            print(f"{_safe(typed)!r} is not allowed: {_HELP}", file=sys.stderr)
            continue
        sheet = sheet.with_label(number, label)
        save(sheet)
        number += 1
    return sheet


def _label(typed: str, classes: tuple[str, ...]) -> str | None:
    """Return the answer; the name of a class comes before its number in the list."""
    from synque_select.data.answers import CANNOT_TELL, match_label

    if typed == CANNOT_TELL:
        return typed
    label = match_label(typed, classes)
    if label is None and typed.isdecimal() and 1 <= int(typed) <= len(classes):
        return classes[int(typed) - 1]
    return label


def _shown(sheet: QuestionSheet, number: int) -> str:
    from synque_select.report.table import terminal_width, wrap_text

    question = sheet.questions[number]
    text = question.text
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]} … ({counted(len(text), 'character')})"
    width = terminal_width()
    lines = [f"\nQuestion {number + 1} of {len(sheet.questions)}"]
    for part in _safe(text).split("\n"):
        lines += [f"  {line}" for line in wrap_text(part, width - 2)]
    classes = [_safe(name).replace("\n", " ") for name in sheet.classes]
    # numbers beside classes that are numbers themselves would be mistaken for them
    if any(name.isdecimal() for name in sheet.classes):
        lines += [f"  {name}" for name in classes]
    else:
        lines += [f"  {place}  {name}" for place, name in enumerate(classes, 1)]
    if question.label:
        lines.append(f"  so far: {question.label}")
    return "\n".join(lines)


def _safe(text: str) -> str:
    """Return the text without what a terminal would execute."""
    from synque_select.utils.wording import printable

    return printable(text)
