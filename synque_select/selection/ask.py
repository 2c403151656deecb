"""Questions about real examples whose labels settle which candidate to train on, and the answers.

The answers say how often the head of each candidate is right on the real sample, which candidates
are worse than the others, and which of two camps is right. Every claim holds for any number of
answers, as the questions are drawn with known probabilities.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.answers import CANNOT_TELL, Question, QuestionSheet
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import content_key
from synque_select.data.families import judging_families
from synque_select.data.images import ImageFolder
from synque_select.data.label_sets import MAX_CLASSES, label_kind
from synque_select.errors import ConfigError, DataError
from synque_select.functional.active_selection import (
    Draws,
    closed_e_values,
    contest,
    differences_from_others,
    draw_questions,
    evidence_against,
    mean_interval,
    reading_differences,
    recorded_draws,
    weighted_mean,
)
from synque_select.selection.camps import Camps
from synque_select.selection.consensus import midranks
from synque_select.selection.label_filter import LabelJudges
from synque_select.selection.scoring import Scoring, labels_key
from synque_select.types import AnswerEvidence, ProxyInfo, ProxyScore, Ranking
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

__all__ = [
    "ANSWERS",
    "AnswerReport",
    "Panel",
    "assess",
    "check_answers",
    "check_askable",
    "panel_of",
    "with_answers",
]

ANSWERS = "answers"
_ALPHA = 0.05
_HASH_CHARS = 16


def check_askable(candidates: Sequence[Candidate]) -> None:
    """Refuse candidates that questions cannot be chosen for.

    Raises:
        ConfigError: A candidate has no labels, or they are not classes.
    """
    missing = [candidate.where for candidate in candidates if candidate.label is None]
    if missing:
        raise ConfigError(
            "questions are chosen by what classifiers of the candidates' labels disagree on: give "
            f"label= (--label on the command line), the field that holds them. Without it: "
            f"{', '.join(missing)}"
        )
    kind = label_kind([candidate.labels for candidate in candidates])
    if kind != "classes":
        raise ConfigError(
            "questions and answers need labels that are classes, one per example and at most "
            f"{MAX_CLASSES} of them; found {kind}"
        )


@dataclass(frozen=True, eq=False)
class Panel:
    """What the heads of all candidates predict on the real sample.

    Args:
        names: Names of the K candidates.
        classes: The C classes of all candidates.
        shares: (K, n, C) float64, share of a candidate's heads that predict each class.
        families: (K,) int64 family of each candidate.
        camps: Two camps of candidates whose labels contradict each other; None without.
        design: A hash of all that the predictions depend on, except the real sample and the seed.
        seed: Random seed of the heads.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    shares: NDArray[np.float64]
    families: NDArray[np.int64]
    camps: Camps | None
    design: str
    seed: int

    @classmethod
    def fit(
        cls,
        candidates: Sequence[Candidate],
        real: torch.Tensor,
        embeddings: Mapping[str, torch.Tensor],
        *,
        encoder: str,
        seed: int,
    ) -> Panel:
        """Fit the heads, as for the label filter, and let them predict the real sample.

        Args:
            candidates: Candidates with labels that are classes.
            real: (n, d) embeddings of the real sample.
            embeddings: Candidate name to embeddings, (N, d).
            encoder: What identifies the encoder.
            seed: Random seed of the heads.
        """
        names = [candidate.name for candidate in candidates]
        judges = LabelJudges.fit(
            {candidate.name: candidate.labels for candidate in candidates},
            {name: rows.cpu() for name, rows in embeddings.items()},
            families=dict(zip(names, judging_families(candidates), strict=True)),
            seed=seed,
            real=real.cpu(),
            contents={c.name: content_key(c.digests) for c in candidates},
        )
        assert judges.real is not None
        votes = np.eye(len(judges.classes))[judges.real]
        owners = judges.predictions.owners
        shares = [votes[owners == k].mean(0) for k in range(len(candidates))]
        state = [[(c.name, c.sha256) for c in candidates], labels_key(candidates), encoder]
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
        return cls(
            judges.names,
            judges.classes,
            np.stack(shares),
            judges.families,
            judges.camps(judges.names),
            digest[:_HASH_CHARS],
            seed,
        )

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(n,) scores that questions are drawn by.

        If there are two camps, which of them is right comes first: only examples that they read
        differently settle that, and one does as well as another.
        """
        if self.camps is None:
            return contest(self.shares, self.families)
        scores: NDArray[np.float64] = np.abs(self.readings).max(1)
        return scores

    @cached_property
    def readings(self) -> NDArray[np.float64]:
        """(n, C) which camp reads an example as a class; see `reading_differences`.

        All 0 where they do not read one as the other of two classes that they contradict each other
        about: elsewhere, single candidates decide what the majority of a camp reads.
        """
        assert self.camps is not None
        first = np.array([name in self.camps.names[0] for name in self.names])
        readings = reading_differences(self.shares, first)
        counted = np.zeros(len(readings), dtype=bool)
        for part in self.camps.contradictions:
            # in both directions: which of the two is more frequent in the real sample is unknown
            counted |= (readings[:, [part.label, part.read_as]] != 0).all(1)
        return readings * counted[:, None]

    def questions(self, real: RealSample, m: int) -> QuestionSheet:
        """Draw m questions about the real sample.

        Args:
            real: The real sample.
            m: Number of questions; all examples if there are fewer.
        """
        draws = draw_questions(self.scores, min(m, len(real)), seed=self.seed)
        questions = [
            Question(row, float(q), _shown(real, row))
            for row, q in zip(draws.rows.tolist(), draws.probabilities, strict=True)
        ]
        return QuestionSheet(
            tuple(questions), self.classes, self.seed, real.sha256[:_HASH_CHARS], self.design
        )


def _shown(real: RealSample, position: int) -> str:
    """Return what is labeled: a text, or where the image is."""
    if real.modality == "text":
        return str(real.views[position])
    if isinstance(real.dataset, ImageFolder):
        return str(real.dataset.file(position))
    name = getattr(real.views[position], "filename", "")
    return str(name) if name else f"image {position + 1} of {real.where}"


@dataclass(frozen=True)
class AnswerReport:
    """What answers say about the candidates.

    Args:
        accuracy: Candidate name to the share of the real sample on which its head is right, with
            a 95 % interval.
        evidence: Which candidates are shown worse, and which camp is right.
        n_unknown: Number of questions that could not be answered.
        message: A sentence about the answers that a reader must know; empty without.
    """

    accuracy: Mapping[str, ProxyScore]
    evidence: AnswerEvidence
    n_unknown: int
    message: str = ""


def panel_of(candidates: Sequence[Candidate], scoring: Scoring, seed: int) -> Panel:
    """Return the panel of scored candidates.

    Args:
        candidates: The scored candidates, with labels that are classes.
        scoring: Their scores, with embeddings.
        seed: Random seed of the heads.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    real, *others = scoring.embeddings("answers")
    names = [candidate.name for candidate in candidates]
    encoder = scoring.encoder
    return Panel.fit(
        candidates,
        real,
        dict(zip(names, others, strict=True)),
        encoder="" if encoder is None else f"{encoder.id}@{encoder.revision}",
        seed=seed,
    )


def check_answers(
    sheet: QuestionSheet,
    candidates: Sequence[Candidate],
    real: RealSample,
    where: str,
    *,
    needs_embeddings: bool,
) -> None:
    """Before anything is scored, refuse answers that say nothing about this data.

    Args:
        sheet: Questions with answers.
        candidates: The candidates.
        real: The real sample.
        where: The file of the answers, for messages.
        needs_embeddings: Whether a proxy of the suite uses embeddings.

    Raises:
        DataError: The questions are about another real sample, or none is answered.
        ConfigError: The candidates have no labels, they are not classes, or embeddings are missing.
    """
    check_askable(candidates)
    if not needs_embeddings:
        raise ConfigError("answers need embeddings: add a proxy that uses them, such as pad")
    here = real.sha256[:_HASH_CHARS]
    if sheet.real_sample != here:
        raise DataError(
            f"{where}: the questions are about another real sample (content hash "
            f"{sheet.real_sample}) than {real.where} ({here}): give the real sample and view that "
            "were asked about, or ask again"
        )
    if not any(q.label not in ("", CANNOT_TELL) for q in sheet.questions):
        raise DataError(
            f"{where}: none of its {counted(len(sheet.questions), 'question')} has an answer: "
            "fill in the "
            "column label"
        )


def assess(panel: Panel, sheet: QuestionSheet) -> AnswerReport:
    """Return what the answers say about the candidates of a panel.

    Args:
        panel: What the candidates' heads predict.
        sheet: Questions about the same real sample, with at least one answer.
    """
    n = panel.shares.shape[1]
    draws, message = _draws(panel, sheet, n)
    answers = _Answers.of(panel, sheet, draws)
    accuracy, below = {}, []
    differences = differences_from_others(panel.shares)
    bar = ProgressBar(panel.names, "answers", delay=2, leave=False, unit="candidate")
    for name, shares, difference in zip(bar, panel.shares, differences, strict=True):
        right = answers.values(shares)
        low, high = mean_interval(right, answers.given, draws, np.zeros(n), shares.max(1))
        value = float(weighted_mean(right, answers.given, draws, n))
        # the mean weights later draws more than the interval does, which may differ by a grid step
        accuracy[name] = ProxyScore(value, min(low, value), max(high, value))
        below.append(answers.evidence(difference)[1])
    shown = closed_e_values(np.array(below)) >= 1 / _ALPHA
    worse = [name for name, is_worse in zip(panel.names, shown, strict=True) if is_worse]
    n_given = int(answers.given.sum())
    evidence = AnswerEvidence(n_given, **_settled(panel, answers))
    worse = [name for name in worse if name not in evidence.wrong_camp]
    return AnswerReport(
        accuracy,
        replace(evidence, worse=tuple(worse)),
        n_unknown=len(answers.given) - n_given,
        message=message,
    )


def _draws(panel: Panel, sheet: QuestionSheet, n: int) -> tuple[Draws, str]:
    """Return the draws of the answered questions, and what limits what they can show."""
    asked = sheet.answered
    rows = np.array([question.example for question in asked])
    probabilities = np.array([question.probability for question in asked])
    if (sheet.design, sheet.seed) == (panel.design, panel.seed):
        try:
            return recorded_draws(rows, probabilities, n, panel.scores), ""
        except ValueError:
            changed = "with other embeddings"
    else:
        changed = "for other candidates, labels, families or another encoder"
    return recorded_draws(rows, probabilities, n), (
        f"The questions of the answers were drawn {changed}: the answers are valid, but their "
        "intervals are wider than those of new questions."
    )


@dataclass(frozen=True, eq=False)
class _Answers:
    """The answered questions, and which class each answer is.

    Args:
        draws: The draws, m of n examples.
        given: (m,) bool, whether the question could be answered.
        classes: (m,) int64 position of the class; -1 if no candidate has it, or without an answer.
    """

    draws: Draws
    given: NDArray[np.bool_]
    classes: NDArray[np.int64]

    @classmethod
    def of(cls, panel: Panel, sheet: QuestionSheet, draws: Draws) -> _Answers:
        places = {name: place for place, name in enumerate(panel.classes)}
        labels = [question.label for question in sheet.answered]
        return cls(
            draws,
            np.array([label != CANNOT_TELL for label in labels]),
            np.array([places.get(label, -1) for label in labels], dtype=np.int64),
        )

    def values(self, by_class: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value of each draw, of (n, C) values; 0 for a class that nobody has."""
        return np.where(self.classes >= 0, by_class[self.draws.rows, self.classes], 0.0)

    def evidence(self, by_class: NDArray[np.float64]) -> tuple[float, float]:
        """Return the evidence that the mean of (n, C) values is above 0, and below."""
        low, high = np.minimum(by_class.min(1), 0), np.maximum(by_class.max(1), 0)
        values = self.values(by_class)
        above, below = evidence_against(values, self.given, self.draws, low, high, np.zeros(1))
        return float(above[0]), float(below[0])


class _Camps(TypedDict, total=False):
    right_camp: tuple[str, ...]
    wrong_camp: tuple[str, ...]
    is_open: bool


def _settled(panel: Panel, answers: _Answers) -> _Camps:
    """Return which camp the answers support, if there are two."""
    if panel.camps is None:
        return {}
    first, second = panel.camps.names
    above, below = answers.evidence(panel.readings)
    # only one of the two claims can be false, so that each may have the whole error probability
    if max(above, below) < 1 / _ALPHA:
        return {"is_open": True}
    right, wrong = (first, second) if above > below else (second, first)
    return {"right_camp": right, "wrong_camp": wrong}


def with_answers(ranking: Ranking, report: AnswerReport) -> Ranking:
    """Return a ranking with the answers as a column; its order does not change.

    Args:
        ranking: A ranking without a decision.
        report: What the answers say about its candidates.
    """
    evidence = report.evidence
    values = [report.accuracy[row.name].value for row in ranking.candidates]
    ranks = midranks(torch.tensor(values, dtype=torch.float64), higher_is_better=True).tolist()
    rows = tuple(
        replace(
            row,
            scores={**row.scores, ANSWERS: report.accuracy[row.name]},
            ranks={**row.ranks, ANSWERS: rank},
        )
        for row, rank in zip(ranking.candidates, ranks, strict=True)
    )
    unknown = (
        f", without {counted(report.n_unknown, 'question')} that could not be answered"
        if report.n_unknown
        else ""
    )
    messages = (
        "answers: the share of your real examples that a classifier trained on the candidate "
        f"labels right, estimated from {counted(evidence.n, 'answer')}{unknown}. Answers to "
        "questions that were more likely to be asked count less. The intervals are for this real "
        "sample.",
        *((report.message,) if report.message else ()),
    )
    info = ProxyInfo(
        ANSWERS,
        higher_is_better=True,
        options={"n": evidence.n, "n_unknown": report.n_unknown},
        unit="accuracy",
        family=ANSWERS,
    )
    return replace(
        ranking,
        candidates=rows,
        proxies={**ranking.proxies, ANSWERS: info},
        messages=(*ranking.messages, *messages),
    )
