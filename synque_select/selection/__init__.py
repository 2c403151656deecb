"""From proxies' scores to a ranking, and from a ranking to a mixture."""

from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.gaps import gap_map
from synque_select.selection.labels import check_labels
from synque_select.selection.mixture import (
    MixtureOptions,
    mixture_scores,
    mmd_optimal_mixture,
    score_proportional_mixture,
    with_mixture,
)
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scorer import Scorer, rank
from synque_select.selection.scoring import Scoring

__all__ = [
    "MixtureOptions",
    "Scorer",
    "Scoring",
    "check_labels",
    "gap_map",
    "mixture_scores",
    "mmd_optimal_mixture",
    "rank",
    "sample_size_analysis",
    "score_proportional_mixture",
    "with_example_scores",
    "with_mixture",
]
