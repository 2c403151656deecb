"""What answers say, in its JSON form."""

from __future__ import annotations

import pytest

from synque_select.types import AnswerEvidence
from synque_select.utils.json_fields import JsonFields


@pytest.mark.parametrize(
    "evidence",
    [
        AnswerEvidence(12),
        AnswerEvidence(1, is_open=True),
        AnswerEvidence(12, ("e",), ("a", "b"), ("c", "d")),
    ],
)
def test_it_survives_json(evidence: AnswerEvidence):
    assert AnswerEvidence.from_fields(JsonFields(evidence.to_dict())) == evidence
