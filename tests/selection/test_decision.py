"""The rules of the decision, its sentences, and that advice and mixture agree."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from synque_select.errors import ConfigError, DataError
from synque_select.selection.decision import decided, redecided, tuned, with_weights
from synque_select.types import (
    AnswerEvidence,
    Decision,
    Evidence,
    Farness,
    Mixture,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
)
from synque_select.utils.json_fields import JsonFields

NAMES = ("a", "b", "c", "d", "e", "f")
FAR = Farness("b", accuracy=0.958, low=0.94, halves=0.5, is_far=True)


def ranking(top_k: int | None = None) -> Ranking:
    """Six candidates, best first by name; only their order by "mmd" is the reverse."""
    n = len(NAMES)
    rows = tuple(
        RankedCandidate(
            name,
            100,
            name,
            {"mmd": ProxyScore(float(n - place))},
            {"mmd": float(n - place), "consensus": float(place + 1)},
        )
        for place, name in enumerate(NAMES)
    )
    return Ranking(
        candidates=rows,
        proxies={"mmd": ProxyInfo("mmd", False)},
        rank_by="consensus",
        top_k=top_k,
        n_real=60,
        real_sha256="r",
        modality="text",
    )


def decision(top_k: int | None = None, **changes: Any) -> Decision:
    evidence = Evidence("consensus", 60, 60.0, n_apart=0, n_pairs=15)
    made = decided(ranking(top_k), dataclasses.replace(evidence, **changes)).decision
    assert made is not None
    return made


CLEAR = {"n_apart": 9, "worse": ("e", "f"), "clear_at": (4,)}
MIXED = {"n_apart": 7, "worse": ("e", "f")}
LABELS = {"contradicted": {"c": 0.48}}


@pytest.mark.parametrize(
    ("changes", "opening", "sentence", "selected"),
    [
        (
            CLEAR,
            "clear",
            "Train on a, b, c, d: by consensus, these files are closer to your 60 real examples "
            "than every other candidate, beyond chance.",
            "abcd",
        ),
        (
            MIXED,
            "clear",
            "Train on all but e, f: by consensus, these files are farther from your 60 real "
            "examples than at least half of the others, beyond chance.",
            "abcd",
        ),
        (
            {"n_apart": 9, "worse": ("c", "d", "e", "f")},
            "clear",
            "Train on a, b: by consensus, each other file is farther from your 60 real examples "
            "than at least half of the others, beyond chance.",
            "ab",
        ),
        (
            {**CLEAR, "answers": AnswerEvidence(12, worse=("a",))},
            "answers",
            "Train on all but a, e, f: by your 12 answers, a is right less often than the others.",
            "bcd",
        ),
        (
            {
                "camps": ("a, b, c and d, e, f contradict each other.", "Read some examples."),
                "contradicted": {"e": 0.6},
                "answers": AnswerEvidence(
                    12, right_camp=("d", "e", "f"), wrong_camp=("a", "b", "c")
                ),
            },
            "answers",
            "Train on all but a, b, c: by your 12 answers, d, e, f are right where a, b, c "
            "contradict them.",
            "def",
        ),
        ({}, "tie", "Train on all 6: your real sample does not separate them.", "abcdef"),
        (
            {"n_apart": 2},
            "tie",
            "Train on all 6: your real sample shows none of them to be worse than at least half of "
            "the others.",
            "abcdef",
        ),
        (
            {**CLEAR, "n_effective": 19.9, "n_real": 20},
            "small",
            "20 real examples are too few to choose: train on all 6, or collect more.",
            "abcdef",
        ),
        (
            {"n_effective": 12.0},
            "small",
            "60 real examples that count as 12 are too few to choose: train on all 6, or collect "
            "more.",
            "abcdef",
        ),
        (
            {**CLEAR, **LABELS},
            "labels",
            "Check the labels of c first: the other candidates contradict 48% of them. Until then, "
            "train on a, b, d.",
            "abd",
        ),
        (
            {**CLEAR, **LABELS, "far": FAR},
            "far",
            "No candidate resembles your real data (a linear classifier is right 96% of the time): "
            "generate again.",
            "abcdef",
        ),
        (
            {"n_apart": None, "n_pairs": 0},
            "untested",
            "Train on all 6: whether your real sample separates them by consensus is unknown.",
            "abcdef",
        ),
        (
            {"copies": ("a",)},
            "tie",
            "Train on all 5 others: your real sample does not separate them. a is a copy or near "
            "copy of your real sample and is not selected.",
            "bcdef",
        ),
    ],
)
def test_each_rule_has_its_sentence_and_its_mixture(
    changes: dict[str, Any], opening: str, sentence: str, selected: str
):
    made = decision(**changes)
    assert (made.opening, made.sentence) == (opening, sentence)
    assert set(made.mixture.names) == set(selected)
    assert len(set(made.mixture.weights.values())) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Your real sample does not separate the 6 candidates. The top 3 are selected"),
        (
            {"n_effective": 9.0, "n_real": 9},
            "9 real examples are too few to choose: collect more. The",
        ),
        (
            MIXED,
            "By consensus, e, f are farther from your 60 real examples than at least half of the "
            "others, beyond chance. The top 3 are selected",
        ),
        ({**CLEAR, "clear_at": (3,)}, "a, b, c: by consensus, these files are closer to your 60"),
        ({"far": FAR}, "No candidate resembles your real data (a linear classifier is right 96%"),
        (LABELS, "Check the labels of c first: the other candidates contradict 48% of them. The"),
    ],
)
def test_a_given_top_k_is_obeyed_and_named(changes: dict[str, Any], sentence: str):
    made = decision(3, **changes)
    assert made.sentence.startswith(sentence)
    assert made.sentence.endswith("selected because top_k=3 was given.")
    assert made.mixture.names == ("a", "b", "c")
    assert "rain on" not in made.sentence
    # what more data would change is said; what to train on was decided by top_k


def test_copies_are_not_selected_by_a_given_top_k_either():
    made = decided(ranking(2), Evidence("consensus", 60, 60.0, copies=("a",)))
    assert made.top().names == ("b", "c")
    assert made.top(6).names == ("b", "c", "d", "e", "f")
    assert made.top(1, by="mmd").names == ("f",)
    assert made.decision is not None
    assert made.decision.sentence.endswith("a is a copy or near copy of your real sample and is "
                                           "not selected.")  # fmt: skip


def test_where_all_are_copies_there_is_nothing_to_select():
    with pytest.raises(DataError, match=r"every candidate \(a, b and 4 more\) is the real sample"):
        decision(copies=NAMES)


@pytest.mark.parametrize("top_k", [0, 7])
def test_a_top_k_out_of_range(top_k: int):
    with pytest.raises(ConfigError, match=f"top_k={top_k}: allowed is 1 to 6"):
        decision(top_k)


def test_another_column_forgets_what_was_compared_but_not_the_copies():
    first = decided(ranking(), Evidence("consensus", 60, 60.0, 9, 15, ("f",), (5,), ("a",)))
    again = redecided(first, rank_by="mmd", top_k=2).decision
    assert again is not None
    assert again.opening == "untested"
    assert again.mixture.names == ("f", "e")
    assert again.evidence.copies == ("a",)
    same = redecided(first, top_k=2).decision
    assert same is not None
    assert same.evidence.worse == ("f",)


def test_weights_that_were_asked_for_are_in_the_sentence():
    plain = decided(ranking(), Evidence("consensus", 60, 60.0, 0, 15))
    mixture = Mixture({"a": 0.75, "c": 0.25}, "proportional")
    made = with_weights(plain, mixture, "proportional")
    assert made.top() == made.own_mixture == mixture
    assert made.decision is not None
    assert made.decision.sentence == (
        "Your real sample does not separate the 6 candidates. The weights are those of "
        "mixture='proportional': a 0.75, c 0.25."
    )


def test_a_tuned_mixture_is_what_the_sentence_names():
    plain = decided(ranking(), Evidence("consensus", 60, 60.0, 0, 15))
    made = tuned(plain, Mixture({"a": 0.5, "b": 0.5}), "the best of 8 trials by val_acc").decision
    assert made is not None
    assert made.sentence == "Train on a 0.5, b 0.5: the best of 8 trials by val_acc."
    assert made.reasons[0].startswith("Without the search: Train on all 6")


@pytest.mark.parametrize("changes", [CLEAR, LABELS, {"far": FAR}, {"copies": ("b",)}])
def test_a_decision_survives_strict_json(changes: dict[str, Any]):
    before = decided(
        ranking(), dataclasses.replace(Evidence("consensus", 60, 60.0, 0, 15), **changes)
    )
    state = json.loads(json.dumps(before.to_dict(), allow_nan=False))
    assert state["version"] == 3
    assert state["top_k"] is None
    assert state["decision"]["sentence"] == before.decision.sentence  # type: ignore[union-attr]
    after = Ranking.from_dict(state)
    assert after.decision == before.decision
    assert after.top() == before.top()


def test_the_k_of_stability_is_where_the_selection_ends():
    assert decided(ranking(2), Evidence("consensus", 60, 60.0, 0, 15)).stability_k == 2
    dropped = Evidence("consensus", 60, 60.0, 9, 15, worse=("e", "f"))
    assert decided(ranking(), dropped).stability_k == 4
    assert decided(ranking(), Evidence("consensus", 60, 60.0, 0, 15)).stability_k == 3


def test_nothing_is_said_of_pairs_of_a_small_sample():
    reasons = " ".join(decision(n_apart=9, n_effective=12.0).reasons)
    assert "not tested with fewer than 20 real examples" in reasons
    assert "distinguished" not in reasons
    assert "9 of 15 pairs of candidates are distinguished" in " ".join(decision(n_apart=9).reasons)


def test_of_two_camps_nothing_is_left_out_because_the_majority_may_be_wrong():
    camps = ("the candidates form two camps.", "Read some examples.")
    made = decision(camps=camps, contradicted={"a": 0.9, "b": 0.9})
    assert made.opening == "labels"
    assert made.sentence == (
        "Check the labels first: the candidates form two camps. Until then, all are selected."
    )
    assert made.reasons[0] == "Read some examples."
    assert set(made.mixture.names) == set(NAMES)
    assert Decision.from_fields(JsonFields(made.to_dict())) == made


def test_answers_that_show_nothing_are_the_first_reason():
    made = decision(answers=AnswerEvidence(12, is_open=True), camps=("Two camps.", "Read them."))
    assert made.opening == "labels"
    assert made.reasons[:2] == (
        "By your 12 answers, it is not settled which of the two camps is right.",
        "Read them.",
    )
    assert Decision.from_fields(JsonFields(made.to_dict())) == made
