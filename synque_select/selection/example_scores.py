"""Realness of single examples: which ones of a candidate look most like the real sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.selection.scoring import Scoring

__all__ = ["with_example_scores"]


def with_example_scores(candidates: Sequence[Candidate], scoring: Scoring) -> list[Candidate]:
    """Return the candidates with the realness of each example by every proxy that computes it.

    Args:
        candidates: The scored candidates, in the same order.
        scoring: The result of `Scorer.score` for them.

    Returns:
        Copies with `example_scores` set, ready for `Candidate.filter`.

    Raises:
        ConfigError: The candidates are not those of the scoring.
    """
    names = [candidate.name for candidate in candidates]
    scored = [candidate.name for candidate in scoring.candidates]
    if names != scored:
        raise ConfigError(f"the scored candidates are {', '.join(scored)}; got {', '.join(names)}")
    return [
        dataclasses.replace(
            candidate,
            view=candidate.selector,
            example_scores={
                key: scores.example_scores(i).cpu().double().numpy()
                for key, scores in scoring.scores.items()
                if scores.example_scores is not None
            },
        )
        for i, candidate in enumerate(candidates)
    ]
