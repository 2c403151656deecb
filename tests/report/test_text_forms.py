"""A report as Markdown, JSON and a card: the same figures, and names that break nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synque_select.cli.main import main
from synque_select.errors import RecordError
from synque_select.records.experiment_result import save_result
from synque_select.records.ranking_file import save_ranking
from synque_select.report.page import page_of
from synque_select.report.run_content import RunContent, load_run
from synque_select.report.table import markdown_prose
from synque_select.report.text_forms import report_card, report_json, report_markdown
from synque_select.types import RankOrigin
from tests.records.records_data import SCRIPT, make_ranking
from tests.report.test_tables import RESULT


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    save_ranking(make_ranking([SCRIPT, "b|c", "c"]), tmp_path)
    save_result(tmp_path, RESULT)
    return tmp_path


def test_markdown_is_the_top_of_the_page(run_dir: Path):
    text = report_markdown(load_run(run_dir))
    assert text.startswith("## Train on &lt;script&gt;")
    assert "<script" not in text
    assert "**How sure is that?**" in text
    assert "- Reliability of consensus on your task is unknown." in text
    assert "- 1 note on these data in the report." in text
    assert "see " not in text
    assert "+0.040" in text
    assert "| 2 | b\\|c |" in text
    assert text.count("mdm is undefined for b.") == 0  # a note of the page
    many = RunContent("x", make_ranking([f"n{i}" for i in range(50)]))
    assert "the first 20 of 50 rows" in report_markdown(many)


def test_code_in_sentences_stays_code_and_names_break_nothing():
    ranking = make_ranking(messages=("`rank --gaps` reads <b>`*a*`</b> and `|`", "an open ` tick"))
    content = RunContent("x", ranking)
    points = [("`synque-select sweep`", "\\`"), ("`SelectionCallback(ranking=…)`", "\\`")]
    text = report_markdown(content)
    for code, escaped in points:
        assert code in text
        assert f"{escaped}{code.strip('`')}" not in text
    assert markdown_prose(ranking.messages[0]) == (
        "`rank --gaps` reads &lt;b&gt;`*a*`&lt;/b&gt; and `|`"
    )
    assert markdown_prose(ranking.messages[1]) == "an open \\` tick"


def test_json_has_weights_hashes_scores_and_verdicts(run_dir: Path):
    state = report_json(load_run(run_dir))
    first = state["candidates"][0]
    assert first["name"] == SCRIPT
    assert first["weight"] == 0.5
    assert first["sha256"] == f"{0:064x}"
    assert state["candidates"][1]["scores"] == {"pad": 1.1, "mdm": None}
    assert state["reliability"] is None
    assert state["comparisons"][0]["verdict"] == "beats"
    assert state["decision"].startswith("Train on")
    assert state["command"].startswith("synque-select rank")


def test_a_card_names_what_was_trained_on_with_weights_and_hashes(run_dir: Path):
    text = report_card(load_run(run_dir))
    assert text.startswith("## Training data")
    assert "a mixture of 2 datasets, selected from 3 candidates" in text
    assert f"| {'0' * 63}1 |" in text
    assert "sha256 " + "f" * 64 in text
    assert "some/encoder, revision abc" in text
    assert "Reliability of consensus on your task is unknown." in text
    assert "they cannot see wrong labels" in text
    assert "<script" not in text
    with pytest.raises(RecordError, match="a card needs a ranking"):
        report_card(RunContent("x", result=RESULT))


@pytest.mark.parametrize(
    ("form", "begins"), [("md", "## Train on"), ("json", "{"), ("card", "## Training data")]
)
def test_the_command_prints_each_form(run_dir: Path, capsys, form: str, begins: str):
    assert main(["report", str(run_dir), "--format", form]) == 0
    out = capsys.readouterr().out
    assert out.startswith(begins)
    if form == "json":
        json.loads(out)
    assert not (run_dir / "report.html").exists()


def test_the_command_writes_the_page_of_a_ranking_file(tmp_path: Path, capsys):
    save_ranking(make_ranking(), tmp_path / "mine.json")
    assert main(["report", str(tmp_path / "mine.json")]) == 0
    assert (tmp_path / "mine.report.html").is_file()
    assert "mine.report.html" in capsys.readouterr().out


def test_an_unknown_form_is_named(run_dir: Path, capsys):
    assert main(["report", str(run_dir), "--format", "pdf"]) != 0
    assert "pdf" in capsys.readouterr().err


def test_the_command_to_rank_again_names_the_files_if_the_ranking_does():
    ranking = make_ranking(["a", "b"])
    assert "--candidates CANDIDATES" in report_json(RunContent("x", ranking))["command"]
    rows = tuple(
        replace(row, source=f"my data/{row.name}.json", view="text") for row in ranking.candidates
    )
    command = report_json(RunContent("x", replace(ranking, candidates=rows)))["command"]
    assert "--candidates 'my data/a.json' 'my data/b.json'" in command
    assert "--view text" in command
    assert "--proxies pad:protocol=kfold mdm" in command
    assert "--top-k 2" in command
    assert "--real REAL" in command
    origin = RankOrigin("/my data", "r.json", "text", {"relabel": True, "label_filter": 0.6})
    command = report_json(RunContent("x", replace(ranking, origin=origin)))["command"]
    assert command.startswith("cd '/my data'\nsynque-select rank \\\n")
    assert "--real r.json" in command
    assert "--relabel \\\n  --label-filter 0.6 \\\n" in command
    page = page_of(RunContent("x", ranking))
    assert "This ranking does not say how it was made." in page
