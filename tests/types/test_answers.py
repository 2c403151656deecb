"""What answers say, and its JSON form."""

from __future__ import annotations

import pytest

from synque_select.types import AnswerEvidence
from synque_select.utils.json_fields import JsonFields


@pytest.mark.parametrize(
    ("evidence", "finding"),
    [
        (
            AnswerEvidence(12),
            "by your 12 answers, no candidate is shown to be right less often than the others",
        ),
        (
            AnswerEvidence(1, is_open=True),
            "by your one answer, it is not settled which camp is right "
            "(more answers may settle it)",
        ),
        (AnswerEvidence(24, ("a",)), "by your 24 answers, a is right less often than the others"),
        (
            AnswerEvidence(12, ("e",), ("a", "b"), ("c", "d")),
            "by your 12 answers, a, b are right more often than c, d where they contradict each "
            "other, and e is right less often than the others",
        ),
    ],
)
def test_the_finding(evidence: AnswerEvidence, finding: str):
    assert evidence.finding == finding
    assert AnswerEvidence.from_fields(JsonFields(evidence.to_dict())) == evidence
