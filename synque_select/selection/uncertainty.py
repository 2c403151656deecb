"""Uncertainty of a ranking: how would it change under another real sample of the same size?

The candidates are the finite sets that training will use and stay fixed; the real sample is
random. One set of multinomial weights, shared by all candidates and proxies, gives scores, ranks,
consensus ranks and top-k frequencies under redrawn real samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student_t

from synque_select.errors import ConfigError

__all__ = [
    "Separation",
    "expected_regret",
    "multinomial_weights",
    "separation",
    "t_interval",
    "top_k_frequency",
]


def multinomial_weights(n: int, n_resamples: int, seed: int) -> torch.Tensor:
    """Draw bootstrap weights of n real examples: counts of n draws with replacement, over n.

    Args:
        n: Size of the real sample.
        n_resamples: Number of redrawn real samples, B.
        seed: Random seed for the draws.

    Returns:
        (n_resamples, n) float64; rows sum to 1.

    Example:
        >>> multinomial_weights(30, 5, seed=0).sum(dim=1).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    # weights rather than drawn rows: a score that is a mean over real examples is then one product
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return torch.from_numpy(counts.astype(np.float64)) / n


def t_interval(
    values: torch.Tensor, resampled: torch.Tensor, n: int, level: float = 0.95
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interval value ± t(n−1) · √(n/(n−1)) · SE, SE the standard deviation over resamples.

    For a mean over the real sample this is Student's interval exactly; the factor undoes the
    bootstrap's 1/n variance, and matters below n = 30.

    Args:
        values: (K,) scores of the real sample at hand.
        resampled: (B, K) scores under multinomial weights.
        n: Size of the real sample.
        level: Coverage of one interval.

    Returns:
        Lower and upper ends, (K,) float64.
    """
    # t rather than percentiles of the resamples: with 10 to 30 real examples the percentile
    # interval is far too narrow
    half = student_t.ppf((1 + level) / 2, n - 1) * _standard_error(resampled, n)
    return values - half, values + half


def _standard_error(resampled: torch.Tensor, n: int) -> torch.Tensor:
    # a bootstrap variance is (n − 1)/n of the unbiased one, as it is taken around a sample mean
    error: torch.Tensor = resampled.std(dim=0, correction=1) * (n / (n - 1)) ** 0.5
    return error


_PAIRS = 1024


@dataclass(frozen=True)
class Separation:
    """Which pairs of candidates the real sample distinguishes, all pairs at once.

    Args:
        apart: (K, K) bool, symmetric: the simultaneous interval of the difference excludes 0.
        level: Probability that no pair of equal candidates is called apart.
        n_real: Size of the real sample.
    """

    apart: torch.Tensor
    level: float
    n_real: int

    def across(self, chosen: list[int]) -> tuple[int, int]:
        """Count the pairs (chosen, not chosen) that are distinguished, and all such pairs."""
        others = [i for i in range(len(self.apart)) if i not in chosen]
        block = self.apart[chosen][:, others]
        return int(block.sum()), block.numel()


def separation(
    values: torch.Tensor, resampled: torch.Tensor, n: int, level: float = 0.95
) -> Separation:
    """Find the pairs that differ significantly, by simultaneous max-|t| bounds over all pairs.

    A pair is apart when |s_a − s_b| > c · SE_ab, with SE_ab the standard error of the difference
    under shared weights and c the `level` quantile over resamples of the largest
    |(s*_a − s*_b) − (s_a − s_b)| / SE_ab among all pairs.

    Args:
        values: (K,) scores.
        resampled: (B, K) scores under shared multinomial weights.
        n: Size of the real sample.
        level: Simultaneous coverage.

    Raises:
        ConfigError: Fewer than 2 candidates.
    """
    n_candidates = values.numel()
    if n_candidates < 2:
        raise ConfigError("comparing candidates takes at least 2 of them")
    # The maximum over all pairs gives one bound for all of them: the top k is chosen after looking
    # at the scores, so a bound for a single pair would hold for none of those that are looked at.
    left, right = torch.triu_indices(n_candidates, n_candidates, offset=1)
    difference = values[left] - values[right]
    error = torch.empty_like(difference)
    largest = torch.zeros(len(resampled), dtype=torch.float64)
    for start in range(0, len(left), _PAIRS):  # bounded memory for a thousand candidates
        part = slice(start, start + _PAIRS)
        deviation = resampled[:, left[part]] - resampled[:, right[part]]
        error[part] = _standard_error(deviation, n)
        ratio = deviation.sub_(difference[part]).abs_().div_(error[part])
        # 0/0 and x/0: a pair whose difference never varies says nothing about the maximum
        ratio = ratio.nan_to_num_(nan=0.0, posinf=0.0)
        largest = torch.maximum(largest, ratio.amax(dim=1))
    critical = torch.quantile(largest, level)
    # the t quantile's excess over the normal one carries the small-n correction to the maximum
    small_n = student_t.ppf(0.975, n - 1) / student_t.ppf(0.975, 10**9)
    apart = torch.zeros(n_candidates, n_candidates, dtype=torch.bool)
    # equal scores are never apart, also if their difference has no error at all
    apart[left, right] = (difference.abs() > critical * small_n * error) & (difference != 0)
    return Separation(apart | apart.T, level, n)


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
