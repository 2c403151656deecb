"""The decision of a ranking, as the lines that stand before its tables."""

from __future__ import annotations

from synque_select.functional.correlation import Correlation
from synque_select.report.ranking_tables import reliability_words
from synque_select.report.table import terminal_width, wrap_text
from synque_select.types import Ranking
from synque_select.utils.wording import listed

__all__ = ["decision_lines", "decision_text"]


def decision_lines(ranking: Ranking, reliability: Correlation | None = None) -> list[str]:
    """Return the sentence of the decision, its reasons, and how far `rank_by` can be trusted.

    A ranking of an old file has no decision; the line then says what it selects.

    Args:
        ranking: The ranking.
        reliability: Measured correlation of the ranking's `rank_by` with validation on this task;
            None if it was not measured.
    """
    words = reliability_words(ranking.rank_by, reliability)
    trust = f"{words[0].upper()}{words[1:]}."
    if ranking.decision is not None:
        return [ranking.decision.sentence, *ranking.decision.reasons, trust]
    mixture = ranking.top()
    return [f"Train on {listed(mixture.names, 12)}: {mixture.source}.", trust]


def decision_text(
    ranking: Ranking, width: int | None = None, *, reliability: Correlation | None = None
) -> str:
    """Return the same as plain text for a terminal.

    Args:
        ranking: The ranking.
        width: Width in characters; None for that of the terminal, 100 without one.
        reliability: As for `decision_lines`.
    """
    width = width or terminal_width()
    lines = decision_lines(ranking, reliability)
    return "\n".join(line for text in lines for line in wrap_text(text, width))
