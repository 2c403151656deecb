"""Uncertainty of a ranking: how would it change under another real sample of the same size?

The candidates are the finite sets that training will use and stay fixed; the real sample is
random. One set of multinomial weights, shared by all candidates and proxies, gives scores, ranks,
consensus ranks and top-k frequencies under redrawn real samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from synque_select.errors import ConfigError
from synque_select.proxies.base import Contributions, ProxyScores

__all__ = [
    "Separation",
    "effective_size",
    "expected_regret",
    "influences",
    "multinomial_weights",
    "n_units",
    "separation",
    "t_interval",
    "top_k_frequency",
]


def multinomial_weights(
    n: int, n_resamples: int, seed: int, groups: NDArray[np.int64] | None = None
) -> torch.Tensor:
    """Draw bootstrap weights of n real examples: counts of n draws with replacement, over n.

    Args:
        n: Size of the real sample.
        n_resamples: Number of redrawn real samples, B.
        seed: Random seed for the draws.
        groups: Cluster of each real example, (n,) from 0 to G − 1: then G clusters are drawn,
            each with all of its examples. None if the examples are independent.

    Returns:
        (n_resamples, n) float64; rows sum to 1.

    Example:
        >>> multinomial_weights(30, 5, seed=0).sum(dim=1).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    # weights rather than drawn rows: a score that is a mean over real examples is then one product
    units = n_units(n, groups)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(units, np.full(units, 1 / units), size=n_resamples)
    drawn = torch.from_numpy(counts.astype(np.float64))
    if groups is None:
        return drawn / n
    drawn = drawn[:, torch.from_numpy(groups)]
    return drawn / drawn.sum(dim=1, keepdim=True)


def n_units(n: int, groups: NDArray[np.int64] | None) -> int:
    """Return the number of independent units of a real sample: G clusters, or n examples.

    Args:
        n: Size of the real sample.
        groups: Cluster of each real example, (n,) from 0 to G − 1; None if they are independent.

    Example:
        >>> n_units(4, None), n_units(4, np.array([0, 0, 0, 1]))
        (4, 2)
    """
    return n if groups is None else int(groups.max()) + 1


def effective_size(groups: NDArray[np.int64]) -> float:
    """Return n² / Σ n_g², the number of independent examples that say as much as the clusters do.

    The formula takes the examples of a cluster as copies of each other, the worst case.

    Args:
        groups: Cluster of each real example, (n,) from 0 to G − 1.

    Source: Kish 1965, "Survey Sampling".

    Example:
        >>> effective_size(np.array([0, 1, 2, 3])), effective_size(np.array([0, 0, 1, 1]))
        (4.0, 2.0)
    """
    sizes = np.bincount(groups).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def t_interval(
    values: torch.Tensor,
    resampled: torch.Tensor,
    n: int,
    level: float = 0.95,
    groups: NDArray[np.int64] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interval value ± t(n−1) · √(n/(n−1)) · SE, SE the standard deviation over resamples.

    For a mean over the real sample this is Student's interval exactly; the factor undoes the
    bootstrap's 1/n variance, and matters below n = 30.

    Args:
        values: (K,) scores of the real sample at hand.
        resampled: (B, K) scores under multinomial weights.
        n: Size of the real sample.
        level: Coverage of one interval.
        groups: Clusters that the weights were drawn by; their number then replaces n.

    Returns:
        Lower and upper ends, (K,) float64.
    """
    # t rather than percentiles of the resamples: with 10 to 30 real examples the percentile
    # interval is far too narrow
    units = n_units(n, groups)
    # a bootstrap variance is (n − 1)/n of the unbiased one, as it is taken around a sample mean
    error = resampled.std(dim=0, correction=1) * (units / (units - 1)) ** 0.5
    half = student_t.ppf((1 + level) / 2, units - 1) * error
    return values - half, values + half


_PAIRS = 1024


@dataclass(frozen=True)
class Separation:
    """Which candidates are shown to be better than which others, all pairs at once.

    Args:
        better: (K, K) bool; better[a, b] says that a is shown to be better than b.
        level: Probability that no pair of equal candidates is distinguished.
        n_real: Size of the real sample.
    """

    better: torch.Tensor
    level: float
    n_real: int

    @property
    def apart(self) -> torch.Tensor:
        """(K, K) bool, symmetric: the pair is distinguished, whichever is better."""
        return self.better | self.better.T

    def across(self, chosen: list[int]) -> tuple[int, int]:
        """Count the pairs whose chosen one is shown to be better, and all (chosen, not chosen)."""
        others = [i for i in range(len(self.better)) if i not in chosen]
        block = self.better[chosen][:, others]
        return int(block.sum()), block.numel()


def influences(scores: ProxyScores, n: int) -> torch.Tensor:
    """Return what each real example adds to each score, for comparing candidates.

    The mean over the examples of a difference between two columns is the difference of the two
    scores. Terms that are the same for all candidates may be missing.

    Args:
        scores: Scores with `resample`. For `Contributions` the result is exact, with a ratio
            replaced by its linear approximation. For another function it is the derivative in the
            weight of each example (infinitesimal jackknife).
        n: Size of the real sample.

    Returns:
        (n, K) float64.

    Source: Efron 1982, "The jackknife, the bootstrap and other resampling plans", chapter 6.
    """
    resample = scores.resample
    if resample is None:
        raise ConfigError("these scores have no contribution of each real example")
    if isinstance(resample, Contributions):
        return resample.influences()
    equal = torch.full((1, n), 1 / n, dtype=torch.float64)
    whole = resample(equal)
    # large enough that float32 scores keep 3 digits of the change, small enough to be a derivative
    step = 0.5 / n
    # one row at a time, so that random numbers that a function draws are the same in every call
    moved = [
        resample((1 - step) * equal + step * torch.nn.functional.one_hot(torch.tensor([i]), n))
        for i in range(n)
    ]
    return whole + (torch.cat(moved) - whole) / step


def separation(
    each: Sequence[torch.Tensor],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: NDArray[np.int64] | None = None,
) -> Separation:
    """Find the pairs that differ significantly, by one simultaneous bound for all pairs.

    Of each proxy, d_i = (influence on a) − (influence on b) of real example i. With one proxy,
    t_ab = mean(d) / SE(d), the paired t statistic. With several, d is the sum over the proxies of
    d / SE(d), so that each counts in units of its own error. A pair is distinguished when |t_ab|
    is above the `level` quantile of the largest |t| of all pairs in resamples, in each of which
    the sign of every example's d is random and the error is computed again.

    Args:
        each: For each proxy, (n, K) float64 `influences`, lower is better.
        n_resamples: Number of resamples.
        seed: Random seed for the resamples.
        level: Simultaneous coverage.
        groups: Cluster of each real example, (n,) from 0 to G − 1; None if they are independent.

    Raises:
        ConfigError: Fewer than 2 candidates.
    """
    n, n_candidates = each[0].shape
    if n_candidates < 2:
        raise ConfigError("comparing candidates takes at least 2 of them")
    each = [_cluster_means(part, groups) for part in each]
    n_units = len(each[0])
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (n_resamples, n_units)) - 1.0
    flips = torch.from_numpy(signs) / n_units
    # The maximum over all pairs gives one bound for all of them: the top k is chosen after looking
    # at the scores, so a bound for a single pair would hold for none of those that are looked at.
    left, right = torch.triu_indices(n_candidates, n_candidates, offset=1)
    statistic = torch.empty(len(left), dtype=torch.float64)
    largest = torch.zeros(n_resamples, dtype=torch.float64)
    for start in range(0, len(left), _PAIRS):  # bounded memory for a thousand candidates
        a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
        summed = torch.zeros(n_units, len(a), dtype=torch.float64)
        for part in each:
            difference = part[:, a] - part[:, b]
            error = difference.std(dim=0) / n_units**0.5
            # a difference that is the same for every real example has no error to be divided by
            summed += (difference / error).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        square = summed.square().mean(dim=0)
        statistic[start : start + _PAIRS] = _studentized(summed.mean(dim=0), square, n_units)
        ratio = _studentized(flips @ summed, square, n_units).abs_()
        largest = torch.maximum(largest, ratio.amax(dim=1))
    critical = torch.quantile(largest, level)
    better = torch.zeros(n_candidates, n_candidates, dtype=torch.bool)
    better[left, right] = statistic < -critical
    better[right, left] = statistic > critical
    return Separation(better, level, n)


def _studentized(mean: torch.Tensor, square: torch.Tensor, n: int) -> torch.Tensor:
    """Return mean / SE, from the mean and the mean square of n values; 0 for a mean of 0."""
    error = ((square - mean**2).clamp_min_(0) / (n - 1)).sqrt_()
    return (mean / error).nan_to_num_(nan=0.0)


def _cluster_means(each: torch.Tensor, groups: NDArray[np.int64] | None) -> torch.Tensor:
    """Return (G, K) values of independent clusters that have the mean of the (n, K) values."""
    if groups is None:
        return each
    mean = each.mean(dim=0)
    n_groups = int(groups.max()) + 1
    sums = torch.zeros(n_groups, each.shape[1], dtype=each.dtype)
    sums.index_add_(0, torch.from_numpy(groups), each - mean)
    # the sizes of the clusters are random, too: the mean is a ratio of two sums over clusters,
    # and this is its linear approximation
    return mean + sums * (n_groups / len(groups))


def top_k_frequency(resampled_ranks: torch.Tensor, k: int) -> torch.Tensor:
    """Share of resamples in which each candidate is among the best k; ties share the place.

    Args:
        resampled_ranks: (B, K) mid-ranks or mean ranks, lower is better.
        k: How many are selected.

    Returns:
        (K,) float64, summing to k. It measures how stable the choice is under a new real sample;
        it is not the chance of being truly best.

    Example:
        >>> top_k_frequency(torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]]), 1).tolist()
        [0.5, 0.5, 0.0]
    """
    # candidates tied at the border share the places that are left, so that the shares sum to k
    border = resampled_ranks.kthvalue(k, dim=1, keepdim=True).values
    inside = (resampled_ranks < border).double()
    tied = (resampled_ranks == border).double()
    places = k - inside.sum(dim=1, keepdim=True)
    shares: torch.Tensor = (inside + tied * places / tied.sum(dim=1, keepdim=True)).mean(dim=0)
    return shares


def expected_regret(resampled_ranks: torch.Tensor, chosen: list[int]) -> float:
    """Mean over resamples of (mean rank of the chosen − mean rank of the best as many), in ranks.

    Args:
        resampled_ranks: (B, K) ranks, lower is better.
        chosen: Positions of the selected candidates.

    Example:
        >>> expected_regret(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), [0])
        0.5
    """
    best = resampled_ranks.sort(dim=1).values[:, : len(chosen)].mean(dim=1)
    return float((resampled_ranks[:, chosen].mean(dim=1) - best).mean())
