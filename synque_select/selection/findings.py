"""What scoring finds beside the order: gaps, label checks, whether more real examples would help.

The selection writes each of them to a JSON file in the run's directory.
"""

from __future__ import annotations

import contextlib

from synque_select.data.preview import shown_view
from synque_select.errors import ConfigError, ProxyError
from synque_select.selection.gaps import gap_map
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scoring import Scoring
from synque_select.types import Findings, Gaps, LabelChecks, ShownGap

__all__ = ["find_gaps", "scoring_findings"]


def scoring_findings(
    scoring: Scoring,
    labels: LabelChecks | None,
    *,
    top_k: int,
    rank_by: str | None,
) -> Findings:
    """Return everything that can be found; what cannot be computed is None.

    Args:
        scoring: The result of `score`.
        labels: The label checks; None without.
        top_k: How many candidates are selected.
        rank_by: As in `rank`.
    """
    sizes = None
    # not computed if all candidates are selected, or if what ranks has no contribution of each
    # real example
    with contextlib.suppress(ConfigError, ProxyError):
        sizes = sample_size_analysis(scoring, top_k=top_k, rank_by=rank_by)
    return Findings(
        labels=labels,
        gaps=None if scoring.real.embeddings is None else find_gaps(scoring),
        real_size=sizes,
    )


def find_gaps(scoring: Scoring, *, n_shown: int = 8) -> Gaps:
    """Count the real examples that no candidate covers, and show the worst with their neighbors.

    Args:
        scoring: The result of `score`, with embeddings.
        n_shown: Maximum number of real examples to show.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    gaps = gap_map(scoring)
    parts = {part.name: part for part in scoring.candidates}
    uncovered = [gap for gap in gaps if not gap.covered]
    worst = tuple(
        ShownGap(
            **vars(gap),
            real_view=shown_view(scoring.real.views[gap.real]),
            synthetic_view=shown_view(parts[gap.candidate].views[gap.synthetic]),
        )
        for gap in uncovered[:n_shown]
    )
    return Gaps(n_real=len(gaps), n_uncovered=len(uncovered), worst=worst)
