"""The rules of the decision, its sentences, and that advice and mixture agree."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from synque_select.errors import ConfigError, DataError
from synque_select.proxies.registry import PROXIES, proxy_keys
from synque_select.selection.decision import decided, redecided, tuned, with_weights
from synque_select.selection.sentences import never_reads_real
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
# c stands out by its own labels, not by what the others say
OWN = {"contradicted": {"c": 0.18}, "unpredicted": {"c": 0.51}}


@pytest.mark.parametrize(
    ("changes", "opening", "sentence", "selected"),
    [
        (
            CLEAR,
            "clear",
            "Train on a, b, c and d: by consensus, these files are closer to your 60 real examples "
            "than every other candidate, beyond chance.",
            "abcd",
        ),
        (
            MIXED,
            "clear",
            "Train on all but e and f: by consensus, these files are farther from your 60 real "
            "examples than at least half of the others, beyond chance.",
            "abcd",
        ),
        (
            {"n_apart": 9, "worse": ("c", "d", "e", "f")},
            "clear",
            "Train on a and b: by consensus, each other file is farther from your 60 real examples "
            "than at least half of the others, beyond chance.",
            "ab",
        ),
        (
            {**CLEAR, "answers": AnswerEvidence(12, worse=("a",))},
            "answers",
            "Train on all but a, e and f: by your 12 answers, a is right less often than "
            "the others; "
            "by consensus, e and f are farther from your 60 real examples than at least "
            "half of the "
            "others, beyond chance.",
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
            "Train on d, e and f: by your 12 answers, these are right more often than a, b "
            "and c where "
            "they contradict each other.",
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
            "Check the labels of c first: the other candidates contradict 48 % of them. Until "
            "then, train on a, b and d: by consensus, e and f are farther from your 60 real "
            "examples "
            "than at least half of the others, beyond chance.",
            "abd",
        ),
        (
            {**CLEAR, **LABELS, "far": FAR},
            "far",
            "No candidate resembles your real data (a linear classifier is right 96 % of the "
            "time): generate again.",
            "abcdef",
        ),
        (
            {"n_apart": None, "n_pairs": 0, "untested": "no difference was tested, as it rains"},
            "untested",
            "Train on all 6: no difference was tested, as it rains.",
            "abcdef",
        ),
        (
            {**LABELS, "n_effective": 12.0, "n_real": 12},
            "labels",
            "Check the labels of c first: the other candidates contradict 48 % of them. Until "
            "then, train on all 5 others: 12 real examples are too few to choose among them.",
            "abdef",
        ),
        (
            {**OWN, "n_apart": 0},
            "labels",
            "Check the labels of c first: only 51 % of them follow from the inputs. Until then, "
            "train on all 5 others: your real sample does not separate them.",
            "abdef",
        ),
        (
            {**OWN, "contradicted": {"c": 0.18, "d": 0.48}, "n_apart": 0},
            "labels",
            "Check the labels of d and c first: the other candidates contradict 48 % of "
            "those of d, "
            "and only 51 % of those of c follow from the inputs. Until then, train on all 4 "
            "others: your real sample does not separate them.",
            "abef",
        ),
        (
            {**LABELS, "n_apart": 0},
            "labels",
            "Check the labels of c first: the other candidates contradict 48 % of them. Until "
            "then, train on all 5 others: your real sample does not separate them.",
            "abdef",
        ),
        (
            {**CLEAR, "copies": ("a",), "clear_at": ()},
            "clear",
            "Train on b, c and d: by consensus, e and f are farther from your 60 real "
            "examples than at "
            "least half of the others, beyond chance. a is a copy or near copy of your real sample "
            "and is not selected.",
            "bcd",
        ),
        (
            {"far": FAR, "copies": ("a",)},
            "far",
            "No other candidate resembles your real data (a linear classifier is right 96 % of the "
            "time): generate again. a is a copy or near copy of your real sample and is not "
            "selected.",
            "bcdef",
        ),
        (
            {"copies": ("a",)},
            "tie",
            "Train on the 5 that can be selected: your real sample does not separate them. a is a "
            "copy or near copy of your real sample and is not selected.",
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
            "By consensus, e and f are farther from your 60 real examples than at least "
            "half of the "
            "others, beyond chance. The top 3 are selected",
        ),
        (
            {**CLEAR, "clear_at": (3,)},
            "a, b and c: by consensus, these files are closer to your 60",
        ),
        ({"far": FAR}, "No candidate resembles your real data (a linear classifier is right 96 %"),
        (LABELS, "Check the labels of c first: the other candidates contradict 48 % of them. The"),
    ],
)
def test_a_given_top_k_is_obeyed_and_named(changes: dict[str, Any], sentence: str):
    made = decision(3, **changes)
    assert made.sentence.startswith(sentence)
    assert "selected because top_k=3 was given" in made.sentence
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


@pytest.mark.parametrize(
    "changes",
    [
        {"copies": ("a",)},
        {"far": dataclasses.replace(FAR, is_far=False, each={"a": 0.91})},
    ],
    ids=["copy", "dissimilar"],
)
def test_labels_of_a_candidate_that_is_not_selected_need_no_check(changes: dict[str, Any]):
    made = decision(contradicted={"a": 0.7}, **changes)
    assert made.opening == "tie"
    assert made.sentence.startswith(
        "Train on the 5 that can be selected: your real sample does not"
    )
    both = decision(contradicted={"a": 0.7, "c": 0.48}, **changes)
    assert both.sentence.startswith(
        "Check the labels of c first: the other candidates contradict 48 % of them. Until then, "
        "train on all 4 others"
    )
    assert both.mixture.names == ("b", "d", "e", "f")


def test_where_all_are_copies_there_is_nothing_to_select():
    with pytest.raises(DataError, match=r"every candidate \(a, b and 4 more\) is the real sample"):
        decision(copies=NAMES)


def test_a_top_k_below_1_is_refused():
    with pytest.raises(ConfigError, match="top_k=0: allowed is 1 to 6"):
        decision(0)


def test_a_top_k_above_the_number_of_candidates_means_all_that_can_be_selected():
    evidence = Evidence("consensus", 60, 60.0, 9, 15, copies=("a",), undefined=("b",))
    made = decided(dataclasses.replace(ranking(), top_k=9), evidence)
    assert made.top_k == 6
    assert made.messages[-1] == (
        "top_k=9 is more than there are candidates (6): all that can be selected are."
    )
    assert set(made.top().names) == {"c", "d", "e", "f"}
    assert made.decision is not None
    assert "All 4 that can be selected are selected because top_k=9 was given" in str(made.decision)
    weights = Mixture({"c": 0.7, "d": 0.3}, "by score")
    weighted = with_weights(made, weights, "proportional").decision
    assert weighted is not None
    assert "top_k=9 was given" in weighted.sentence
    assert "top_k=6" not in weighted.sentence
    again = redecided(decided(ranking(), Evidence("consensus", 60, 60.0)), top_k=7)
    assert len(again.top().names) == 6
    assert "top_k=7 is more than there are candidates (6)" in again.messages[-1]


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
        "mixture='proportional': a 0.75, c 0.25. No weight goes to b, d, e and f (by this "
        "weighting)."
    )


def test_a_tuned_mixture_is_what_the_sentence_names():
    plain = decided(ranking(), Evidence("consensus", 60, 60.0, 0, 15))
    made = tuned(plain, Mixture({"a": 0.5, "b": 0.5}), "the best of 8 trials by val_acc").decision
    assert made is not None
    assert made.sentence == "Train on a 0.5, b 0.5: the best of 8 trials by val_acc."
    assert made.reasons[0].startswith("Without the search: Train on all 6")


def test_a_tuned_mixture_says_what_speaks_against_it():
    evidence = Evidence("consensus", 60, 60.0, **CLEAR, n_pairs=15, copies=("b",))
    plain = decided(ranking(), evidence)
    made = tuned(plain, Mixture({"b": 0.5, "e": 0.5}), "the best of 8 trials by val_acc").decision
    assert made is not None
    assert made.sentence == (
        "Train on b 0.5, e 0.5: the best of 8 trials by val_acc, although b is a copy or near copy "
        "of your real sample and e is shown worse than at least half of the others."
    )


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
    assert "stability" in reasons
    assert "distinguished" not in reasons
    assert "9 of 15 pairs of candidates are distinguished" in " ".join(decision(n_apart=9).reasons)


@pytest.mark.parametrize("top_k", [None, 2])
def test_of_two_camps_those_shown_worse_are_not_left_out(top_k: int | None):
    """A score that the larger camp decides would thin the other one."""
    made = decision(top_k, camps=("Two camps.",), worse=("d", "e"), n_apart=4, n_pairs=15)
    if top_k is None:
        assert set(made.mixture.names) == set("abcdef")
        assert made.sentence.endswith("train on all 6: nothing says which camp is right.")
    assert "worse" not in made.sentence


def test_of_two_camps_nothing_is_left_out_because_the_majority_may_be_wrong():
    camps = ("the candidates form two camps.", "Read some examples.")
    made = decision(camps=camps, contradicted={"a": 0.9, "b": 0.9})
    assert made.opening == "labels"
    assert made.sentence == (
        "Check the labels first: the candidates form two camps. Until then, train on all 6: "
        "nothing says which camp is right."
    )
    assert made.reasons[0] == "Read some examples."
    assert set(made.mixture.names) == set(NAMES)
    assert Decision.from_fields(JsonFields(made.to_dict())) == made


def test_answers_that_show_nothing_are_the_first_reason():
    made = decision(answers=AnswerEvidence(12, is_open=True), camps=("Two camps.", "Read them."))
    assert made.opening == "labels"
    assert made.reasons[:2] == (
        "By your 12 answers, it is not settled which camp is right (more answers may settle it).",
        "Read them.",
    )
    assert Decision.from_fields(JsonFields(made.to_dict())) == made


def test_a_given_top_k_says_what_speaks_against_what_it_selects():
    made = decision(5, **CLEAR)
    assert made.sentence.endswith(
        "The top 5 are selected because top_k=5 was given, although e is shown worse than at least "
        "half of the others."
    )
    made = decision(3, **MIXED, **LABELS)
    assert made.sentence == (
        "Check the labels of c first: the other candidates contradict 48 % of them. The top 3 are "
        "selected because top_k=3 was given, although the labels of c are contradicted."
    )
    made = decision(2, camps=("the candidates form two camps.",))
    assert made.sentence.endswith("although nothing says which camp is right.")
    assert "although" not in decision(4, **CLEAR).sentence


def test_weights_say_what_speaks_against_the_weighted():
    plain = decided(ranking(), Evidence("consensus", 60, 60.0, **CLEAR, n_pairs=15, **LABELS))
    mixture = Mixture({"c": 0.5, "e": 0.25, "f": 0.25}, "by MMD")
    made = with_weights(plain, mixture, "mmd_optimal").decision
    assert made is not None
    assert made.sentence.endswith(
        "c 0.5, e 0.25, f 0.25, although e and f are shown worse than at least half of the "
        "others and "
        "the labels of c are contradicted. No weight goes to a, b and d (by this weighting)."
    )
    given = decided(ranking(2), Evidence("consensus", 60, 60.0, 0, 15))
    made = with_weights(given, Mixture({"a": 0.5, "b": 0.5}), "proportional").decision
    assert made is not None
    assert "The weights of the top 2 (top_k=2 was given) are those of" in made.sentence


def test_of_many_that_are_better_the_few_others_are_named():
    assert decision(**{**CLEAR, "worse": ("f",), "clear_at": (5,)}).sentence == (
        "Train on all but f: by consensus, this file is farther from your 60 real examples than at "
        "least half of the others, beyond chance."
    )


def test_weights_say_which_candidates_get_none_and_why():
    evidence = Evidence("consensus", 60, 60.0, **CLEAR, n_pairs=15, **LABELS)
    plain = decided(ranking(), dataclasses.replace(evidence, answers=AnswerEvidence(9, ("a",))))
    assert plain.top().names == ("b", "d")
    made = with_weights(plain, Mixture({"b": 0.6, "d": 0.4}), "proportional").decision
    assert made is not None
    assert made.sentence.endswith(
        "mixture='proportional': b 0.6, d 0.4. No weight goes to a (by your answers); "
        "c (labels contradicted by the other candidates); e and f (shown worse than at least "
        "half of the others)."
    )
    optimal = with_weights(plain, Mixture({"b": 0.6, "f": 0.4}), "mmd_optimal").decision
    assert optimal is not None
    assert optimal.sentence.endswith(
        "f 0.4, although f is shown worse than at least half of the others. No weight goes to a "
        "(by your answers); c (labels contradicted by the other candidates); d and e "
        "(by this weighting)."
    )
    # with a given top_k, the others are left out for their rank
    given = with_weights(decided(ranking(2), evidence), Mixture({"a": 1.0}), "proportional")
    assert given.decision is not None
    assert "no weight" not in given.decision.sentence


@pytest.mark.parametrize(
    ("answers", "finding"),
    [
        (
            AnswerEvidence(12),
            "By your 12 answers, no candidate is shown to be right less often than the others.",
        ),
        (
            AnswerEvidence(1, is_open=True),
            "By your one answer, it is not settled which camp is right (more answers may settle "
            "it).",
        ),
    ],
)
def test_answers_that_leave_nobody_out_are_a_reason(answers: AnswerEvidence, finding: str):
    assert decision(answers=answers).reasons[0] == finding


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (
            AnswerEvidence(24, ("a",)),
            "Train on all but a: by your 24 answers, a is right less often than the others.",
        ),
        (
            AnswerEvidence(12, ("e",), ("a", "b"), ("c", "d")),
            "Train on all but c, d and e: by your 12 answers, a and b are right more often "
            "than c and d "
            "where they contradict each other and e is right less often than the others.",
        ),
    ],
)
def test_each_camp_is_named_once(answers: AnswerEvidence, sentence: str):
    assert decision(answers=answers).sentence == sentence


def test_long_names_are_never_cut_in_what_answers_show():
    names = [f"a-generator-with-{'a-long-' * 20}name-{i}" for i in range(6)]
    rows = tuple(
        dataclasses.replace(row, name=name)
        for row, name in zip(ranking().candidates, names, strict=True)
    )
    long = dataclasses.replace(ranking(), candidates=rows)
    answers = AnswerEvidence(12, right_camp=tuple(names[:3]), wrong_camp=tuple(names[3:]))
    made = decided(long, Evidence("consensus", 60, 60.0, 0, 15, answers=answers)).decision
    assert made is not None
    assert made.mixture.names == tuple(names[:3])
    assert all(name in made.sentence for name in names)


def test_a_mixture_that_is_not_advised_is_not_called_recommended():
    assert decision().mixture.source == "all 6 candidates, as recommended"
    assert decision(**CLEAR).mixture.source == "4 of 6 candidates, as recommended"
    assert decision(copies=("a",)).mixture.source == (
        "all 5 candidates that can be selected, as recommended"
    )
    far = decision(far=FAR)
    assert far.mixture.source == "all 6 candidates, not advised"
    assert far.reasons[0].startswith("b is the hardest for a classifier")


def test_where_one_is_left_out_it_is_the_other():
    made = decision(5, n_apart=9, worse=("f",), clear_at=(5,))
    assert "than the other candidate, beyond chance" in made.sentence


def test_fewer_than_top_k_can_be_selected():
    assert decision(6, copies=("a",)).sentence == (
        "Your real sample does not separate the 5 candidates. All 5 that can be selected are "
        "selected because top_k=6 was given. a is a copy or near copy of your real sample and is "
        "not selected."
    )


def test_two_candidates_are_both_and_the_other():
    two = dataclasses.replace(ranking(), candidates=ranking().candidates[:2])
    tie = decided(two, Evidence("consensus", 60, 60.0, 0, 1)).decision
    clear = decided(two, Evidence("consensus", 60, 60.0, 1, 1, ("b",), (1,))).decision
    assert tie is not None
    assert clear is not None
    assert tie.sentence == "Train on both: your real sample does not separate them."
    assert tie.reasons[0].startswith("The 2 candidates are not distinguished by")
    assert clear.sentence == (
        "Train on a: by consensus, this file is closer to your 60 real examples than the other "
        "candidate, beyond chance."
    )
    assert clear.reasons[0].startswith("The 2 candidates are distinguished by")


def test_many_long_names_do_not_hide_the_advice():
    names = [f"qwen2.5-32b_few-shot_bg_train-time-info_number-{i:02}_v1" for i in range(30)]
    row = ranking().candidates[0]
    rows = tuple(
        dataclasses.replace(row, name=name, ranks={"mmd": 1.0 + i, "consensus": 1.0 + i})
        for i, name in enumerate(names)
    )
    many = dataclasses.replace(ranking(), candidates=rows)
    evidence = Evidence("consensus", 60, 60.0, 200, 435, worse=tuple(names[14:]))
    made = decided(many, evidence).decision
    assert made is not None
    assert made.mixture.names == tuple(names[:14])
    assert len(made.sentence) < 300
    assert made.sentence.startswith("Train on 14 candidates (")
    assert " and 12 more): by consensus, each other file is farther" in made.sentence
    first, second = made.sentence.partition("(")[2].partition(" and ")[0].split(", ")
    assert [first, second] == names[:2]


def kinds() -> list[tuple[str, ProxyInfo]]:
    classes = [PROXIES.get(key) for key in proxy_keys()]
    return [(c.key, ProxyInfo(c.key, c.higher_is_better, family=c.family)) for c in classes]


NEVER = {key for key, info in kinds() if key.startswith("baseline_")} | {"mdm", "sql_validity"}


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("changes", [CLEAR, MIXED, {}, {"n_effective": 9.0}, LABELS, {"far": FAR}])
@pytest.mark.parametrize(("key", "info"), kinds())
def test_the_words_fit_what_a_proxy_reads(
    key: str, info: ProxyInfo, changes: dict[str, Any], top_k: int | None
):
    rows = tuple(
        dataclasses.replace(row, ranks={key: row.ranks["consensus"]}, scores={key: ProxyScore(1.0)})
        for row in ranking().candidates
    )
    by_proxy = dataclasses.replace(
        ranking(top_k), candidates=rows, proxies={key: info}, rank_by=key
    )
    evidence = dataclasses.replace(Evidence(key, 60, 60.0, n_apart=0, n_pairs=15), **changes)
    untested = never_reads_real(info)
    if untested:
        evidence = dataclasses.replace(
            evidence, n_apart=None, n_pairs=0, worse=(), clear_at=(), untested=untested
        )
    made = decided(by_proxy, evidence).decision
    assert made is not None
    text = " ".join([made.sentence, *made.reasons])
    assert bool(untested) == (key in NEVER)
    if untested:
        assert f"our real sample is never read by {key}, so that no difference can be" in text
        assert made.opening in ("untested", "labels", "far")
        forbidden = ["closer", "farther", "better", "worse", "separate them", "distinguished",
                     "too few", "unknown", "quality of their labels"]  # fmt: skip
    elif key in ("transfer", "agreement"):
        forbidden = ["closer", "farther", "quality of their labels"]
    elif key in ("coverage", "energy", "frechet", "mmd", "pad"):
        forbidden = ["better on", "worse on", "never read"]
    else:  # not distances
        forbidden = ["closer", "farther", "never read"]
    assert not [words for words in forbidden if words in text]


def test_pairs_are_listed_best_first_and_survive_json():
    evidence = Evidence(
        "consensus", 60, 60.0, 3, 15, shown_better={"a": ("e", "f"), "b": ("f",)}, stability_k=3
    )
    made = decided(ranking(), evidence)
    assert made.distinguished == (("a", "e"), ("a", "f"), ("b", "f"))
    assert Ranking.from_dict(json.loads(json.dumps(made.to_dict()))).distinguished == (
        made.distinguished
    )
    assert decided(ranking(), Evidence("consensus", 12, 12.0)).distinguished is None
    assert redecided(made, rank_by="mmd").distinguished is None
    assert ranking().distinguished is None


def test_labels_that_stand_out_are_excluded_unless_top_k_selects_them():
    evidence = Evidence("consensus", 60, 60.0, 0, 15, copies=("a",), contradicted={"e": 0.5})
    assert decided(ranking(), evidence).excluded == ("a", "e")
    assert decided(ranking(2), evidence).excluded == ("a",)
    camps = dataclasses.replace(evidence, camps=("two camps.",))
    assert decided(ranking(), camps).excluded == ("a",)


def test_the_k_of_stability_stays_what_it_was_computed_with():
    evidence = Evidence("consensus", 60, 60.0, 0, 15, stability_k=3)
    plain = decided(ranking(), evidence)
    mixed = with_weights(plain, Mixture({"a": 0.75, "c": 0.25}), "mmd_optimal")
    assert mixed.stability_k == 3
    assert tuned(plain, Mixture({"a": 1.0}), "the best").stability_k == 3
    assert redecided(plain, top_k=2).stability_k == 2
    excluded = dataclasses.replace(evidence, contradicted={"f": 0.5}, stability_k=None)
    assert decided(ranking(), excluded).stability_k == 3
