"""Which candidates are far from the real sample; if all are, none should be trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.special import ndtri, stdtrit

from synque_select.data.groups import one_per_group
from synque_select.functional.farness import nearest_is_synthetic
from synque_select.functional.pairwise import precise
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.domain import PAD
from synque_select.selection.reference import reference_scores
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import (
    multinomial_weights,
    score_interval,
)
from synque_select.types import Farness, ProxyScore

__all__ = ["NOT_TESTED", "measure_farness"]

NOT_TESTED = (
    "Whether the candidates resemble the real data at all was not tested: that takes embeddings, "
    "which no proxy of the suite uses."
)
# Two middles, fixed by reasoning rather than on data, and both must be exceeded beyond chance. A
# linear classifier's accuracy: between a guess (1/2) and certainty (1). How often the nearest
# example is synthetic: between that of real examples (1/2) and never (0). Generated text often
# gives itself away by its style to a classifier, and trains well all the same, but then it is often
# the nearest to a real example.
_LEAST_ACCURACY = 0.75
_MOST_NEAREST = 0.25
_LEVEL = 0.95
_MOST_REAL = 2000
_N_RESAMPLES = 1000


def measure_farness(scoring: Scoring, scores: Mapping[str, ProxyScore]) -> Farness | None:
    """Decide which candidates are far, by a linear classifier and by nearest neighbors.

    For the verdict that all are, every single candidate must be shown to be far. A test that
    demands this of all of them keeps its level without a correction for their number
    (intersection-union test). The candidates that are named one by one hold together, by
    Bonferroni's correction.

    Args:
        scoring: The result of `score`.
        scores: Name of each candidate that may be selected to its PAD by the default protocol, or
            to a score of NaN if the suite has none: it is then computed here, if the neighbors
            call a candidate far.

    Returns:
        How far the candidate is that the classifier separates least well; without PAD, accuracies
        are NaN. None without embeddings, or if PAD is undefined for a candidate.
    """
    parts = [part for part in scoring.candidates if part.name in scores]
    if not parts or any(side.embeddings is None for side in (scoring.real, *parts)):
        return None
    nearest, upper, upper_of_all = _nearest(scoring, parts)
    is_remote = max(upper) <= _MOST_NEAREST
    reference = scoring.reference.get(PAD.key, math.nan)
    if all(math.isnan(score.value) for score in scores.values()):
        if min(upper) > _MOST_NEAREST:
            name = parts[int(np.argmax(nearest))].name
            return Farness(name, math.nan, math.nan, math.nan, False, max(nearest))
        scores, reference = _classified(scoring, parts)
    lows = [math.nan if score.low is None else score.low for score in scores.values()]
    if not all(map(math.isfinite, lows)):
        return None
    remote = [p.name for p, end in zip(parts, upper_of_all, strict=True) if end <= _MOST_NEAREST]
    name = min(scores, key=lambda name: scores[name].value)
    low = scores[name].low
    return Farness(
        candidate=name,
        accuracy=_accuracy(scores[name].value),
        low=_accuracy(math.nan if low is None else low),
        halves=_accuracy(reference),
        is_far=is_remote and min(map(_accuracy, lows)) >= _LEAST_ACCURACY,
        nearest=max(nearest),
        each={
            name: _accuracy(scores[name].value)
            for name in remote
            if _accuracy(_corrected_low(scores[name], len(parts))) >= _LEAST_ACCURACY
        },
    )


def _corrected_low(score: ProxyScore, n_candidates: int) -> float:
    """Return the lower end of a one-sided interval of PAD that holds for all candidates at once."""
    if score.low is None:
        return math.nan
    factor = ndtri(1 - (1 - _LEVEL) / n_candidates) / ndtri(1 - (1 - _LEVEL) / 2)
    return score.value - max(1.0, float(factor)) * (score.value - score.low)


def _accuracy(pad: float) -> float:
    """Return the accuracy 1 − ε of the classifier, from 2 (1 − 2ε)."""
    return 0.5 + pad / 4


def _classified(
    scoring: Scoring, parts: Sequence[ProxyInput]
) -> tuple[dict[str, ProxyScore], float]:
    """Return the PAD of each candidate, and that between halves of the real sample."""
    pad, real = PAD(), scoring.real
    device = torch.device("cpu") if real.embeddings is None else real.embeddings.device
    scores = pad.score(real, parts, seed=scoring.seed, device=device)
    if scores.resample is None:
        return {part.name: ProxyScore(math.nan) for part in parts}, math.nan
    weights = multinomial_weights(len(real), _N_RESAMPLES, scoring.seed, scoring.groups)
    low, high = score_interval(scores, weights, scores.resample(weights), scoring.groups)
    columns = zip(parts, scores.values.tolist(), low.tolist(), high.tolist(), strict=True)
    reference = reference_scores(real, [pad], len(real), seed=scoring.seed, device=device)
    return (
        {part.name: ProxyScore(*values) for part, *values in columns},
        reference.get(PAD.key, math.nan),
    )


def _nearest(
    scoring: Scoring, parts: Sequence[ProxyInput]
) -> tuple[list[float], list[float], list[float]]:
    """Return how often a candidate's examples are the nearest.

    Also the upper ends of that: of each candidate alone, and of all candidates at once.
    """
    real, *made = (side.embeddings for side in (scoring.real, *parts))
    assert real is not None
    # all pairs of real examples are compared: more of them would not fit into memory
    rows = np.arange(len(real))
    if scoring.groups is not None:
        # copies of a real example would stand beside it without being other neighbors
        rows = one_per_group(scoring.groups, scoring.seed)
    rows = np.sort(np.random.default_rng(scoring.seed).permutation(rows)[:_MOST_REAL])
    real = real[rows].float()
    with precise():
        shares = [nearest_is_synthetic(real, part).cpu() for part in made if part is not None]
    alpha = 1 - _LEVEL
    return (
        [float(s.mean()) for s in shares],
        [_upper_end(s, alpha) for s in shares],
        [_upper_end(s, alpha / len(shares)) for s in shares],
    )


def _upper_end(shares: torch.Tensor, alpha: float) -> float:
    """Return the upper end of the one-sided interval of a mean share."""
    n = len(shares)
    if n < 2:
        return 1.0
    half = float(stdtrit(n - 1, 1 - alpha)) * float(shares.std()) / math.sqrt(n)
    # with none among n the deviation is 0 and says nothing: the exact bound of a frequency does
    return max(float(shares.mean()) + half, 1 - math.pow(alpha, 1 / n))
