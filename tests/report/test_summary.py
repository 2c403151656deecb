"""The top of a report: the decision first, nothing claimed that was not measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synque_select.functional.paired import compare_paired
from synque_select.records.correlation import correlate
from synque_select.records.experiment_result import ExperimentResult
from synque_select.report.run_content import RunContent
from synque_select.report.summary import measured_reliability, summary_of
from synque_select.selection.decision import decided
from synque_select.types import (
    Evidence,
    Findings,
    Gaps,
    SampleSizeAgreement,
    SampleSizeAnalysis,
    surrogate_name,
)
from tests.records.records_data import make_ranking, make_record
from tests.report.test_tables import RESULT, RESULT_STATE


def content_of(**changes) -> RunContent:
    evidence = Evidence(
        "consensus", 50, 50.0, 2, 6, worse=("d",), shown_better={"a": ("d",), "b": ("d",)}
    )
    ranking = decided(make_ranking(top_k=None), evidence)
    return RunContent(**{"name": "digits / run", "ranking": ranking, **changes})


def point(content: RunContent, title: str):
    return next(p for p in summary_of(content).points if p.title.startswith(title))


def test_what_to_do_is_the_headline_and_why_follows():
    summary = summary_of(content_of())
    assert summary.headline == "Train on all but d."
    assert summary.more.startswith("By consensus, this file is farther from")
    old = summary_of(content_of(ranking=make_ranking()))
    assert old.headline == "Train on a, b: top 2 by consensus."
    assert summary_of(RunContent("x", result=RESULT)).weights == {}


def test_the_time_of_a_run_is_written_as_people_do():
    name = "digits / 20261129T140704Z-red-fox"
    assert summary_of(content_of(name=name)).name == "digits, red-fox, 29 November 2026, 14:07 UTC"
    assert summary_of(content_of(name="a / b")).name == "a / b"


def test_stability_never_stands_without_the_reliability():
    sure = point(content_of(), "How sure")
    assert sure.figure == "2 of 6"
    assert "Reliability of consensus on your task is unknown." in sure.lines
    assert any("not the chance of being truly best" in line for line in sure.lines)


def test_the_reliability_is_that_of_what_ranks_and_never_of_a_surrogate():
    lower = {"orientation": {"consensus": False}}
    records = [
        make_record(name, i / 9, scores={"consensus": 1.0 - i}, **lower)
        for i, name in enumerate("abcdef")
    ]
    entries = tuple(correlate(records))
    content = content_of(correlations=entries)
    measured = measured_reliability(content)
    assert measured is not None
    assert measured.spearman.value == pytest.approx(1.0)
    lines = point(content, "How sure").lines
    assert any(line.startswith("Measured reliability of consensus") for line in lines)
    on_surrogate = tuple(replace(e, monitor=surrogate_name("val_acc")) for e in entries)
    assert measured_reliability(content_of(correlations=on_surrogate)) is None
    other = tuple(correlate([make_record(name, i / 9) for i, name in enumerate("abcdef")]))
    assert measured_reliability(content_of(correlations=other)) is None


def test_the_number_of_pairs_is_said_once():
    evidence = Evidence("consensus", 50, 50.0, 1200, 4950)
    ranking = decided(make_ranking(top_k=None), evidence)
    assert ranking.decision is not None
    assert "1,200 of 4,950 pairs of candidates are distinguished" in ranking.decision.reasons[0]
    sure = point(content_of(ranking=ranking), "How sure")
    assert sure.figure == "1,200 of 4,950"
    assert sure.caption.endswith(
        "by consensus (simultaneous 95 % over all pairs, 50 real examples)"
    )
    assert "That says nothing of the quality of their labels." in sure.lines
    assert not any("distinguished" in line for line in sure.lines)


def test_whether_it_paid():
    # of what was not trained, there is nothing to ask
    assert not [p for p in summary_of(content_of()).points if p.title.startswith("Did it pay")]
    paid = point(content_of(result=RESULT), "Did it pay")
    assert paid.figure == "+0.040"
    assert paid.caption == "test_acc against mixture of k at random: beats"
    assert "95 % interval [0.010, 0.070]." in paid.lines
    pairs = {"chosen_vs_all": {**vars(compare_paired([0.5], [0.4], mode="max"))}}
    few = ExperimentResult.from_dict({**RESULT_STATE, "comparisons": pairs})
    hint = point(content_of(result=few), "Did it pay")
    assert hint.caption.endswith("hint only (1 pair)")
    assert "A verdict needs 5 pairs." in hint.lines
    assert not any("interval" in line for line in hint.lines)


def test_a_fit_alone_does_not_show_that_it_paid():
    entries = tuple(correlate([make_record("a", 0.5, kind="mixture")]))
    paid = point(content_of(correlations=entries), "Did it pay")
    assert (paid.figure, paid.caption) == ("0.500", "val_acc of 1 mixture")
    assert "so that is not known" in paid.lines[0]


def test_what_to_do_next():
    steps = point(content_of(), "What to do").lines
    assert any("SelectionCallback(ranking=" in step for step in steps)
    assert any("synque-select sweep" in step for step in steps)
    gaps = content_of(findings=Findings(gaps=Gaps(50, 3, ())))
    assert "3 of 50 real examples that are not covered" in point(gaps, "What to do").lines[0]
    far = Evidence("consensus", 10, 10.0)
    small = content_of(ranking=decided(make_ranking(top_k=None), far))
    assert point(small, "What to do").lines[0].startswith("Collect real examples")
    rows = (SampleSizeAgreement(25, 9, 0.8, 0.9, 0.6),)
    size = SampleSizeAnalysis(rows, {100: 0.4, 200: 0.3, 400: 0.2}, 0.6, 0.5, 2)
    more = content_of(findings=Findings(real_size=size))
    assert "Collect about 200 real examples" in " ".join(point(more, "What to do").lines)


def test_probes_do_not_replace_training_on_the_mixture():
    def steps(kind):
        records = [make_record(name, i / 9, kind=kind) for i, name in enumerate("abcdef")]
        return point(content_of(correlations=tuple(correlate(records))), "What to do next").lines

    assert any(line.startswith("Train on this mixture") for line in steps("probe"))
    assert not any(line.startswith("Train on this mixture") for line in steps("mixture"))
