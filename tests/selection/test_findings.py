"""Gaps, label checks and sample size: as typed results, JSON files, tables and on the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from synque_select.errors import ProxyError, RecordError
from synque_select.proxies.base import ProxyInput
from synque_select.records.findings_file import (
    FINDINGS,
    copy_findings,
    load_findings,
    save_findings,
)
from synque_select.records.run_folder import read_json, write_json
from synque_select.report.figures import sample_size_charts
from synque_select.report.finding_tables import gaps_table, labels_table
from synque_select.report.page import write_report
from synque_select.selection.findings import find_gaps, scoring_findings
from synque_select.types import Findings, Gaps, LabelCheck, LabelChecks, SampleSizeAnalysis
from synque_select.types.label_warning import LabelWarning
from tests.records.records_data import SCRIPT
from tests.report.test_page import Page
from tests.selection.test_example_scores import TWO_MODES, points, scoring

CHECKS = [
    LabelCheck("a", 200, 0.9, float("nan"), {"0": 0.5, "1": 0.5}, {"0": 0.6, "1": 0.4}),
    LabelCheck(SCRIPT, 200, 0.5, 0.4, {"0": 1.0}, {}, (f"{SCRIPT}: labels may be wrong",)),
]


@pytest.fixture
def findings() -> Findings:
    scored = scoring(
        TWO_MODES, {"left": points(2, 200, [0, 0, 0]), SCRIPT: points(3, 90, [9, 9, 9])}
    )
    return scoring_findings(scored, LabelChecks(tuple(CHECKS)), top_k=1, rank_by="pad")


def test_what_no_candidate_covers_is_counted_and_shown(findings):
    gaps = findings.gaps
    # the right mode: 20 of 60, and some at the edge of the left one
    assert 20 <= gaps.n_uncovered <= 30
    assert len(gaps.worst) == 8
    worst = gaps.worst[0]
    assert worst.real >= 40
    assert worst.real_view == f"real {worst.real}"
    assert worst.synthetic_view == f"left {worst.synthetic}"
    text = gaps_table(gaps).text(120)
    assert f"{gaps.n_uncovered} of 60 real examples" in text
    assert f"shown are the worst 8 of {gaps.n_uncovered}" in text


def test_where_all_is_covered_the_table_says_so():
    gaps = find_gaps(scoring(TWO_MODES, {"a": TWO_MODES + 1e-3, "b": points(1, 5, [0, 0, 0])}))
    assert (gaps.n_uncovered, gaps.worst) == (0, ())
    assert str(gaps_table(gaps)).startswith(
        "Each of the 60 real examples is covered by a candidate"
    )


@pytest.mark.parametrize(
    ("n_real", "bound", "is_few"), [(30, "10 %", True), (100, "3 %", False), (2, "100 %", True)]
)
def test_that_nothing_is_uncovered_is_no_proof(n_real: int, bound: str, is_few: bool):
    """The rule of three: without a case among n, up to 3/n of all can still be cases."""
    text = gaps_table(Gaps(n_real, 0, ())).text(200)
    assert f"none among {n_real}: up to {bound} of all such examples may be uncovered" in text
    assert ("are too few to say that nothing is missing" in text) == is_few


def test_images_are_shown_on_the_page_and_named_in_the_table(tmp_path: Path):
    scored = scoring(TWO_MODES, {"a": points(2, 9, [0, 0, 0]), "b": points(3, 9, [0, 0, 0])})
    image = Image.new("L", (8, 8), 200)

    def shown(part: ProxyInput) -> ProxyInput:
        return ProxyInput(part.name, [image] * len(part), "image", part.digests, part.embeddings)

    object.__setattr__(scored, "real", shown(scored.real))
    object.__setattr__(scored, "candidates", tuple(map(shown, scored.candidates)))
    gaps = find_gaps(scored, n_shown=2)
    assert f"image {gaps.worst[0].real} " in gaps_table(gaps).text(120)
    save_findings(tmp_path, Findings(gaps=gaps))
    page = Page(write_report(tmp_path).read_text())
    assert sum("png" in (image["src"] or "") for image in page.all("img")) == 4


def test_without_embeddings_there_are_no_gaps():
    scored = scoring(TWO_MODES, {"a": points(2, 9, [0, 0, 0]), "b": points(3, 9, [0, 0, 0])})
    bare = ProxyInput("real", scored.real.views, "text", scored.real.digests)
    object.__setattr__(scored, "real", bare)
    assert scoring_findings(scored, None, top_k=2, rank_by="pad") == Findings()
    with pytest.raises(ProxyError, match="a gap map needs embeddings"):
        find_gaps(scored)


def test_label_checks_as_a_table_and_as_messages():
    # the figure of the check, from held-out predictions: not 0.10, the distance of the two mixes
    measured = replace(CHECKS[0], mix_distance=0.12)
    text = labels_table(LabelChecks((measured, CHECKS[1]))).text(120)
    assert "0.12" in text
    assert "0.10" not in text
    assert "labels may be wrong" in text
    assert LabelChecks(tuple(CHECKS)).messages == (f"{SCRIPT}: labels may be wrong",)
    assert LabelChecks(tuple(CHECKS[:1] * 4)).messages == (
        "The labels of 4 candidates were checked: no candidate's labels stand out. An error that "
        "most of them share cannot be seen.",
    )
    (camps,) = LabelChecks(tuple(CHECKS[:1] * 4), has_camps=True).messages
    assert "no single candidate's labels stand out, but two camps contradict each other" in camps
    kept = LabelChecks(tuple(CHECKS[:1] * 4), has_camps=True)
    assert LabelChecks.from_dict(kept.to_dict()).messages == (camps,)
    warning = LabelWarning("contradicted", (0.99, 0.38))
    right = replace(CHECKS[0], warnings=(warning.sentence("right"),), reasons=(warning,))
    accused = (right, *CHECKS[:1] * 3)
    assert "contradict 99 % of them" in LabelChecks(accused).messages[0]
    # of two camps, it is not the smaller one that is wrong
    assert LabelChecks(accused, has_camps=True).messages == (camps,)
    (few,) = LabelChecks(tuple(CHECKS[:1])).messages
    assert few.startswith("The labels of 1 candidate were checked: without a warning, but 3")


def test_the_page_shows_what_was_found_and_hostile_names_stay_texts(tmp_path: Path, findings):
    save_findings(tmp_path / "first", findings)
    copy_findings(tmp_path / "first", tmp_path / "run")
    page = Page(write_report(tmp_path / "run").read_text())
    assert SCRIPT not in page.script
    assert SCRIPT in page.words
    assert "nearest: left, example" in page.words
    assert "Would more real examples help?" in page.words
    assert "Shared by the top 1 of two disjoint real samples" in page.words


def test_the_chart_marks_what_is_extrapolated(findings):
    _, errors = sample_size_charts(findings.real_size)
    assert ("warn", "extrapolated as 1/√n") in errors.legend
    measured, ahead, gap = errors.lines
    assert len(measured.points.split()) == 3
    assert len(ahead.points.split()) == 5
    assert measured.points.split()[-1] == ahead.points.split()[0]
    assert ahead.is_dashed
    assert gap.tone == "off"


@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("state", [[], {}, {"checks": [{}], "gaps": [{}], "measured": [{}]}])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, state):
    write_json(tmp_path / f"{name}.json", state)
    with pytest.raises(RecordError, match=rf"{name}\.json is damaged"):
        write_report(tmp_path)


def test_findings_come_back_from_their_files_as_they_were(tmp_path: Path, findings):
    paths = save_findings(tmp_path, findings)
    assert sorted(path.name for path in paths) == sorted(f"{name}.json" for name in FINDINGS)
    assert repr(load_findings(tmp_path)) == repr(findings)
    assert load_findings(tmp_path / "nowhere") == Findings()


def test_files_of_version_1_keep_their_form(tmp_path: Path, findings):
    """What version 0.1 wrote, field by field: other programs read these files too."""
    save_findings(tmp_path, findings)
    gaps, labels, sizes = (
        read_json(tmp_path / f"{name}.json") for name in ("gaps", "labels", "real_size")
    )
    assert list(gaps) == ["version", "n_real", "n_uncovered", "gaps"]
    assert set(gaps["gaps"][0]) == {
        "real", "candidate", "synthetic", "distance", "radius", "real_view", "synthetic_view",
    }  # fmt: skip
    assert labels["checks"][0] == {
        "name": "a",
        "n": 200,
        "agreement": 0.9,
        "others_agreement": None,
        "mix": {"0": 0.5, "1": 0.5},
        "real_mix": {"0": 0.6, "1": 0.4},
        "warnings": [],
    }
    assert set(sizes) - {"unit", "no_extrapolation"} == {
        "version", "measured", "extrapolated", "gap", "chance", "k",
    }  # fmt: skip
    assert set(sizes["measured"][0]) == {"m", "n_pairs", "overlap", "spearman", "border_error"}
    assert set(sizes["extrapolated"][0]) == {"n", "border_error"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("version", 2, "version must be 1, found 2"),
        ("k", "three", "k must be a count, found a text"),
        ("measured", [], "measured must be a list with at least one size"),
        ("measured", [{"m": 5, "n_pairs": 9}], r"measured\[0\].overlap must be a number or null"),
    ],
)
def test_a_broken_field_is_named_with_its_file(tmp_path: Path, findings, field, value, words):
    state = json.loads(json.dumps(findings.real_size.to_dict())) | {field: value}
    write_json(tmp_path / "real_size.json", state)
    with pytest.raises(RecordError, match=rf"real_size\.json is damaged: {words}"):
        load_findings(tmp_path)


def test_an_analysis_comes_back_from_its_dict(findings):
    assert SampleSizeAnalysis.from_dict(findings.real_size.to_dict()) == findings.real_size
