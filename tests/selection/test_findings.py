"""Gaps, label checks and how many real examples: as JSON of a run's folder, table and page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synque_select.errors import ProxyError, RecordError
from synque_select.proxies.base import ProxyInput
from synque_select.records.run_folder import write_json
from synque_select.report.finding_tables import gaps_table, labels_table
from synque_select.report.page import write_report
from synque_select.report.plots import real_size_figure, to_svg
from synque_select.selection.findings import (
    FINDINGS,
    copy_findings,
    gaps_state,
    label_messages,
    labels_state,
    save_findings,
    scoring_findings,
)
from synque_select.selection.labels import LabelCheck
from tests.records.records_data import SCRIPT
from tests.report.test_page import Page
from tests.selection.test_example_scores import TWO_MODES, points, scoring

CHECKS = [
    LabelCheck("a", 200, 0.9, float("nan"), {"0": 0.5, "1": 0.5}, {"0": 0.6, "1": 0.4}),
    LabelCheck(SCRIPT, 200, 0.5, 0.4, {"0": 1.0}, {}, (f"{SCRIPT}: labels may be wrong",)),
]


@pytest.fixture
def found() -> dict[str, dict[str, Any]]:
    scored = scoring(
        TWO_MODES, {"left": points(2, 200, [0, 0, 0]), SCRIPT: points(3, 90, [9, 9, 9])}
    )
    return scoring_findings(scored, CHECKS, top_k=1, rank_by="pad")


def test_what_no_candidate_covers_is_counted_and_shown(found):
    state = found["gaps"]
    # the right mode: 20 of 60, and some of the left one's edge
    assert 20 <= state["n_uncovered"] <= 30
    assert len(state["gaps"]) == 8
    worst = state["gaps"][0]
    assert worst["real"] >= 40
    assert worst["real_view"] == f"real {worst['real']}"
    assert worst["synthetic_view"] == f"left {worst['synthetic']}"
    text = gaps_table(state).text(120)
    assert f"{state['n_uncovered']} of 60 real examples" in text
    assert f"shown are the worst 8 of {state['n_uncovered']}" in text


def test_where_all_is_covered_the_table_says_so():
    state = gaps_state(scoring(TWO_MODES, {"a": TWO_MODES + 1e-3, "b": points(1, 5, [0, 0, 0])}))
    assert (state["n_uncovered"], state["gaps"]) == (0, [])
    assert str(gaps_table(state)).startswith("0 of 60 real examples are covered by no candidate")


def test_images_are_shown_on_the_page_and_named_in_the_table(tmp_path: Path):
    scored = scoring(TWO_MODES, {"a": points(2, 9, [0, 0, 0]), "b": points(3, 9, [0, 0, 0])})
    image = Image.new("L", (8, 8), 200)

    def shown(part: ProxyInput) -> ProxyInput:
        return ProxyInput(part.name, [image] * len(part), "image", part.digests, part.embeddings)

    object.__setattr__(scored, "real", shown(scored.real))
    object.__setattr__(scored, "candidates", tuple(map(shown, scored.candidates)))
    state = gaps_state(scored, n_shown=2)
    assert f"image {state['gaps'][0]['real']} " in gaps_table(state).text(120)
    save_findings(tmp_path, {"gaps": state})
    page = Page(write_report(tmp_path).read_text())
    assert sum("png" in (image["src"] or "") for image in page.all("img")) == 4


def test_without_embeddings_there_are_no_gaps():
    scored = scoring(TWO_MODES, {"a": points(2, 9, [0, 0, 0]), "b": points(3, 9, [0, 0, 0])})
    bare = ProxyInput("real", scored.real.views, "text", scored.real.digests)
    object.__setattr__(scored, "real", bare)
    assert set(scoring_findings(scored, None, top_k=2, rank_by="pad")) == set()
    with pytest.raises(ProxyError, match="a gap map needs embeddings"):
        gaps_state(scored)


def test_label_checks_as_a_table_and_as_messages():
    text = labels_table(labels_state(CHECKS)).text(120)
    assert "0.10" in text  # total variation of 0.5/0.5 and 0.6/0.4
    assert "labels may be wrong" in text
    assert label_messages(CHECKS) == (f"{SCRIPT}: labels may be wrong",)
    assert label_messages(CHECKS[:1]) == ("The labels of 1 candidates were checked: no warning.",)


def test_the_page_shows_what_was_found_and_hostile_names_stay_texts(tmp_path: Path, found):
    save_findings(tmp_path / "first", found)
    copy_findings(tmp_path / "first", tmp_path / "run")
    page = Page(write_report(tmp_path / "run").read_text())
    assert page.all("script") == []
    assert SCRIPT in page.words
    assert "nearest: left, example" in page.words
    assert "Would more real examples pay?" in page.words
    assert any("disjoint real samples" in (image["alt"] or "") for image in page.all("img"))


def test_the_figure_marks_what_is_extrapolated(found):
    figure = real_size_figure(found["real_size"])
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "extrapolated as 1/√n" in labels
    measured, ahead = figure.axes[1].lines[:2]
    assert list(measured.get_xdata()) == [7, 15, 30]
    assert list(ahead.get_xdata()) == [30, 60, 120, 240, 480]
    assert to_svg(figure).startswith(b"<?xml")


@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("state", [[], {}, {"checks": [{}], "gaps": [{}], "measured": [{}]}])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, state):
    write_json(tmp_path / f"{name}.json", state)
    with pytest.raises(RecordError, match=rf"{name}\.json is damaged"):
        write_report(tmp_path)
