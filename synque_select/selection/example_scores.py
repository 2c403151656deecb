"""Scores of single examples: which look most like the real sample, whose label is supported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.selection.label_filter import can_judge, label_consistency
from synque_select.selection.scoring import Scoring

__all__ = ["with_example_scores"]

_KEY = "label_consistency"


def with_example_scores(candidates: Sequence[Candidate], scoring: Scoring) -> list[Candidate]:
    """Return the candidates with the realness of each example by every proxy that computes it.

    If all candidates have labels that are classes, and a proxy uses embeddings, there is one more
    score, "label_consistency": the share of the other candidates' classifiers that predict the
    example's label, weighted by their score by `transfer` if it is in the suite.

    Args:
        candidates: The candidates that were to be scored, in the same order; those of
            `Scoring.degenerate` stay as they are.
        scoring: The result of `Scorer.score` for them.

    Returns:
        Copies with `example_scores` set, ready for `Candidate.filter`.

    Raises:
        ConfigError: The candidates are not those of the scoring.
    """
    aside = {part.candidate.name for part in scoring.degenerate}
    names = [candidate.name for candidate in candidates if candidate.name not in aside]
    scored = [candidate.name for candidate in scoring.candidates]
    if names != scored:
        raise ConfigError(f"the scored candidates are {', '.join(scored)}; got {', '.join(names)}")
    compared = [candidate for candidate in candidates if candidate.name not in aside]
    consistency = _consistency(compared, scoring)
    scores_of = {
        name: {
            key: scores.example_scores(i).cpu().double().numpy()
            for key, scores in scoring.scores.items()
            if scores.example_scores is not None
        }
        | consistency.get(name, {})
        for i, name in enumerate(scored)
    }
    return [
        dataclasses.replace(
            candidate, view=candidate.selector, example_scores=scores_of[candidate.name]
        )
        if candidate.name in scores_of
        else candidate
        for candidate in candidates
    ]


def _consistency(
    candidates: Sequence[Candidate], scoring: Scoring
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the score by label of each candidate; nothing if labels cannot be judged."""
    if not can_judge(candidates, scoring):
        return {}
    return {name: {_KEY: each} for name, each in label_consistency(candidates, scoring).items()}
