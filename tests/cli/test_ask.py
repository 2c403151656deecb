"""`synque-select ask`: the file, the interview in the terminal, and `rank --answers`."""

from __future__ import annotations

import errno
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from synque_select.cli.ask import interview
from synque_select.cli.main import main
from synque_select.data.answers import Question, QuestionSheet, read_questions
from synque_select.records.ranking_file import load_ranking

WORDS = (("apple", "banana", "cherry"), ("zebra", "xenon", "quartz"))
DATA = [
    *("--candidates", "data", "--real", "real.jsonl", "--view", "text", "--label", "label"),
    *("--quiet", "--cache-dir", "cache", "--encoder", "tests.training.tiny.LetterEncoder"),
]


def write(path: Path, seed: int, n: int = 40, *, swapped: bool = False) -> None:
    draw = random.Random(seed)
    records = []
    for i in range(n):
        label = i % 2
        text = f"{' '.join(draw.choices(WORDS[label], k=3))} {draw.randrange(999)}"
        records.append({"text": text, "label": ("fruit", "other")[label ^ swapped]})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "data").mkdir()
    for k in range(5):
        write(tmp_path / "data" / f"c{k}.jsonl", k, swapped=k == 4)
    write(tmp_path / "real.jsonl", 50)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def true_label(text: str) -> str:
    return "fruit" if text.split()[0] in WORDS[0] else "other"


def test_a_file_is_written_filled_in_and_used(capsys: pytest.CaptureFixture[str]):
    assert main(["ask", *DATA, "-m", "20"]) == 0
    assert "wrote questions.csv: 20 questions, 0 answered" in capsys.readouterr().out
    path = Path("questions.csv")
    text = path.read_text()
    for question in read_questions(path).questions:
        text = text.replace(f",,{question.text},", f",{true_label(question.text)},{question.text},")
    path.write_text(text)
    assert (
        main(["rank", *DATA, "--proxies", "pad", "--answers", "questions.csv", "--json", "."]) == 0
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "Train on all but c4: by your 20 answers, c4 is right less often than the others." in out
    row = load_ranking(Path("ranking.json"))["c4"].scores["answers"]
    assert row.low is not None
    assert row.low <= row.value < 0.2


def test_two_camps_are_named_and_asked_about(capsys: pytest.CaptureFixture[str]):
    write(Path("data/c3.jsonl"), 3, swapped=True)
    write(Path("data/c2.jsonl"), 2, swapped=True)
    assert main(["ask", *DATA]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The candidates form two camps whose labels contradict each other: what c" in out
    assert "The questions ask which camp is right." in out


def test_the_terminal_keeps_every_answer(monkeypatch, capsys):
    path = Path("questions.jsonl")
    options = ["ask", *DATA, "-m", "6", "--out", "questions.jsonl", "--interactive"]
    typed(monkeypatch, "fruit", "2", "?", "<", "OTHER", "nonsense", ".")
    assert main(options) == 0
    assert [q.label for q in read_questions(path).questions] == [
        "fruit",
        "other",
        "other",
        "",
        "",
        "",
    ]
    printed = capsys.readouterr()
    assert "'nonsense' is not allowed" in printed.err
    assert "so far: ?" in printed.out
    # the end of the input stops as well, and the next start resumes where it stopped
    typed(monkeypatch, "fruit")
    assert main(options) == 0
    assert "Question 4 of 6" in capsys.readouterr().out
    assert [bool(q.label) for q in read_questions(path).questions] == [True] * 4 + [False] * 2
    # more questions are added to the same file, and fewer do not remove any
    kept = read_questions(path).questions
    for number, n in (("8", 8), ("3", 8)):
        assert main(["ask", *DATA, "-m", number, "--out", "questions.jsonl"]) == 0
        sheet = read_questions(path)
        assert len(sheet.questions) == n
        assert [q.label for q in sheet.questions[:6]] == [q.label for q in kept]


def test_a_kill_loses_nothing(monkeypatch):
    def killed(_prompt: str) -> str:
        if len(read_questions(Path("questions.csv")).answered) == 2:
            raise KeyboardInterrupt
        return "other"

    monkeypatch.setattr("builtins.input", killed)
    assert main(["ask", *DATA, "-m", "6", "--interactive"]) == 130
    assert len(read_questions(Path("questions.csv")).answered) == 2


def test_what_a_terminal_would_execute_is_escaped_and_long_texts_are_cut(monkeypatch, capsys):
    question = Question(0, 1.0, "\x1b[31mred\n" + "word " * 1000)
    sheet = QuestionSheet((question, replace(question, example=1)), ("1", "2"), 0, "a", "b")
    typed(monkeypatch, "2", "<", "1")
    assert [q.label for q in interview(sheet, lambda _: None).questions] == ["1", ""]
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out
    assert "… (5,009 characters)" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.xlsx"], "a.xlsx ends in '.xlsx'"),
        (["-m", "0"], "--questions 0: allowed is a number from 1 on"),
        (["--out", "other.csv"], "other.csv, line 2: no column question"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, capsys):
    Path("other.csv").write_text("a,b\n1,2\n")
    assert main(["ask", *DATA, *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_questions_of_other_candidates_are_not_overwritten(capsys):
    assert main(["ask", *DATA, "-m", "3"]) == 0
    write(Path("data/c0.jsonl"), 77)
    assert main(["ask", *DATA, "-m", "3"]) == 1
    assert "questions.csv has other questions" in capsys.readouterr().err
    # answers stay valid for other candidates, but not for another real sample
    write(Path("real.jsonl"), 51)
    assert main(["rank", *DATA, "--proxies", "pad", "--answers", "questions.csv"]) == 1
    assert "the questions are about another real sample" in capsys.readouterr().err


def test_questions_that_cannot_be_saved_are_printed(monkeypatch, capsys):
    def full(path: Path, text: str) -> None:
        if 'fruit"' in text or "fruit," in text:  # an answer
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr("synque_select.data.answers.write_text_atomic", full)
    typed(monkeypatch, "fruit", "other", ".")
    options = ["ask", *DATA, "-m", "6", "--out", "questions.jsonl", "--interactive"]
    assert main(options) == 1
    output = capsys.readouterr()
    assert "cannot write questions.jsonl: No space left on device" in output.err
    # the first one follows the prompt, whose end of line is what a person types
    lines = [part.splitlines()[0] for part in output.out.split('{"question"')[1:]]
    labels = [json.loads('{"question"' + line)["label"] for line in lines]
    assert labels == ["fruit", "", "", "", "", ""]


def test_questions_from_a_draw_of_large_candidates(capsys: pytest.CaptureFixture[str]):
    write(Path("data", "c0.jsonl"), 0, n=300)
    given = [*DATA, "--reservoir", "120"]
    assert main(["ask", *given, "-m", "20"]) == 0
    assert (
        "c0: 120 of 300 examples, drawn at random (seed 0), are scored" in capsys.readouterr().err
    )
    path = Path("questions.csv")
    text = path.read_text()
    for question in read_questions(path).questions:
        text = text.replace(f",,{question.text},", f",{true_label(question.text)},{question.text},")
    path.write_text(text)
    assert main(["rank", *given, "--answers", "questions.csv", "--json", "out"]) == 0
    assert "c4" not in load_ranking("out").top().names
    assert "were drawn for other" not in " ".join(load_ranking("out").messages)
    assert main(["ask", *DATA, "--reservoir", "-5"]) == 1
    assert "reservoir=-5: allowed is a whole number from 100" in capsys.readouterr().err
