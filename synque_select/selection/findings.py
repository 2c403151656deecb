"""What scoring finds beside the order: gaps, label checks, whether more real examples would help.

The selection writes each of them to a JSON file in the run's directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from synque_select.data.preview import shown_view
from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import BaseProxy
from synque_select.selection.gaps import gap_map
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scoring import Scoring
from synque_select.types import Findings, Gaps, LabelChecks, ProxyInfo, ShownGap
from synque_select.types.decision import LEAST_REAL

__all__ = [
    "as_argument",
    "check_embeds",
    "check_sample_sizes",
    "find_gaps",
    "scoring_findings",
]


def as_argument(name: str, value: object = None) -> str:
    """Return how an argument is written in Python, for messages.

    Example:
        >>> as_argument("gaps"), as_argument("rank_by", "pad")
        ('gaps', "rank_by='pad'")
    """
    return name if value is None else f"{name}={value!r}"


def check_embeds(suite: Sequence[BaseProxy], asked: str, example: str) -> None:
    """Before anything is scored, reject a request that needs embeddings if no proxy uses them.

    Args:
        suite: The proxies.
        asked: The request, as it was written.
        example: Key of a proxy that would do.

    Raises:
        ConfigError: No proxy of the suite uses embeddings.
    """
    if not any(proxy.needs_embeddings for proxy in suite):
        raise ConfigError(
            f"{asked} needs embeddings: add a proxy that uses them, such as {example}"
        )


def check_sample_sizes(
    suite: Sequence[BaseProxy],
    *,
    n_real: int,
    n_candidates: int,
    rank_by: str | None,
    top_k: int | None,
    written: Callable[..., str] = as_argument,
) -> None:
    """Before anything is scored, reject a sample-size analysis that would not be possible.

    Args:
        suite: The proxies.
        n_real: Size of the real sample.
        n_candidates: Number of candidates.
        rank_by: What orders the candidates, if it was given.
        top_k: How many are selected, if it was given.
        written: How an argument is written where it was given: its name, and its value unless that
            is None.

    Raises:
        ConfigError: It would not be possible.
    """
    asked = written("sample_size_analysis")
    if n_real < LEAST_REAL:
        raise ConfigError(
            f"{asked} compares halves of the real sample: it needs {LEAST_REAL} examples, found "
            f"{n_real}"
        )
    for proxy in suite:
        info = ProxyInfo(proxy.key, proxy.higher_is_better, family=proxy.family)
        if proxy.key == rank_by and (info.reads_labels or not info.reads_real):
            reason = (
                "the candidates judge each other there"
                if info.reads_labels
                else f"{rank_by} never reads the real sample"
            )
            raise ConfigError(
                f"{asked} is not possible with {written('rank_by', rank_by)}: {reason}; rank by "
                "another proxy, such as mmd or pad"
            )
    if n_candidates < 2:
        raise ConfigError(f"{asked} needs at least 2 candidates that can be compared; found 1")
    if top_k is not None and top_k >= n_candidates:
        raise ConfigError(
            f"{asked} needs {written('top_k')} below {n_candidates}, or all are selected"
        )


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
