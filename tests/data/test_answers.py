"""Files of questions: what is written is read again, and what was changed is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from synque_select.data.answers import (
    Question,
    QuestionSheet,
    check_question_file,
    match_label,
    read_questions,
    write_questions,
)
from synque_select.errors import DataError, RecordError

SHEET = QuestionSheet(
    (
        Question(3, 0.25, "plain"),
        Question(0, 0.5, '=HYPERLINK("http://x")\nsecond line, with comma'),
        Question(2, 0.123457, "-1 is negative"),
    ),
    ("neg", "pos"),
    0,
    "ab" * 8,
    "cd" * 8,
)


@pytest.fixture(params=["questions.csv", "questions.jsonl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    write_questions(path, SHEET.with_label(0, "pos").with_label(1, "?"))
    return path


def changed(tmp_path: Path, line: int, column: str, value: str) -> Path:
    """A CSV of the sheet in which one cell is another; lines are counted without line breaks."""
    path = tmp_path / "answers.csv"
    write_questions(path, SHEET)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[line][column] = value
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_what_is_written_is_read_again(file: Path):
    sheet = read_questions(file)
    assert [q.label for q in sheet.questions] == ["pos", "?", ""]
    assert [q.label for q in sheet.answered] == ["pos", "?"]
    assert sheet.same_questions(SHEET)
    assert [q.probability for q in sheet.questions] == [0.25, 0.5, 0.123457]


def test_no_cell_is_a_formula(tmp_path: Path):
    path = tmp_path / "questions.csv"
    write_questions(path, SHEET)
    with path.open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


@pytest.mark.parametrize(
    "text",
    ["=1+1", "'=1+1", "''@x", "'tis", "-", "+49", "\tx", "\n=1", "\r=1", "\uff1d1", "a\r\nb", "'"],
)
@pytest.mark.parametrize("name", ["questions.csv", "questions.jsonl"])
def test_texts_and_labels_are_read_exactly(text: str, name: str, tmp_path: Path):
    label = text.strip() or "x"
    sheet = QuestionSheet((Question(0, 1.0, text),), (label, "other"), 0, "a", "b")
    path = tmp_path / name
    write_questions(path, sheet.with_label(0, label))
    assert read_questions(path).questions == (Question(0, 1.0, text, label),)


def test_what_spreadsheets_do_is_forgiven(tmp_path: Path):
    classes = QuestionSheet((Question(0, 0.5, "a"), Question(1, 1, "b")), ("0", "1"), 0, "a", "b")
    path = tmp_path / "answers.csv"
    write_questions(path, classes)
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    for row, label in zip(rows, ("1.0", " 0"), strict=True):
        row[header.index("label")] = label
        row[header.index("probability")] = f"{float(row[header.index('probability')]):.9f}".replace(
            ".", ","
        )
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=";").writerows([header, *reversed(rows)])
    assert [q.label for q in read_questions(path).questions] == ["1", "0"]


def test_a_label_may_begin_like_a_formula(tmp_path: Path):
    sheet = QuestionSheet((Question(0, 1.0, "a"),), ("-1", "+1"), 0, "a", "b").with_label(0, "-1")
    path = tmp_path / "answers.csv"
    write_questions(path, sheet)
    assert read_questions(path).questions[0].label == "-1"


@pytest.mark.parametrize(
    ("line", "column", "value", "message"),
    [
        (2, "label", "bad", r"answers.csv, line 5: label 'bad' is not a class: allowed are neg, "),
        (1, "label", "pos", r"line 2: question 1 has no label, but a later one does"),
        (0, "question", "2", r"line 2: a column other than label was changed"),
        (1, "probability", "0.1", r"line 3: a column other than label was changed"),
        (1, "example", "9", r"line 3: a column other than label was changed"),
        (0, "question", "x", r"line 2: question must be a number from 1 on, found 'x'"),
    ],
)
def test_one_error_names_file_and_line(tmp_path: Path, line, column, value, message):
    with pytest.raises(DataError, match=message):
        read_questions(changed(tmp_path, line, column, value))


def test_rows_that_are_missing_or_repeated(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    write_questions(path, SHEET)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2]]))
    with pytest.raises(DataError, match="question 2 is missing, found 2 rows up to question 3"):
        read_questions(path)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(DataError, match="line 4: question 2 is there twice, first on line 2"):
        read_questions(path)
    path.write_text("")
    with pytest.raises(DataError, match="has no questions"):
        read_questions(path)


def test_rows_of_two_files(tmp_path: Path):
    path, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_questions(path, SHEET)
    write_questions(other, QuestionSheet(SHEET.questions, SHEET.classes, 1, "x", "y"))
    lines = [path.read_text().splitlines()[0], *other.read_text().splitlines()[1:]]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 2: seed is 1, but 0 in the first row"):
        read_questions(path)


def test_files_that_are_something_else(tmp_path: Path):
    path = tmp_path / "other.csv"
    path.write_text("text,label\na,b\n")
    with pytest.raises(DataError, match="line 2: no column question, allowed"):
        read_questions(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(DataError, match="has no questions"):
        read_questions(path)
    with pytest.raises(RecordError, match=r"ends in '\.xlsx'"):
        check_question_file(tmp_path / "a.xlsx")
    with pytest.raises(RecordError, match="is a directory"):
        check_question_file(tmp_path)


def test_case_matters_where_it_must():
    assert match_label("POS", ["pos", "neg"]) == "pos"
    assert match_label("pos", ["Pos", "POS"]) is None
    assert match_label("nan", ["0", "1"]) is None
    assert match_label("cafe\u0301", ["café", "cafe"]) == "café"
