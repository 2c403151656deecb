"""Questions about a real sample, and what their answers do to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synque_select.data.answers import CANNOT_TELL, QuestionSheet, write_questions
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.sources import load_real
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.selection.ask import Panel, assess, check_askable, panel_of
from synque_select.selection.scorer import Scorer

N_REAL = 60
WORDS = ("stocks fall bank", "match goal team", "film actor scene")
OTHER = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Words(BaseEncoder):
    """A bag of words: one dimension per word of the classes, and one for the others."""

    id, modality = "words", "text"

    def encode(self, views: Sequence[str]) -> torch.Tensor:
        known = " ".join(WORDS).split()
        rows = [[float(word in view.split()) for word in known] for view in views]
        rest = [[float(word in view.split()) for word in OTHER] for view in views]
        return torch.tensor([[*a, *b] for a, b in zip(rows, rest, strict=True)])


def texts(seed: int, n: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, n)
    made = []
    for c in classes:
        own = rng.choice(WORDS[c].split(), 2)
        made.append(" ".join([*own, *rng.choice(OTHER, 3), str(rng.integers(10_000))]))
    return made, classes


def candidate(name: str, seed: int, mapping: tuple[int, int, int] = (0, 1, 2)) -> Candidate:
    views, classes = texts(seed, 90)
    rows = [{"text": t, "label": f"c{mapping[c]}"} for t, c in zip(views, classes, strict=True)]
    return Candidate(name, rows, "text", "label")


def camps() -> list[Candidate]:
    wrong = [candidate(f"wrong{i}", i, (1, 0, 2)) for i in range(5)]
    return [*wrong, *(candidate(f"right{i}", 10 + i) for i in range(4))]


REAL_TEXTS, TRUTH = texts(99, N_REAL)
REAL = RealSample("real", REAL_TEXTS)


def panel(candidates: list[Candidate], seed: int = 0) -> Panel:
    encoder = Words()
    real, *rows = (encoder.encode(list(e.views)) for e in (REAL, *candidates))
    embeddings = dict(zip([c.name for c in candidates], rows, strict=True))
    return Panel.fit(candidates, real, embeddings, encoder="hashing", seed=seed)


def answered(sheet: QuestionSheet, n: int | None = None) -> QuestionSheet:
    for i, question in enumerate(sheet.questions[:n]):
        sheet = sheet.with_label(i, f"c{TRUTH[question.example]}")
    return sheet


def test_camps_are_asked_about_first_and_decided():
    judges = panel(camps())
    assert judges.camps is not None
    sheet = judges.questions(REAL, 20)
    assert [q.text for q in sheet.questions] == [REAL_TEXTS[q.example] for q in sheet.questions]
    contradicted = [judges.scores[q.example] > 0 for q in sheet.questions]
    assert np.mean(contradicted) > np.mean(judges.scores > 0)
    report = assess(judges, answered(sheet))
    assert set(report.evidence.wrong_camp) == {f"wrong{i}" for i in range(5)}
    assert report.evidence.left_out == report.evidence.wrong_camp
    assert report.message == ""
    for name, score in report.accuracy.items():
        assert score.low <= score.value <= score.high
        assert (score.value > 0.8) == name.startswith("right")


def test_few_answers_do_not_decide():
    judges = panel(camps())
    report = assess(judges, answered(judges.questions(REAL, 12), 3))
    assert report.evidence.n == 3
    assert report.evidence.is_open
    assert report.evidence.left_out == ()


def test_one_candidate_with_other_labels_is_shown_worse():
    candidates = [*(candidate(f"right{i}", i) for i in range(4)), candidate("odd", 9, (1, 2, 0))]
    judges = panel(candidates)
    assert judges.camps is None
    report = assess(judges, answered(judges.questions(REAL, 30)))
    assert report.evidence.worse == ("odd",)


def test_answers_for_other_candidates_are_valid_but_may_show_less():
    sheet = answered(panel(camps()).questions(REAL, 20))
    others = [c for c in camps() if c.name != "wrong0"]
    report = assess(panel(others), sheet)
    assert "drawn for other candidates" in report.message
    exact, name = assess(panel(camps()), sheet), "right1"
    assert report.accuracy[name].low <= exact.accuracy[name].low
    assert report.accuracy[name].value == exact.accuracy[name].value
    changed = replace(sheet, questions=tuple(replace(q, probability=0.5) for q in sheet.questions))
    assert "other embeddings" in assess(panel(camps()), changed).message


def test_what_cannot_be_told_is_counted_apart():
    judges = panel(camps())
    sheet = answered(judges.questions(REAL, 20)).with_label(4, CANNOT_TELL)
    report = assess(judges, sheet)
    assert (report.evidence.n, report.n_unknown) == (19, 1)


def test_a_seed_gives_the_same_questions_and_more_of_them():
    few, more = panel(camps()).questions(REAL, 5), panel(camps()).questions(REAL, 15)
    assert more.questions[:5] == few.questions
    assert len(panel(camps()).questions(REAL, 500).questions) == N_REAL
    assert panel(camps(), seed=1).questions(REAL, 5) != few


def scorer(path: Path | None, folder: Path) -> Scorer:
    return Scorer(
        ["pad", "ngram"], encoder=Words(), cache_dir=folder, progress=False, answers=path,
        n_resamples=200, keep_models=True,
    )  # fmt: skip


def test_the_ranking_has_the_answers_and_decides_by_them(tmp_path: Path):
    first = scorer(None, tmp_path)
    scoring = first.score(camps(), REAL)
    sheet = panel_of(camps(), scoring, 0).questions(REAL, 24)
    path = tmp_path / "answers.csv"
    write_questions(path, answered(sheet))
    ranking = scorer(path, tmp_path).rank(camps(), REAL)
    assert ranking.decision is not None
    assert ranking.decision.opening == "answers"
    assert set(ranking.top().names) == {f"right{i}" for i in range(4)}
    assert "by your 24 answers" in ranking.decision.sentence
    assert "answers" not in first.rank(camps(), REAL).proxies
    save_ranking(ranking, tmp_path / "ranking.json")
    again = load_ranking(tmp_path / "ranking.json")
    assert again.decision == ranking.decision
    assert again["right0"].scores["answers"] == ranking["right0"].scores["answers"]
    assert [proxy["key"] for proxy in Scorer.like(again).proxies or ()] == ["pad", "ngram"]
    # the cache knows the answers
    cached, _ = scorer(path, tmp_path).cached_selection(camps(), REAL)
    assert cached.decision == ranking.decision
    write_questions(path, answered(sheet, 3))
    fewer, _ = scorer(path, tmp_path).cached_selection(camps(), REAL)
    assert fewer.decision is not None
    assert fewer.decision.opening != "answers"


def test_answers_to_other_data_are_refused(tmp_path: Path):
    path = tmp_path / "answers.csv"
    sheet = panel(camps()).questions(REAL, 5)
    write_questions(path, answered(sheet))
    other = RealSample("other", REAL_TEXTS[1:])
    with pytest.raises(
        DataError, match=r"answers.csv: the questions are about another real sample"
    ):
        scorer(path, tmp_path).prepare(camps(), other)
    write_questions(path, sheet)
    with pytest.raises(DataError, match="none of its 5 questions has an answer"):
        scorer(path, tmp_path).prepare(camps(), REAL)
    write_questions(path, answered(sheet))
    with pytest.raises(ConfigError, match="answers need embeddings"):
        replace(scorer(path, tmp_path), proxies=["ngram"]).prepare(camps(), REAL)


def test_labels_must_be_classes():
    unlabeled = [replace(c, label=None) for c in camps()]
    with pytest.raises(ConfigError, match="give label="):
        check_askable(unlabeled)
    numbers = [
        Candidate("a", [{"text": "x", "label": 0.5}, {"text": "y", "label": 0.25}], "text", "label")
    ]
    with pytest.raises(ConfigError, match="found numbers"):
        check_askable(numbers)


def test_an_image_is_shown_as_its_path(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    for i in range(3):
        image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    real = load_real(tmp_path)
    shares = np.eye(2)[[[0, 0, 0], [0, 1, 1]]]
    judges = Panel(("a", "b"), ("x", "y"), shares, np.arange(2), None, "design", 0)
    texts_shown = {q.text for q in judges.questions(real, 3).questions}
    assert texts_shown == {str(tmp_path / f"{i}.png") for i in range(3)}
