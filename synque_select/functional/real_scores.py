"""What further real examples would score, from the real sample alone: the scale of a ranking.

Each real example is scored against the others of the sample. Where a candidate has more examples
than the real sample, the score is extrapolated to their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from synque_select.functional.coverage import expected_minimum, order_weights
from synque_select.functional.ngram import HashedNGrams, expected_log_counts
from synque_select.functional.pairwise import sq_distances

__all__ = ["real_coverage_distance", "real_cross_entropy"]


def real_coverage_distance(real: torch.Tensor, size: int) -> float:
    """Estimate the coverage distance that `size` further real examples would have.

    Mean over the real examples of the expected distance to the nearest of `size` random others. For
    more than there are, it is continued as a power of the size, with the exponent from half of the
    others to all of them: nearest distances fall as size^(−1/d) in d dimensions.

    Measured against further real examples (4 sets of texts, 30 to 60 real examples extrapolated to
    120 to 455): at most 4 % too high and 1 % too low on average, where two halves are 4 to 35 % too
    high.

    Args:
        real: (n, d) float32 or float64.
        size: Number of further examples, at least 1.

    Returns:
        The distance; NaN with fewer than 3 real examples.

    Example:
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> round(real_coverage_distance(x, 50), 3), round(real_coverage_distance(x, 200), 3)
        (0.013, 0.007)
    """
    n_others = len(real) - 1
    distances = sq_distances(real, real, refine=True).double().sqrt()
    ordered = distances.fill_diagonal_(torch.inf).sort(dim=1).values

    def expected(m: int) -> float:
        weights = order_weights(n_others, m)
        return float(expected_minimum(ordered[:, : len(weights)], weights).mean())

    return _continued(expected, n_others, size)


def real_cross_entropy(grams: HashedNGrams, size: int, *, n_buckets: int, alpha: float) -> float:
    """Estimate the cross-entropy of real texts under the n-grams of `size` further real texts.

    Each text is scored by the model of all others, at random subsamples of `size` texts as
    `ngram_log_probabilities` does it. For more texts than there are, the result is the mean of two
    extrapolations that mostly err in opposite directions: the cross-entropy as a power of the size,
    and the expected log counts with a slope per doubling that goes on rising, up to log 2, which it
    has when every n-gram is known.

    Measured against further real texts (4 sets, candidates of 111 to 999 texts): off by −0.10 to
    +0.16 nats from 60 real examples and by −0.13 to +0.24 from 30, where the best candidates are
    0.25 to 0.73 away and two halves of 60 real examples 0 to 0.9 too high.

    Args:
        grams: The n-grams of the real texts.
        size: Number of further texts, at least 1.
        n_buckets: Number of hash buckets.
        alpha: Smoothing, added to every bucket; positive.

    Returns:
        Nats per n-gram; NaN with fewer than 3 texts or without n-grams.

    Example:
        >>> from synque_select.functional.ngram import N_BUCKETS, hash_ngrams
        >>> grams = hash_ngrams(["how many apps", "how many users", "which app"] * 4)
        >>> few, many = (
        ...     real_cross_entropy(grams, n, n_buckets=N_BUCKETS, alpha=0.1) for n in (5, 50)
        ... )
        >>> many < few
        True
    """
    if len(grams.buckets) == 0:
        return math.nan
    counts = torch.bincount(grams.buckets, minlength=n_buckets)
    # how often each n-gram is in its own text
    _, place, own = torch.unique(
        grams.texts * n_buckets + grams.buckets, return_inverse=True, return_counts=True
    )
    left = counts[grams.buckets] - own[place]
    lengths = torch.bincount(grams.texts, minlength=grams.n_texts)
    totals = (len(grams.buckets) - lengths)[grams.texts]
    least = grams.n_texts - 1

    def log_counts(m: int) -> float:
        return float(expected_log_counts(left, share=m / least, alpha=alpha).mean())

    def log_totals(m: int) -> float:
        return float((totals.double() * m / least + alpha * n_buckets).log().mean())

    def expected(m: int) -> float:
        return log_totals(m) - log_counts(m)

    power = _continued(expected, least, size)
    if size <= least or least < 4:
        return power
    quarter, half, whole = (log_counts(m) for m in (least // 4, least // 2, least))
    slope, before = (
        (late - early) / math.log2(large / small)
        for late, early, large, small in (
            (whole, half, least, least // 2),
            (half, quarter, least // 2, least // 4),
        )
    )
    n_doublings = math.log2(size / least)
    steps = [min(1.0, n_doublings - k) for k in range(math.ceil(n_doublings))]
    rises = [min(math.log(2), slope + (slope - before) * (k + 1)) for k in range(len(steps))]
    known = whole + sum(rise * step for rise, step in zip(rises, steps, strict=True))
    return (power + log_totals(size) - known) / 2


def _continued(expected: Callable[[int], float], available: int, size: int) -> float:
    """Return the expectation at `size`, continued as a power law beyond what is available."""
    if available < 2:
        return math.nan
    if size <= available:
        return expected(size)
    whole, half = expected(available), expected(available // 2)
    if not (whole > 0 and half > 0):
        # copies of each other, at distance 0: further ones are as near
        return whole
    exponent = math.log(whole / half) / math.log(available / (available // 2))
    return whole * math.pow(size / available, exponent)
