"""Every first sentence that evidence can lead to has a row in docs/proxies.md."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from synque_select.selection.decision import decided, redecided, tuned, with_weights
from synque_select.selection.ranking import _untested
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
from synque_select.types.decision import Opening

PAGE = Path(__file__).parents[2] / "docs" / "proxies.md"
NAMES = "PQRSTU"
INFOS = {
    "transfer": ProxyInfo("transfer", True, family="labels"),
    "mdm": ProxyInfo("mdm", True, family="diversity"),
    "mauve": ProxyInfo("mauve", True, family="divergence"),
}


def ranking(names: Sequence[str] = NAMES, by: str = "consensus", **changes: Any) -> Ranking:
    rows = tuple(
        RankedCandidate(
            name,
            100,
            name,
            {key: ProxyScore(float(place)) for key in INFOS},
            dict.fromkeys([*INFOS, "consensus"], place + 1.0),
        )
        for place, name in enumerate(names)
    )
    return Ranking(rows, INFOS, by, None, 60, "r", "text", **changes)


def far(is_far: bool) -> Farness:
    return Farness("P", 0.96, 0.94, 0.5, is_far, each={} if is_far else {"T": 0.91})


PARTS: tuple[Sequence[Mapping[str, Any]], ...] = (
    ({}, {"far": far(True)}, {"far": far(False)}),
    (
        {},
        {"answers": AnswerEvidence(1, worse=("P",))},
        {"answers": AnswerEvidence(12, right_camp=("R", "S"), wrong_camp=("P", "Q"))},
        {"answers": AnswerEvidence(12, ("P",), is_open=True)},
    ),
    (
        {},
        {"contradicted": {"S": 0.48}},
        {"contradicted": {"S": 0.48, "R": 0.5}, "unpredicted": {"S": 0.51}},
        {"contradicted": {"S": 0.48}, "unpredicted": {"S": 0.51}},
        {"camps": ("who contradicts whom.",)},
    ),
    ({}, {"n_effective": 12.0}),
    (
        {"n_apart": 0, "n_pairs": 15},
        {"n_apart": 2, "n_pairs": 15},
        {"n_apart": 9, "n_pairs": 15, "worse": ("T", "U"), "clear_at": (2, 4)},
        {"n_apart": 9, "n_pairs": 15, "worse": ("T", "U")},
        {"n_apart": 9, "n_pairs": 15, "worse": ("R", "S", "T", "U")},
    ),
    ({}, {"copies": ("Q",)}, {"copies": tuple("PQRST")}, {"copies": tuple("PQRS")}),
)


def decision_of(made: Ranking) -> Decision:
    assert made.decision is not None
    return made.decision


def decisions() -> Iterator[Decision]:
    """Yield a decision for every combination of what the data can say and what can be asked for."""
    made = [*compared(), *untested()]
    for one in made:
        yield decision_of(one)
        yield decision_of(redecided(one, rank_by=one.rank_by, top_k=2))
        weighted = with_weights(one, Mixture({"T": 0.6, "U": 0.4}), "proportional")
        yield decision_of(weighted)
    yield decision_of(tuned(made[0], Mixture({"T": 0.6, "U": 0.4}), "the best of 20 trials by acc"))


def compared() -> Iterator[Ranking]:
    for by, parts in itertools.product(("consensus", "transfer"), itertools.product(*PARTS)):
        changes: dict[str, Any] = {}
        for part in parts:
            changes |= part
        evidence = dataclasses.replace(Evidence(by, 60, 60.0), **changes)
        yield decided(ranking(by=by), evidence)


def untested() -> Iterator[Ranking]:
    """Yield a ranking for each reason why candidates are not compared."""
    one_group = _untested(ranking(), Evidence("consensus", 60, 60.0), (), (), is_varied=False)
    silent = _untested(ranking(), Evidence("consensus", 60, 60.0), (), ["mauve"], is_varied=True)
    words = Evidence("mauve", 60, 60.0)
    doubtful = _untested(ranking(by="mauve"), words, ["mauve"], (), is_varied=True)
    undefined = Evidence("consensus", 60, 60.0, undefined=("U",))
    nan = _untested(ranking(), undefined, (), (), is_varied=True)
    for evidence, reason in (
        (Evidence("consensus", 60, 60.0), one_group),
        (Evidence("consensus", 60, 60.0), silent),
        (words, doubtful),
        (undefined, nan),
        (Evidence("mdm", 60, 60.0), never_reads_real(INFOS["mdm"])),
    ):
        yield decided(ranking(by=evidence.rank_by), dataclasses.replace(evidence, untested=reason))
    yield redecided(ranking())
    compared = decided(ranking(), Evidence("consensus", 60, 60.0, n_apart=0, n_pairs=15))
    yield redecided(compared, rank_by="transfer")


# names, numbers and their grammar, in which sentences of one form differ
GRAMMAR = (
    (r"\b[A-Z]\b( [\d.]+)?((, | and )\b[A-Z]\b( [\d.]+)?)*", "X"),
    (r"\d+ candidates \(X and \d+ more\)", "X"),
    (r"all \d+( others)?|both( others)?|the \d+ that can be selected", "all N"),
    (r"\d+ real examples( that count as \d+)?", "N real examples"),
    (r"\d+ (candidates|trials)", r"N \1"),
    (r"your one answer|your \d+ answers", "your N answers"),
    (r"(up to |only |at most )?\d+ %", "N %"),
    (r"X (is|are|has|have)\b", "X is"),
    (r"(this|these) files? (is|are)", "this file is"),
    (r"(the|every) other candidate\b( that can be selected)?", "every other candidate"),
    (r"better on|closer to", "closer to"),
    (r"worse on|farther from", "farther from"),
    (r"No other candidate", "No candidate"),
    (r"\b(B|b)y (consensus|transfer|mmd)\b,?", r"\1y P"),
    (r"\b(consensus|mmd) is undefined", "P is undefined"),
    (r"\b(mauve|ngram) is not reliable", "P is not reliable"),
    (r"worse by P", "worse"),
    (r"separate (.*) by P", r"separate \1"),
    (r"trials by \w+", "trials by P"),
    (r"labels first: .*", "labels first: two camps"),
    (r", and N % of those of X follow.*", ""),
    (r"of those of X", "of them"),
)


def form(sentence: str) -> str:
    """Return the first clause of a sentence, without names, numbers and their grammar."""
    text = re.split(r"[.;] |[.;]$", sentence)[0]
    for old, new in GRAMMAR:
        text = re.sub(old, new, text)
    return text


def rows() -> set[tuple[str, str]]:
    """Return the rule and the form of the sentence of each row on the page."""
    text = PAGE.read_text().partition("## What is selected")[2].partition("\n## ")[0]
    table = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    return {(rule, form(sentence)) for rule, sentence in table}


def test_the_page_has_every_opening_and_no_other():
    produced = {(made.opening, form(made.sentence)) for made in decisions()}
    assert {rule for rule, _ in produced} == set(get_args(Opening))
    assert produced - rows() == set()
    assert rows() - produced == set()


def test_no_sentence_lists_nobody():
    for made in decisions():
        assert not re.search(r"(but|than|by|of) ?[:,]|  ", made.sentence), made.sentence


def test_candidates_that_are_left_out_make_no_other_worse():
    """Shown worse than one whose inputs are of another topic, and than nobody else."""
    evidence = Evidence(
        "consensus",
        60,
        60.0,
        n_apart=2,
        n_pairs=3,
        worse=("Q", "R"),
        far=dataclasses.replace(far(False), each={"P": 0.91}),
        shown_better={"P": ("Q", "R")},
    )
    made = decision_of(decided(ranking("PQR"), evidence))
    assert made.opening == "tie"
    assert made.mixture.names == ("Q", "R")
    assert made.sentence.startswith("Train on the 2 that can be selected: your real sample shows")


def test_a_few_that_are_better_than_all_others_are_named():
    """Two are shown better than each of four, which is less than half for everyone."""
    better = {"P": tuple("RSTU"), "Q": tuple("RSTU")}
    evidence = Evidence(
        "consensus", 60, 60.0, n_apart=8, n_pairs=15, shown_better=better, clear_at=(2,)
    )
    made = decision_of(decided(ranking(), evidence))
    assert made.sentence.startswith("Train on all 6: your real sample shows none of them")
    assert made.reasons[0] == (
        "P and Q: by consensus, these files are closer to your 60 real examples than every other "
        "candidate, beyond chance; top_k=2 selects only them."
    )
    best = decision_of(decided(dataclasses.replace(ranking(), top_k=2), evidence))
    assert best.mixture.names == ("P", "Q")
    assert not any("top_k=2" in reason for reason in best.reasons)
    tie = dataclasses.replace(evidence, clear_at=())
    assert not any("closer" in reason for reason in decision_of(decided(ranking(), tie)).reasons)


def test_bounds_are_never_rounded_up():
    made = decision_of(
        decided(
            ranking(),
            dataclasses.replace(
                Evidence("consensus", 60, 60.0), far=Farness("P", 0.964, 0.9554, 0.5, True)
            ),
        )
    )
    (bound,) = [reason for reason in made.reasons if "confidence" in reason]
    assert "right 96 % of the time (at least 95 %, 95 % confidence)" in bound


def test_what_is_trained_on_until_labels_are_checked_is_what_is_selected():
    """The two whose labels stand out are the only ones that the others are shown worse than."""
    evidence = Evidence(
        "consensus",
        60,
        60.0,
        n_apart=4,
        n_pairs=6,
        worse=("R", "S"),
        contradicted={"P": 0.5, "Q": 0.6},
        shown_better={"P": ("R", "S"), "Q": ("R", "S")},
    )
    made = decision_of(decided(ranking("PQRS"), evidence))
    assert made.mixture.names == ("R", "S")
    assert "first: the other candidates contradict up to 60 % of them. Until" in made.sentence
    assert "then, train on both others: " in made.sentence
