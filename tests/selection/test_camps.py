"""Two camps of candidates that contradict each other, and what does not make a camp."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synque_select.data.sources import load_candidates
from synque_select.encoders import embed, get_encoder
from synque_select.functional.camps import (
    class_readings,
    judges_of,
    split_by_agreement,
    systematic_contradictions,
)
from synque_select.functional.label_consistency import Predictions
from synque_select.selection.camps import find_camps
from synque_select.selection.label_filter import LabelJudges
from synque_select.types import ContestedExample

RELEASED = os.environ.get("SYNQUE_BENCHMARK_DATA")
CLASSES = ("fall", "hold", "rise")
SWAP = np.array([1, 0, 2])
N = 60


def heads_of(readings: list[np.ndarray], *, noise: float = 0.1) -> tuple[Predictions, list]:
    """Candidates that label true classes as given, and heads that have learned to do the same."""
    rng = np.random.default_rng(0)
    truth = [np.arange(N) % 3 for _ in readings]
    labels = [reading[y] for reading, y in zip(readings, truth, strict=True)]
    classes = tuple(
        np.stack(
            [
                np.where(rng.random(N) < noise, rng.integers(0, 3, N), reading[y])
                for reading in readings
            ]
        ).astype(np.int16)
        for y in truth
    )
    known = np.ones((len(readings), 3), dtype=bool)
    return Predictions(classes, np.arange(len(readings)), known), labels


def camps_of(readings: list[np.ndarray], noise: float = 0.1):
    predictions, labels = heads_of(readings, noise=noise)
    names = [f"c{i}" for i in range(len(readings))]
    return find_camps(predictions, labels, names=names, classes=CLASSES)


@pytest.mark.parametrize("swapped", [[0, 1], [0, 2, 4, 6, 8], [1, 2, 3, 4, 5, 6, 7]])
def test_candidates_with_two_classes_exchanged_are_a_camp(swapped):
    camps = camps_of([SWAP if i in swapped else np.arange(3) for i in range(9)])
    assert {f"c{i}" for i in swapped} in [set(part) for part in camps.names]
    assert {(one.label, one.read_as) for one in camps.contradictions} == {(0, 1), (1, 0)}
    assert all(one.share > 0.8 and one.own_support > 0.8 for one in camps.contradictions)


def test_the_sentence_says_who_and_which_class_and_names_twenty_examples():
    camps = camps_of([SWAP if i < 2 else np.arange(3) for i in range(5)], noise=0.0)
    assert len(camps.examples) == 20
    assert len(set(camps.examples)) == 20
    assert "c0, c1" in camps.sentence
    assert "'fall'" in camps.sentence
    assert "'hold'" in camps.sentence
    name, numbers = camps.examples[0][0], [i for _, i in camps.examples]
    views = {f"c{k}": [f"text\n{i} {'x' * 90}" for i in range(N)] for k in range(5)}
    sentence, advice = camps.messages(views)
    assert sentence == f"{camps.sentence}."
    assert f"Or read examples of {name}, counted from 0, that it labels " in advice
    assert f": {numbers[0]}: 'text {numbers[0]} xxx" in advice
    assert "...'; and " in advice
    everything = " All 20 are in labels.json (--json), with both readings."
    assert advice.endswith(f"; and {', '.join(map(str, numbers[3:]))}.{everything}")
    images = camps.messages({f"c{k}": [Image.new("L", (4, 4))] * N for k in range(5)})[1]
    assert images.endswith(f": {', '.join(map(str, numbers))}.{everything}")
    largest = camps.contradictions[0]
    assert camps.contested(views) == tuple(
        ContestedExample(name, i, views[name][i], CLASSES[largest.label], CLASSES[largest.read_as])
        for name, i in camps.examples
    )


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
def test_candidates_that_agree_have_no_camps_however_noisy_the_heads_are(noise):
    assert camps_of([np.arange(3)] * 9, noise) is None


def test_one_bad_candidate_is_an_outlier_not_a_camp():
    assert camps_of([SWAP] + [np.arange(3)] * 8) is None


@pytest.mark.parametrize("renamed", [[0, 1, 2], [0, 2, 4, 6, 8]])
def test_a_class_that_a_part_gives_the_name_of_another_is_a_contradiction(renamed):
    joined = np.array([1, 1, 2])
    readings = [joined if i in renamed else np.arange(3) for i in range(9)]
    predictions, labels = heads_of(readings)
    known = predictions.known.copy()
    known[renamed, 0] = False
    predictions = Predictions(predictions.classes, predictions.owners, known)
    names = [f"c{i}" for i in range(9)]
    camps = find_camps(predictions, labels, names=names, classes=CLASSES)
    assert {f"c{i}" for i in renamed} in [set(part) for part in camps.names]
    (one,) = camps.contradictions
    assert (one.label, one.read_as, one.is_renamed) == (1, 0, True)
    assert one.share == pytest.approx(0.5, abs=0.1)
    assert " give 'fall' the name 'hold' (classifiers trained on " in camps.sentence
    assert camps.sentence.split(": ")[1].startswith(f"c{renamed[0]}, c{renamed[1]}")


def test_a_class_that_a_part_does_not_have_is_no_contradiction():
    """Nothing like it was generated, and the others' heads know their other classes."""
    predictions, labels = heads_of([np.arange(3)] * 8)
    known = predictions.known.copy()
    known[:4, 0] = False
    left = [y != 0 if k < 4 else np.full(N, True) for k, y in enumerate(labels)]
    classes = tuple(part[:, rows] for part, rows in zip(predictions.classes, left, strict=True))
    labels = [y[rows] for y, rows in zip(labels, left, strict=True)]
    predictions = Predictions(classes, predictions.owners, known)
    assert find_camps(predictions, labels, names="abcdefgh", classes=CLASSES) is None


def two_parts(across: float, coherence: float) -> np.ndarray:
    """Readings of 3 candidates (0) and 4 others (1) that exchange two classes."""
    readings = np.empty((7, 7, 2, 2))
    readings[:] = [[0.9, 0.1], [0.1, 0.9]]
    readings[:3, 3:] = [[1 - across, across], [0.9, 0.1]]
    readings[3:, :3] = [[0.1, 0.9], [0.9, 0.1]]
    readings[:3, :3, 1] = [1 - coherence, coherence]
    readings[range(7), range(7)] = np.nan
    return readings


def test_one_bad_candidate_among_the_others_makes_no_camps():
    part = np.arange(7) >= 3
    readings = two_parts(across=0.6, coherence=0.9)
    contradictions = systematic_contradictions(readings, part)
    readings_of = [(one.readers, one.label, one.read_as, one.share) for one in contradictions]
    assert readings_of == [(0, 1, 0, 0.9), (1, 0, 1, 0.9), (1, 1, 0, 0.9), (0, 0, 1, 0.6)]
    readings[:3, 3:, 0] = [0.55, 0.45]
    readings[:3, 6, 0] = [0.05, 0.95]  # the mean over the others is above a half, the median is not
    assert readings[:3, 3:, 0, 1].mean() > 0.5
    contradictions = systematic_contradictions(readings, part)
    assert (0, 0, 1) not in [(one.readers, one.label, one.read_as) for one in contradictions]


def test_a_graded_difference_is_no_contradiction():
    """One part calls more examples positive: its heads move all examples towards one class."""
    part = np.arange(7) >= 3
    readings = two_parts(across=0.6, coherence=0.9)
    assert len(systematic_contradictions(readings, part)) == 4
    readings[:3, 3:] = [[0.3, 0.7], [0.05, 0.95]]
    readings[3:, :3] = [[0.95, 0.05], [0.7, 0.3]]
    assert systematic_contradictions(readings, part) == []


def test_a_class_that_only_one_part_reads_differently_is_no_contradiction():
    """That the others read the second class as the first says the same from the other side."""
    part = np.arange(7) >= 3
    readings = two_parts(across=0.6, coherence=0.9)
    readings[3:, :3] = [[0.9, 0.1], [0.1, 0.9]]
    assert systematic_contradictions(readings, part) == []


def test_readers_that_do_not_predict_each_other_say_nothing_about_a_class():
    part = np.arange(7) >= 3
    contradictions = systematic_contradictions(two_parts(across=0.6, coherence=0.45), part)
    assert [(one.readers, one.label, one.read_as) for one in contradictions] == [
        (0, 1, 0),
        (1, 0, 1),
    ]


def test_heads_that_always_say_one_class_are_no_camp():
    """Two candidates with shuffled labels may predict the same class for everything."""
    part = np.arange(7) >= 3
    readings = two_parts(across=0.6, coherence=0.9)
    readings[:3, :3, 0] = [0.1, 0.9]
    readings[range(7), range(7)] = np.nan
    assert systematic_contradictions(readings, part) == []


def test_random_labels_are_no_camp_for_the_others_to_read_differently():
    part = np.arange(7) >= 3
    readings = two_parts(across=0.6, coherence=0.9)
    readings[3:, 3:, 1] = [0.9, 0.1]  # the others call nearly everything class 0
    readings[range(7), range(7)] = np.nan
    assert systematic_contradictions(readings, part) == []


def judged_by(predictions: Predictions, judges: np.ndarray) -> Predictions:
    """What some candidates' heads predict."""
    classes = tuple(part[judges] for part in predictions.classes)
    return Predictions(classes, predictions.owners[judges], predictions.known[judges])


@pytest.mark.parametrize("seed", range(5))
def test_a_part_of_the_candidates_finds_the_camps_of_all(seed: int):
    rng = np.random.default_rng(seed)
    is_swapped = rng.random(60) < 0.3
    predictions, labels = heads_of([SWAP if one else np.arange(3) for one in is_swapped], noise=0.4)
    judges = np.sort(rng.choice(60, 20, replace=False))
    few = judged_by(predictions, judges)
    readings = class_readings(predictions, labels)
    assert judges_of(few).tolist() == judges.tolist()
    assert np.array_equal(class_readings(few, labels), readings[judges], equal_nan=True)
    camp = split_by_agreement(readings[judges], judges)
    assert np.array_equal(camp, is_swapped) or np.array_equal(camp, ~is_swapped)

    names = [f"c{i}" for i in range(60)]
    by_all = find_camps(predictions, labels, names=names, classes=CLASSES)
    by_few = find_camps(few, labels, names=names, classes=CLASSES)
    assert {*by_all.names} == {*by_few.names}
    pairs = [{(o.label, o.read_as) for o in c.contradictions} for c in (by_all, by_few)]
    assert pairs == [{(0, 1), (1, 0)}] * 2


def test_a_part_of_the_candidates_finds_a_renamed_class():
    renamed = np.array([0, 0, 2])
    predictions, labels = heads_of([renamed if i % 3 else np.arange(3) for i in range(30)])
    few = judged_by(predictions, np.arange(0, 30, 2))
    names = [f"c{i}" for i in range(30)]
    by_all, by_few = (
        find_camps(each, labels, names=names, classes=CLASSES) for each in (predictions, few)
    )
    assert by_all.contradictions[0].is_renamed
    assert by_all.names == by_few.names


def test_a_camp_of_which_one_candidate_judges_is_not_found():
    predictions, labels = heads_of([SWAP] * 6 + [np.arange(3)] * 6)
    few = judged_by(predictions, np.arange(5, 12))
    assert find_camps(few, labels, names="abcdefghijkl", classes=CLASSES) is None


def test_copies_of_each_other_do_not_vouch_for_each_other():
    """A head knows the examples that it was trained on, whatever their labels mean."""
    predictions, labels = heads_of([SWAP, SWAP, np.arange(3), np.arange(3), np.arange(3)])
    names = list("abcde")
    assert find_camps(predictions, labels, names=names, classes=CLASSES) is not None
    contents = [b"x", b"x", b"1", b"2", b"3"]
    assert find_camps(predictions, labels, names=names, classes=CLASSES, contents=contents) is None


def test_fewer_than_four_candidates_have_no_camps():
    assert camps_of([SWAP, SWAP, np.arange(3)]) is None


def test_a_class_that_nobody_understands_is_no_contradiction():
    predictions, labels = heads_of([np.arange(3)] * 6)
    # every head gives class 0 to class 1, those of its own side as well
    classes = tuple(np.where(part == 0, 1, part).astype(np.int16) for part in predictions.classes)
    readings = class_readings(Predictions(classes, predictions.owners, predictions.known), labels)
    assert systematic_contradictions(readings, np.arange(6) < 3) == []


def test_a_head_that_has_never_seen_a_class_does_not_contradict_it():
    predictions, labels = heads_of([np.arange(3)] * 4)
    known = predictions.known.copy()
    known[:2, 0] = False
    readings = class_readings(Predictions(predictions.classes, predictions.owners, known), labels)
    assert np.isnan(readings[:2, 2:, 0]).all()
    assert np.isfinite(readings[2:, :2, 0]).all()


def test_where_no_candidate_judges_another_there_are_no_camps():
    """Four candidates with the same inputs know each other's labels."""
    heads = np.zeros((4, 6), dtype=np.int16)
    predictions = Predictions((heads,) * 4, np.arange(4), np.ones((4, 2), dtype=bool))
    labels = [np.array([0, 1] * 3)] * 4
    assert find_camps(predictions, labels, names="abcd", classes="xy", contents=[b""] * 4) is None


@pytest.mark.slow
@pytest.mark.skipif(RELEASED is None, reason="SYNQUE_BENCHMARK_DATA is not set")
def test_five_released_files_as_they_are_have_no_camps_and_exchanged_ones_do():
    """Some call more headlines neutral than others, which is a graded difference."""
    folder = Path(str(RELEASED)) / "sentiment_analysis" / "synthetic_data"
    kinds = ("few-shot_bg", "few-shot", "zero-shot_bg", "zero-shot", "zero-shot_bg_test-time-info")
    paths = [folder / f"llama3.1-8b_{kind}_v1.json" for kind in kinds]
    candidates = load_candidates(paths, view="headline", label="sentiment")
    encoder = get_encoder(None, "text")
    rows = {c.name: embed(encoder, c).embeddings.float() for c in candidates}
    labels = {c.name: list(c.labels) for c in candidates}
    assert LabelJudges.fit(labels, rows, seed=42).all_camps is None
    first, second, _ = sorted({label for part in labels.values() for label in part})
    swap = {first: second, second: first}
    wrong = {c.name: [swap.get(label, label) for label in c.labels] for c in candidates[:3]}
    camps = LabelJudges.fit({**labels, **wrong}, rows, seed=42).all_camps
    assert camps is not None
    assert set(wrong) in [set(part) for part in camps.names]
