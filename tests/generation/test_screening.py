"""Which new examples are dropped, and why."""

from __future__ import annotations

from synque_select.data.candidate import Candidate, RealSample
from synque_select.generation.record_form import LabelSet, Record, RecordForm
from synque_select.generation.screening import dropped_words, screen
from tests.generation.sentences import sentences

SHOWN = RealSample("real", ["how many apps have free reviews", "which app is the oldest"])
HELD_OUT = RealSample("real", ["who has written most of the reviews", "what costs more than ten"])
DATA = Candidate("a", [{"text": "tell me a tale of two dragons"}, {"text": "sing"}], view="text")
FORM = RecordForm({"text": "x"}, None, 60)


def screened(*texts: str, form: RecordForm = FORM) -> tuple[list[str], dict[str, int]]:
    kept = screen([(form, {"text": text}) for text in texts], DATA, (SHOWN, HELD_OUT))
    return [str(record["text"]) for record in kept.records], dict(kept.dropped)


def test_copies_of_both_halves_of_the_data_and_of_each_other():
    assert screened(
        "How many apps have free reviews?",
        "WHO has written most of the reviews",
        "tell me a tale of two dragons!",
        "a new one",
        "A new one!",
        "another",
        "another",
    ) == (["a new one", "another"], {"copy_of_real": 2, "copy_of_data": 1, "repeated": 2})


def test_empty_and_long():
    assert screened(" \n", "x" * 61, "x" * 60) == (["x" * 60], {"empty": 1, "too_long": 1})


def test_what_cannot_be_seen_is_empty_and_does_not_hide_a_copy():
    hidden = "w\u200bho h\u200bas wri\u200btten m\u200bost o\u200bf the rev\u200biews"
    joined = "how many ap\u2060ps have fr\u00adee reviews"
    kept = screened("\u200b\u2060 \x00", hidden, joined, "\u2615", "\x1b[2Ja new one")
    assert kept == (["\u2615", "\x1b[2Ja new one"], {"empty": 1, "copy_of_real": 2})


def test_labels_must_be_known():
    labels = LabelSet("kind", {"a": "a"}, (3,))
    form = RecordForm({"text": "x", "kind": "a"}, labels, 60)
    written: list[tuple[RecordForm, Record]] = [
        (form, {"text": f"text number {kind}", "kind": kind}) for kind in ("a", "b")
    ]
    kept = screen(written, DATA, (SHOWN, HELD_OUT))
    assert [record["kind"] for record in kept.records] == ["a"]
    assert kept.dropped == {"unknown_label": 1}


def test_nothing_and_one():
    assert screened() == ([], {})
    assert screened("one") == (["one"], {})


def test_every_example_is_counted_once():
    texts = [*sentences("real", 30, 1), *sentences("made", 30, 1), *SHOWN, *HELD_OUT, "", "x" * 99]
    kept, dropped = screened(*texts, *texts)
    assert len(kept) + sum(dropped.values()) == 2 * len(texts)


def test_words():
    assert dropped_words({}) == ""
    assert dropped_words({"unknown_label": 3}) == "3 label that the candidate does not have"
