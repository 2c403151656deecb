"""Whether every candidate is far from the real sample, so that none should be trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from synque_select.functional.farness import distance_excess
from synque_select.selection.scoring import Scoring
from synque_select.types import Farness, ProxyScore

__all__ = ["measure_farness"]

_PAD = "pad"
# Two middles, fixed by reasoning rather than on data. The classifier's accuracy: between a guess
# (1/2) and certainty (1). The distance (`distance_excess`): between what the other real examples
# offer and what a random one of them does. Both must be exceeded, beyond chance: generated text
# often gives itself away by its style to a classifier, and trains well all the same, but it lies
# near the real examples.
_LEAST_ACCURACY = 0.75
_LEVEL = 0.95
_MOST_REAL = 2000


def measure_farness(scoring: Scoring, scores: Mapping[str, ProxyScore]) -> Farness | None:
    """Decide whether every candidate is far, from its PAD and its distances to the real examples.

    Every single candidate must be shown to be far. A test that demands this of all of them keeps
    its level without a correction for their number (intersection-union test).

    Args:
        scoring: The result of `score`.
        scores: Candidate name to its PAD; without the candidates that are never selected.

    Returns:
        How far the candidate with the lowest PAD is; None where PAD was not computed with its
        default protocol, or is undefined for a candidate.
    """
    proxies = {proxy.key: proxy for proxy in scoring.suite}
    pad = proxies.get(_PAD)
    if pad is None or pad.options().get("protocol") != "default" or not scores:
        return None
    lows = [math.nan if score.low is None else score.low for score in scores.values()]
    if not all(map(math.isfinite, lows)):
        return None
    nearest = min(scores, key=lambda name: scores[name].value)
    best = scores[nearest]
    reference = scoring.reference.get(_PAD, math.nan)
    is_far = min(map(_accuracy, lows)) >= _LEAST_ACCURACY and _are_distant(scoring, scores)
    return Farness(
        candidate=nearest,
        accuracy=_accuracy(best.value),
        low=_accuracy(math.nan if best.low is None else best.low),
        halves=_accuracy(reference),
        is_far=is_far,
    )


def _accuracy(pad: float) -> float:
    """Return the accuracy 1 − ε of the classifier, from 2 (1 − 2ε)."""
    return 0.5 + pad / 4


def _are_distant(scoring: Scoring, scores: Mapping[str, ProxyScore]) -> bool:
    """Whether the distance excess of every candidate is above 0, beyond chance."""
    real, *parts = scoring.embeddings("the distance to the real sample")
    # all pairs of real examples are compared: more of them would not fit into memory
    rows = np.random.default_rng(scoring.seed).permutation(len(real))[:_MOST_REAL]
    real = real[np.sort(rows)]
    groups = None
    if scoring.groups is not None:
        groups = np.unique(scoring.groups[np.sort(rows)], return_inverse=True)[1]
    numbers = None if groups is None else torch.from_numpy(groups)
    return all(
        _lower_end(distance_excess(real.float(), part.float(), numbers), groups) > 0
        for candidate, part in zip(scoring.candidates, parts, strict=True)
        if candidate.name in scores
    )


def _lower_end(values: torch.Tensor, groups: NDArray[np.int64] | None) -> float:
    """Return the lower end of the one-sided interval of a mean, over independent groups."""
    excess = values.cpu().numpy()
    n = len(excess)
    numbers = np.arange(n) if groups is None else groups
    # a mean is a ratio of two sums over groups: the error is that of the sums' residuals
    residuals = np.bincount(numbers, excess - excess.mean())
    n_groups = len(residuals)
    if n_groups < 2:
        return math.nan
    error = math.sqrt(n_groups / (n_groups - 1) * float((residuals**2).sum())) / n
    return float(excess.mean() - student_t.ppf(_LEVEL, n_groups - 1) * error)
