"""The decision of a ranking, as the lines that stand before its tables."""

from __future__ import annotations

from synque_select.types import Ranking
from synque_select.utils.wording import listed

__all__ = ["decision_lines"]


def decision_lines(ranking: Ranking) -> list[str]:
    """Return the sentence of the decision and its reasons.

    A ranking of an old file has no decision; the line then says what it selects.
    """
    if ranking.decision is not None:
        return [ranking.decision.sentence, *ranking.decision.reasons]
    mixture = ranking.top()
    return [f"Train on {listed(mixture.names, 12)}: {mixture.source}."]
