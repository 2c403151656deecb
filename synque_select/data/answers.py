"""Files of questions about real examples, to fill in with labels: CSV or JSON lines."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synque_select.errors import DataError, RecordError, did_you_mean
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.csv_text import csv_text, unguarded
from synque_select.utils.json_files import parse_json
from synque_select.utils.text_files import read_text
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted, one_line

__all__ = [
    "CANNOT_TELL",
    "Question",
    "QuestionSheet",
    "check_question_file",
    "match_label",
    "question_text",
    "read_questions",
    "write_questions",
]

CANNOT_TELL = "?"
_COLUMNS = (
    "question", "label", "text", "allowed", "example", "probability", "seed", "real_sample",
    "design", "key",
)  # fmt: skip
_MAX_SHOWN_CLASSES = 20
_MAX_DIGITS = 9  # of the number of a question


@dataclass(frozen=True)
class Question:
    """One question: what is the label of this real example?

    Args:
        example: Position of the example in the real sample, from 0 on.
        probability: Probability with which it was drawn from the examples that were left.
        text: What is labeled: a text, or the path of an image.
        label: The answer: a class, "?" if it cannot be told, or "" if it was not asked yet.
    """

    example: int
    probability: float
    text: str
    label: str = ""


@dataclass(frozen=True)
class QuestionSheet:
    """Questions in the order in which they were drawn.

    Args:
        questions: The questions.
        classes: The allowed labels.
        seed: Random seed of the draws and of the candidates' heads.
        real_sample: The beginning of the real sample's content hash.
        design: A hash of everything else that the probabilities depend on: candidates, their
            labels and families, and the encoder.
    """

    questions: tuple[Question, ...]
    classes: tuple[str, ...]
    seed: int
    real_sample: str
    design: str

    @property
    def answered(self) -> tuple[Question, ...]:
        """The questions up to the last answer, among them those that cannot be told."""
        last = max((i for i, q in enumerate(self.questions) if q.label), default=-1)
        return self.questions[: last + 1]

    def with_label(self, number: int, label: str) -> QuestionSheet:
        """Return the sheet with another answer to a question, counted from 0."""
        questions = list(self.questions)
        questions[number] = replace(questions[number], label=label)
        return replace(self, questions=tuple(questions))

    def same_questions(self, other: QuestionSheet) -> bool:
        """Whether the two sheets ask the same, as far as the shorter one goes."""
        pairs = zip(self.questions, other.questions, strict=False)
        return (
            (self.classes, self.seed, self.real_sample, self.design)
            == (other.classes, other.seed, other.real_sample, other.design)
        ) and all(a.example == b.example for a, b in pairs)


def check_question_file(path: Path) -> None:
    """Refuse, before anything is computed, a file name that questions cannot be written to.

    Raises:
        RecordError: It does not end in .csv or .jsonl, or is a directory.
    """
    if path.is_dir() or path.suffix.lower() not in (".csv", ".jsonl"):
        what = "is a directory" if path.is_dir() else f"ends in {path.suffix or 'nothing'!r}"
        raise RecordError(f"{path} {what}: questions are written to a file, .csv or .jsonl")


def match_label(text: str, classes: Sequence[str]) -> str | None:
    """Return the class that was meant; None if none fits.

    Case does not matter if only one class fits. Spreadsheets that turn 1 into 1.0 are forgiven.

    Args:
        text: What was typed.
        classes: The allowed classes.

    Example:
        >>> match_label(" Sport", ["sport", "news"]), match_label("1.0", ["0", "1"])
        ('sport', '1')
    """
    text = normalized(text.strip())  # as classes are
    for form in (text, text.removeprefix("'"), _whole(text)):
        if form in classes:
            return form
    alike = [name for name in classes if name.casefold() == text.casefold()]
    return alike[0] if len(alike) == 1 else None


def _whole(text: str) -> str:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return text
    return str(int(value)) if math.isfinite(value) and value.is_integer() else text


def write_questions(path: Path, sheet: QuestionSheet) -> None:
    """Write questions as CSV or, if the file ends in .jsonl, as JSON lines.

    The file is replaced as a whole. A cell of a CSV that a spreadsheet would run as a formula
    begins with an apostrophe.

    Args:
        path: The file.
        sheet: The questions.

    Raises:
        RecordError: The file cannot be written.
    """
    try:
        write_text_atomic(path, question_text(path, sheet))
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


def question_text(path: Path, sheet: QuestionSheet) -> str:
    """Return the content of the file that `write_questions` writes."""
    rows = [_row(sheet, number) for number in range(len(sheet.questions))]
    if path.suffix.lower() == ".jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return csv_text([_COLUMNS, *([str(row[column]) for column in _COLUMNS] for row in rows)])


def _row(sheet: QuestionSheet, number: int) -> dict[str, str | int]:
    question = sheet.questions[number]
    row: dict[str, str | int] = {
        "question": number + 1,
        "label": question.label,
        "text": question.text,
        "allowed": json.dumps([*sheet.classes], ensure_ascii=False),
        "example": question.example + 1,
        "probability": f"{question.probability:.6g}",
        "seed": sheet.seed,
        # a letter first: a spreadsheet reads 12e456 as a number
        "real_sample": f"x{sheet.real_sample}",
        "design": f"x{sheet.design}",
    }
    return {**row, "key": _key(row)}


def _key(row: Mapping[str, str | int]) -> str:
    """Return a hash of the columns that must not be edited, except the text."""
    fixed = [str(row[name]) for name in _COLUMNS if name not in ("label", "text", "key")]
    return f"x{hashlib.sha256(json.dumps(fixed).encode()).hexdigest()[:12]}"


def read_questions(path: Path) -> QuestionSheet:
    """Read a file of questions, with the answers that it holds.

    Args:
        path: What `write_questions` wrote, with labels filled in. The columns may be in another
            order, and a CSV may be separated by semicolons or tabs.

    Raises:
        DataError: A label is not allowed, a row is missing, repeated or changed, or an answer is
            missing before another one; the message names the file and the line.
    """
    lines: dict[int, int] = {}
    questions = []
    first: dict[str, str] | None = None
    for line, row in _read_rows(path):
        number = _number(path, line, row)
        if number in lines:
            raise _wrong(
                path, line, f"question {number} is there twice, first on line {lines[number]}: "
                "keep one of them"
            )  # fmt: skip
        lines[number] = line
        first = first or row
        questions.append((number, _question(path, line, row, first)))
    if first is None:
        raise DataError(f"{path} has no questions: expected a row for each, below the header")
    questions.sort()
    for place, (number, _) in enumerate(questions, 1):
        if number != place:
            raise DataError(
                f"{path}: question {place} is missing, found {counted(len(questions), 'row')} up "
                "to question "
                f"{questions[-1][0]}: keep every row, and write {CANNOT_TELL} if you cannot tell"
            )
    sheet = QuestionSheet(
        tuple(question for _, question in questions),
        tuple(json.loads(first["allowed"])),
        int(first["seed"]),
        first["real_sample"][1:],
        first["design"][1:],
    )
    for number, question in enumerate(sheet.answered, 1):
        if not question.label:
            raise _wrong(
                path, lines[number], f"question {number} has no label, but a later one does: "
                f"fill it in, or write {CANNOT_TELL} if you cannot tell"
            )  # fmt: skip
    return sheet


def _number(path: Path, line: int, row: Mapping[str, str]) -> int:
    text = _whole(row["question"].strip())
    if not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) < 1:
        raise _wrong(path, line, f"question must be a number from 1 on, found {one_line(text)!r}")
    return int(text)


def _question(path: Path, line: int, row: Mapping[str, str], first: Mapping[str, str]) -> Question:
    if row["key"] != _key(row):
        raise _wrong(
            path, line, "a column other than label was changed, so that the answer cannot be "
            "used: restore the row, or write the questions again with synque-select ask"
        )  # fmt: skip
    for column in ("allowed", "seed", "real_sample", "design"):
        if row[column] != first[column]:
            raise _wrong(
                path, line, f"{column} is {row[column]}, but {first[column]} in the first row: "
                "the rows are of two different files of questions"
            )  # fmt: skip
    classes = json.loads(row["allowed"])
    given = row["label"].strip()
    label = given if given in ("", CANNOT_TELL) else match_label(given, classes)
    if label is None:
        allowed = f"allowed are {', '.join(classes)}"
        if len(classes) > _MAX_SHOWN_CLASSES:
            allowed = did_you_mean(given, classes)
        unknown = f"or {CANNOT_TELL} if you cannot tell"
        raise _wrong(path, line, f"label {given!r} is not a class: {allowed}, {unknown}")
    return Question(int(row["example"]) - 1, float(row["probability"]), row["text"], label)


def _wrong(path: Path, line: int, problem: str) -> DataError:
    return DataError(f"{path}, line {line}: {problem}")


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of each row, as they were before a spreadsheet read them."""
    text = read_text(path)
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)
    for line, row in rows:
        missing = [column for column in _COLUMNS if column not in row]
        if missing:
            raise _wrong(path, line, f"no column {', '.join(missing)}: found {', '.join(row)}")
        cells = {column: row[column] for column in _COLUMNS}
        for column in ("question", "example", "seed"):
            cells[column] = _whole(cells[column].strip())
        cells["probability"] = _decimal(cells["probability"])
        for column in ("allowed", "real_sample", "design", "key"):
            cells[column] = cells[column].strip()
        yield line, cells


def _decimal(text: str) -> str:
    try:
        return f"{float(text.strip().replace(',', '.')):.6g}"
    except ValueError:
        return text


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for line, part in enumerate(text.split("\n"), 1):
        if not part.strip():
            continue
        row = parse_json(part, str(path), line=line)
        if not isinstance(row, dict):
            raise _wrong(path, line, "expected an object with the fields of a question")
        # a label such as 1 may have been written as a number
        yield line, {str(k): "" if v is None else str(v) for k, v in row.items()}


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    header = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: Sequence[str] | None = None
    line = 1
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
            elif len(cells) != len(names):
                raise _wrong(path, start, f"expected {len(names)} cells, found {len(cells)}")
            else:
                yield start, dict(zip(names, map(unguarded, cells), strict=True))
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"not CSV: {error}") from error
