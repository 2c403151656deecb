"""What a terminal shows of a ranking: the decision, one table, and warnings."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import replace

import pytest

from synque_select.report.ranking_tables import summary_table, warnings_of
from synque_select.report.terminal import print_ranking, print_table, ranking_text
from synque_select.selection.decision import decided
from synque_select.selection.default_order import NOT_BY_TRANSFER
from synque_select.types import Evidence
from tests.records.records_data import make_ranking

NAMES = [
    f"llama3.1-8b_1000_{shots}-shot_bg_{time}-time-info_v1"
    for shots in ("zero", "few")
    for time in ("test", "train")
]


def ranking(names: list[str] = NAMES, **changes: object):
    made = make_ranking(names, top_k=None, messages=(), **changes)
    rows = tuple(replace(row, mean_rank=i + 1.25) for i, row in enumerate(made.candidates))
    shown_better = {name: tuple(names[2:]) for name in names[:2]}
    evidence = Evidence(
        "consensus", 50, 50.0, n_apart=4, n_pairs=6, worse=(names[2], names[3]), stability_k=2,
        shown_better=shown_better,
    )  # fmt: skip
    return decided(replace(made, candidates=rows), evidence)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_decision_comes_first_and_the_table_says_what_decided():
    made = ranking()
    assert ranking_text(made, 80).startswith("Train on all but")
    table = summary_table(made)
    heads = ["#", "candidate", "selected", "selection_stability", "mean rank", "worse than"]
    assert [column.name for column in table.columns] == heads
    assert [row[2:] for row in table.rows] == [
        ("yes", "1.00", "1.25", "0 of 3"),
        ("yes", "0.80", "2.25", "0 of 3"),
        ("", "0.60", "3.25", "2 of 3"),
        ("", "0.40", "4.25", "2 of 3"),
    ]
    assert "reliability of consensus on your task is unknown" in " ".join(table.notes)


def test_an_order_by_one_proxy_shows_its_scores():
    made = make_ranking(["x", "y"], rank_by="pad", messages=())
    assert [column.name for column in summary_table(made).columns][-1] == "pad"
    assert [row[-1] for row in summary_table(made).rows] == ["1.000", "1.100"]


@pytest.mark.parametrize("details", [False, True])
def test_names_are_whole_in_80_columns(details: bool):
    text = ranking_text(ranking(), 80, details=details)
    assert max(map(len, text.splitlines())) <= 80
    table = text.partition("---\n")[2].partition("\n\n")[0].splitlines()
    names = []
    for line in table:  # a name goes on in the next line, indented by two
        if line[0].isdigit():
            names.append(line.split()[1])
        else:
            names[-1] += line.strip()
    assert names == NAMES
    assert ("Scores of the proxies" in text) == details
    assert ("Ranks by each proxy" in text) == details


def test_quiet_is_the_decision_alone():
    made = ranking(["a", "b", "c", "d"])
    weights = made.top().weights
    lines = [f"{n}  {name}  weight {weights[name]:.3f}" for n, name in enumerate(weights, 1)]
    text = ranking_text(made, 200, quiet=True).splitlines()
    assert text[:-1] == [made.decision.sentence, *lines]
    assert text[-1].startswith("(4 candidates of ")


def test_warnings_stay_and_descriptions_are_details():
    warnings = tuple(f"{name}: labels hardly follow from the inputs." for name in "abcdefg")
    described = (
        "The labels of 4 candidates were checked: no candidate's labels stand out.",
        f"{NOT_BY_TRANSFER}: with 2 candidates, each is judged by one other alone.",
        "transfer: examples of the others that test a candidate: 6,993",
        "The label filter is off. With label_filter='auto', it would drop 2 of 4 examples.",
        "mauve compares 20 examples of every candidate (random subsamples)",
        "pad, mmd: scored at a common size of 20 examples by a random subsample (1 has more)",
        "lens: judged by some/model, rubrics by it; 8 questions asked, 0 answers kept.",
    )
    made = replace(ranking(), messages=(*described, *warnings[:2]))
    assert warnings_of(made) == warnings[:2]
    text = ranking_text(made, 80, details=False)
    assert "! a: labels hardly follow" in text
    assert "checked" not in text
    assert "7 notes" in text
    assert "The labels of 4 candidates were checked" in ranking_text(made, 200, details=True)
    many = ranking_text(replace(made, messages=warnings), 80, details=False)
    assert many.count("! ") == 4
    assert "--details adds 3 more warnings" in many
    elsewhere = ranking_text(replace(made, messages=warnings), 80)  # as fit prints it
    assert "--details" not in elsewhere
    assert "- 3 more warnings are in ranking.json" in elsewhere


def test_a_terminal_gets_colors_and_the_same_words(terminal: Terminal):
    with redirect_stdout(terminal):
        print_ranking(ranking())
    shown = terminal.getvalue()
    assert "\x1b[1;32m" in shown
    assert "─" in shown
    lines = [line.rstrip() for line in plain(shown).splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    expected = ranking_text(ranking(), 80)
    words = [word for word in expected.split() if not set(word) <= {*"-─"}]
    assert [word for word in plain(shown).split() if not set(word) <= {*"-─"}] == words


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(terminal):
        print_ranking(ranking())
    colors = [code for code in re.findall(r"\x1b\[([0-9;]*)m", terminal.getvalue())]
    assert not any(re.search(r"\b3\d\b", code) for code in colors)


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]):
    print_ranking(ranking())
    print_table(summary_table(ranking()))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "─" not in out


def test_names_of_files_cannot_color_a_terminal(terminal: Terminal):
    with redirect_stdout(terminal):
        print_ranking(ranking(["\x1b[31mred", "[bold]b[/bold]", ":smile:", "d"]))
    shown = terminal.getvalue()
    assert "\x1b[31m" not in shown
    assert "[bold]b[/bold]" in shown
    assert ":smile:" in shown


def test_a_terminal_that_is_too_narrow_for_a_table_gets_plain_text(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "46")
    with redirect_stdout(terminal):
        print_table(summary_table(ranking()))
    assert max(map(len, plain(terminal.getvalue()).splitlines())) <= 46
