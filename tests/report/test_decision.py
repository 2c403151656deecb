"""The lines of the decision: advice, reasons, and how far the column can be trusted."""

from __future__ import annotations

import dataclasses

from synque_select.functional.correlation import correlate_scores
from synque_select.report.decision import decision_lines
from tests.selection.test_decision import decision, ranking


def test_the_reliability_is_unknown_until_it_is_measured():
    decided = dataclasses.replace(ranking(), decision=decision())
    lines = decision_lines(decided)
    assert lines[0] == "Train on all 6: your real sample does not separate them."
    assert lines[-1] == "Reliability of consensus on your task is unknown."
    measured = correlate_scores(
        [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5], higher_is_better=True, mode="max"
    )
    lines = decision_lines(decided, measured)
    assert lines[-1].startswith("Measured reliability of consensus on this task: Spearman +0.94")
    assert not any("unknown" in line for line in lines)
