"""Warnings of labels: of one candidate, and of several in one line."""

from __future__ import annotations

import pytest

from synque_select.errors import RecordError
from synque_select.types import LabelCheck, LabelChecks, LabelWarning


def check(name: str, *reasons: LabelWarning) -> LabelCheck:
    mix = {"x": 0.5, "y": 0.5}
    warnings = tuple(each.sentence(name, "x") for each in reasons)
    return LabelCheck(name, 60, 0.9, 0.9, mix, {}, warnings, reasons=reasons)


def test_what_one_candidate_is_warned_of_is_said_of_it():
    checks = LabelChecks((check("a"), check("b", LabelWarning("same")), check("c")))
    assert checks.messages == ("b: all labels are 'x': nothing to check.",)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            "contradicted",
            "The labels of 5 of 6 candidates may be wrong: the other candidates contradict more of "
            "them (c4 54 %, c3 53 %, c2 52 % and 2 more, which are in labels.json (--json)) than "
            "in the median candidate (90 %).",
        ),
        (
            "unpredicted",
            "The labels of 5 of 6 candidates may be wrong: held out, fewer of them follow from the "
            "inputs (c0 50 %, c1 51 %, c2 52 % and 2 more, which are in labels.json (--json)) than "
            "in the median candidate (90 %).",
        ),
        (
            "random",
            "The labels of 5 of 6 candidates may be wrong: held out, fewer of them follow from the "
            "inputs than of what the other candidates' classifiers call them (c0 50 % against "
            "90 %, c1 51 % against 90 %, c2 52 % against 90 % and 2 more, which are in labels.json "
            "(--json)).",
        ),
        (
            "alone",
            "The labels of 5 of 6 candidates were not compared with others, as no other candidate "
            "has the same classes: c0, c1, c2 and 2 more, which are in labels.json (--json).",
        ),
        (
            "same",
            "Nothing to check in 5 of 6 candidates, which have one class each: c0, c1, c2 and "
            "2 more, which are in labels.json (--json).",
        ),
        (
            "chance",
            "The labels of 5 of 6 candidates hardly follow from the inputs: held-out agreement "
            "c0 50 % (chance 90 %), c1 51 % (chance 90 %), c2 52 % (chance 90 %) and 2 more, which "
            "are in labels.json (--json).",
        ),
    ],
)
def test_what_several_are_warned_of_is_one_line(kind, line: str):
    figures = [() if kind in ("alone", "same") else (0.5 + i / 100, 0.9) for i in range(5)]
    checks = LabelChecks(
        (*(check(f"c{i}", LabelWarning(kind, figures[i])) for i in range(5)), check("d"))
    )
    assert checks.messages == (line,)
    assert LabelChecks.from_dict(checks.to_dict()) == checks


def test_other_warnings_stay_beside_the_line():
    chance = LabelWarning("chance", (0.5, 0.5))
    alone = LabelWarning("alone")
    checks = LabelChecks((check("a", alone, chance), check("b", alone), check("c")))
    assert checks.messages == (
        "The labels of 2 of 3 candidates were not compared with others, as no other candidate has "
        "the same classes: a, b.",
        "a: labels hardly follow from the inputs: held-out agreement 50 %, chance 50 %.",
    )


def test_names_with_braces_stay_as_they_are():
    checks = LabelChecks(tuple(check(name, LabelWarning("alone")) for name in ("{0}", "{x}", "c")))
    assert ": {0}, {x}, c." in checks.messages[0]


def test_a_file_of_an_older_version_has_its_sentences():
    state = LabelChecks((check("a", LabelWarning("alone")), check("b", LabelWarning("alone"))))
    old = state.to_dict()
    for each in old["checks"]:  # type: ignore[union-attr]
        del each["reasons"]  # type: ignore[union-attr, arg-type, call-overload]
    assert [text[:2] for text in LabelChecks.from_dict(old).messages] == ["a:", "b:"]


@pytest.mark.parametrize("reasons", [[], [{"kind": "alone"}], [{"kind": "no", "figures": []}]])
def test_a_damaged_file_is_an_error(reasons: list[object]):
    state = LabelChecks((check("a", LabelWarning("alone"), LabelWarning("alone")),)).to_dict()
    state["checks"][0]["reasons"] = [*reasons, {"kind": "alone", "figures": [1.0]}]  # type: ignore[index, call-overload]
    with pytest.raises(RecordError, match="reasons"):
        LabelChecks.from_dict(state)
