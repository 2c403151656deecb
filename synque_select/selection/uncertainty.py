"""Uncertainty of a ranking: how would it change under another real sample of the same size?

The candidates are the finite sets that training will use and stay fixed; the real sample is
random. One set of multinomial weights, shared by all candidates and proxies, gives scores, ranks,
consensus ranks and top-k frequencies under redrawn real samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from synque_select.errors import ConfigError
from synque_select.proxies.base import Contributions, ProxyScores

__all__ = [
    "Influences",
    "Separation",
    "cluster_means",
    "effective_size",
    "influences",
    "multinomial_weights",
    "n_units",
    "new_sample_scores",
    "score_interval",
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
    spread: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interval value ± t(n−1) · √(n/(n−1) · SE² + spread²), SE the deviation over resamples.

    For a mean over the real sample this is Student's interval exactly; the factor undoes the
    bootstrap's 1/n variance, and matters below n = 30.

    Args:
        values: (K,) scores of the real sample at hand.
        resampled: (B, K) scores under multinomial weights.
        n: Size of the real sample.
        level: Coverage of one interval.
        groups: Clusters that the weights were drawn by; their number then replaces n.
        spread: (K,) standard deviations of the scores that do not come from the real sample.

    Returns:
        Lower and upper ends, (K,) float64.
    """
    # t rather than percentiles of the resamples: with 10 to 30 real examples the percentile
    # interval is far too narrow
    units = n_units(n, groups)
    # a bootstrap variance is (n − 1)/n of the unbiased one, as it is taken around a sample mean
    variance = resampled.var(dim=0, correction=1) * (units / (units - 1))
    if spread is not None:
        variance = variance + spread.square()
    half = stdtrit(units - 1, (1 + level) / 2) * variance.sqrt()
    return values - half, values + half


def score_interval(
    scores: ProxyScores,
    weights: torch.Tensor,
    resampled: torch.Tensor,
    groups: NDArray[np.int64] | None = None,
    level: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interval of each score over new real samples: studentized if possible, else `t_interval`.

    With u the influences of the real examples, the interval is value − q · SE, with q the upper and
    lower quantiles of (mean*(u) − mean(u)) / SE*(u) over resamples. The error is computed again in
    each resample, so that the interval is longer on the side where few examples contribute much.
    This needs `Contributions` without a term of pairs, which differences do not have but scores do.

    Simulated at a nominal 95 %, intervals of coverage hold about 90 % if the tails are very heavy
    (Student's t, 3 degrees of freedom; `t_interval` holds 86 to 88 %): samples of up to 100 often
    lack the far examples that make up much of the mean. docs/calibration.md has all figures.

    Args:
        scores: Scores with `resample`.
        weights: (B, n) multinomial weights, drawn by group if there are groups.
        resampled: (B, K) scores under these weights.
        groups: Group of each real example, (n,) from 0 to G − 1; None if they are independent.
        level: Coverage of one interval.

    Returns:
        Lower and upper ends, (K,) float64.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 12.5.
    """
    n = weights.shape[1]
    given = scores.resample
    if not isinstance(given, Contributions) or given.pairs is not None:
        return t_interval(scores.values, resampled, n, level, groups, scores.spread)
    each = cluster_means(given.influences(), groups)
    units = len(each)
    if groups is not None:
        # one column for each group: all of its examples have the same weight
        weights = weights[:, np.unique(groups, return_index=True)[1]]
        weights = weights / weights.sum(dim=1, keepdim=True)
    each = each - each.mean(dim=0)
    variance = each.square().mean(dim=0)
    shift = weights @ each
    redrawn = (weights @ each.square()).sub_(shift**2)
    redrawn = torch.maximum(redrawn, _LEAST_VARIANCE * variance) / (units - 1)
    tails = torch.tensor([(1 + level) / 2, (1 - level) / 2], dtype=torch.float64)
    upper, lower = torch.quantile(_ratio(shift, redrawn), tails, dim=0)
    own = torch.zeros_like(variance) if scores.spread is None else scores.spread.square()
    error = (variance / (units - 1) + own).sqrt()
    return scores.values - upper * error, scores.values - lower * error


# pairs at once: what they need for 2,000 resamples fits into the cache of a core
_PAIRS = 256
# share of a pair's variance that the variance in a resample is never below
_LEAST_VARIANCE = 0.1
# differences below this share of the largest value are rounding errors of float32 scores
_ROUNDING = 1e-6
# rows of weights given to a `resample` at once, and to find its own random part
_EQUAL_ROWS = 100
# products in the resamples of all pairs: beyond it, units are grouped, down to so many groups
_MOST_PRODUCTS = 2 * 10**11
_LEAST_UNITS = 128
# candidates times resamples of the comparison: beyond it, there are fewer resamples, down to the
# least number, of which the bound is the seventh largest
_MOST_RESAMPLED = 2**18
_LEAST_RESAMPLES = 250
# share of the permitted error that the bound of a comparison is set to; see `separation`
_SPENT = 0.5


@dataclass(frozen=True)
class Separation:
    """Which candidates are shown to be better than which others, all pairs at once.

    Args:
        better: (K, K) bool; better[a, b] says that a is shown to be better than b.
        level: Probability, at least, that no pair of equal candidates is distinguished.
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


@dataclass(frozen=True, eq=False)
class Influences:
    """What each real example adds to the scores of the candidates by one proxy.

    The mean over the examples of a difference between two columns is the difference of the two
    scores. Terms that are the same for all candidates may be missing.

    Args:
        each: (n, K) float64, lower is better.
        own_variance: (K,) float64, the variance of each score that does not come from the real
            sample, such as that of a score estimated from a part of the candidate.
        judges: (J, K) float64, lower is better, how each independent judge moves the scores; None
            for a proxy without judges. See `Contributions.judges`.
    """

    each: torch.Tensor
    own_variance: torch.Tensor
    judges: torch.Tensor | None = None


def influences(scores: ProxyScores, n: int, *, higher_is_better: bool) -> Influences:
    """Compute what each real example adds to each score, to compare candidates.

    Args:
        scores: Scores with `resample`. For `Contributions` the result is exact, with a ratio
            replaced by its linear approximation. For another function it is the derivative in the
            weight of each example (infinitesimal jackknife).
        n: Size of the real sample.
        higher_is_better: Orientation of the scores.

    Raises:
        ConfigError: The scores have no `resample`.

    Source: Efron 1982, "The jackknife, the bootstrap and other resampling plans", chapter 6.
    """
    resample = scores.resample
    if resample is None:
        raise ConfigError("these scores have no contribution of each real example")
    own = torch.zeros_like(scores.values) if scores.spread is None else scores.spread.square()
    judges = None
    if isinstance(resample, Contributions):
        each, judges = resample.influences(), resample.judges
    else:
        each, drawn = _numerical_influences(resample, n)
        own = own + drawn
    sign = -1 if higher_is_better else 1
    return Influences(sign * each, own.double(), None if judges is None else sign * judges)


def _numerical_influences(
    resample: Callable[[torch.Tensor], torch.Tensor], n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, K) derivatives, and the (K,) variance of the scores under equal weights."""
    equal = torch.full((_EQUAL_ROWS, n), 1 / n, dtype=torch.float64)
    whole = resample(equal[:1])
    own = resample(equal).var(dim=0)
    # a function that draws random numbers of its own draws the same ones in every call, but others
    # for every row: then one row at a time, or their differences would be divided by the step
    rows = 1 if bool((own > 0).any()) else _EQUAL_ROWS
    # large enough that float32 scores keep 3 digits of the change, small enough to be a derivative
    step = 0.5 / n
    moved = []
    for start in range(0, n, rows):
        positions = torch.arange(start, min(start + rows, n))
        one = torch.nn.functional.one_hot(positions, n)
        moved.append(resample((1 - step) / n + step * one.double()))
    return whole + (torch.cat(moved) - whole) / step, own


def separation(
    parts: Sequence[Influences],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: NDArray[np.int64] | None = None,
) -> Separation:
    """Find the pairs that differ significantly, by one simultaneous bound for all pairs.

    Of each proxy, d_i = (influence on a) − (influence on b) of real example i. With one proxy,
    t_ab = mean(d) / SE(d), the paired t statistic. With several, d is the sum over the proxies of
    d / SE(d), so that each counts in units of its own error. A pair is distinguished if |t_ab| is
    above a quantile, over bootstrap resamples, of the largest |mean*(d) − mean(d)| / SE*(d) of all
    pairs, with SE* the error computed from the resample. Judges are a second sample: they are
    redrawn independently, and their variance adds to SE. Of more than 128 judges, and of a real
    sample with very many candidates, the units are the means of random groups, at least 128: each
    candidate is a judge, and the time would otherwise grow with the cube of their number. Of more
    than 2^18 / n_resamples candidates (131 for 2,000), only 2^18 / K resamples are drawn, at least
    250, so that the products of resamples grow with K and not with its square up to 1,048
    candidates; the bound is then as valid, and less exact.

    The quantile is that of 1 − (1 − level) / 2, so that the comparison is stricter than it says.
    The bootstrap is exact for large n only: at a `level` of 0.95, the quantile of 0.95 itself was
    wrong in up to 0.08 of 200 simulated real samples (n = 50 and 100, heavy tails).
    docs/calibration.md has what was measured.

    Args:
        parts: The influences of each proxy, at least one.
        n_resamples: Number of resamples; fewer of many candidates.
        seed: Random seed for the resamples.
        level: Probability, at least, that no pair of equal candidates is distinguished.
        groups: Cluster of each real example, (n,) from 0 to G − 1; None if they are independent.

    Raises:
        ConfigError: Fewer than 2 candidates.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 12.5, for the
        studentized bootstrap; Romano and Wolf 2005, Econometrica 73, for the maximum.
    """
    n, n_candidates = parts[0].each.shape
    if n_candidates < 2:
        raise ConfigError("comparing candidates takes at least 2 of them")
    most = max(_LEAST_UNITS, _MOST_PRODUCTS // (n_resamples * n_candidates**2))
    real, *judges = _samples(parts, groups)
    # candidates are each other's judges: their number grows with that of the pairs
    samples = [_at_most(most, real, seed), *(_at_most(_LEAST_UNITS, j, seed) for j in judges)]
    pairs = _Pairs(samples, [part.own_variance for part in parts])
    n_drawn = min(n_resamples, max(_LEAST_RESAMPLES, _MOST_RESAMPLED // n_candidates))
    weights = [
        multinomial_weights(len(sample[0]), n_drawn, seed + i)
        for i, sample in enumerate(pairs.samples)
    ]
    # The maximum over all pairs gives one bound for all of them: the top k is chosen after looking
    # at the scores, so a bound for a single pair would hold for none of those that are looked at.
    largest = _LargestRatio(weights)
    statistic = torch.zeros(n_candidates, n_candidates, dtype=torch.float64)
    for a, others in pairs.blocks():
        sums, mean, own = pairs.standardized(slice(a, a + 1), others)
        statistic[a, others] = _statistic(sums, mean, own)
        largest.update(sums, a, others)
    critical = _bound(largest.exact(pairs), (1 - level) * _SPENT)
    better = statistic < -critical
    return Separation(better | (statistic > critical).T, level, n)


class _Pairs:
    """The differences of all pairs of candidates, in units of their errors.

    Args:
        samples: What is drawn independently, see `_samples`.
        own: (K,) variances that come from none of them, for each part.
    """

    def __init__(
        self, samples: Sequence[Sequence[torch.Tensor]], own: Sequence[torch.Tensor]
    ) -> None:
        self.samples, self._own = samples, own
        # rounding errors between copies in another order, in units of their own error, would look
        # like a difference
        self._least = [[_ROUNDING * float(x.abs().amax()) for x in sample] for sample in samples]

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Yield a candidate and some of those after it: each pair once, in bounded memory."""
        n_candidates = self.samples[0][0].shape[1]
        for a in range(n_candidates - 1):
            for start in range(a + 1, n_candidates, _PAIRS):
                yield a, slice(start, min(start + _PAIRS, n_candidates))

    def standardized(
        self, a: torch.Tensor | slice, b: torch.Tensor | slice
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return what units add, the means of it over samples, and the rest of the variance.

        Args:
            a: Candidates, (pairs,) or one.
            b: The others, (pairs,).

        Returns:
            For each sample (n, pairs), minus its mean over the n units; then twice (pairs,).
        """
        own_of_sum = torch.zeros_like(self._own[0][b])
        mean_of_sum = torch.zeros_like(own_of_sum)
        sums = [own_of_sum.new_zeros(len(sample[0]), len(own_of_sum)) for sample in self.samples]
        for i, variance in enumerate(self._own):
            differences = [
                _difference(sample[i], a, b, least[i])
                for sample, least in zip(self.samples, self._least, strict=True)
            ]
            from_own = variance[a] + variance[b]
            means = [each.mean(dim=0) for each in differences]
            for each, mean in zip(differences, means, strict=True):
                each -= mean
            errors = [_mean_square(each) / (len(each) - 1) for each in differences]
            scale = 1 / (torch.stack(errors).sum(dim=0) + from_own).sqrt()
            # a difference that is the same for every real example has no error to be divided by
            scale.nan_to_num_(posinf=0.0)
            for summed, each in zip(sums, differences, strict=True):
                summed.addcmul_(each, scale)
            mean_of_sum += torch.stack(means).sum(dim=0) * scale
            own_of_sum += from_own * scale**2
        return sums, mean_of_sum, own_of_sum


def _difference(
    values: torch.Tensor, a: torch.Tensor | slice, b: torch.Tensor | slice, least: float
) -> torch.Tensor:
    return torch.nn.functional.hardshrink(values[:, a] - values[:, b], least)


def _statistic(sums: Sequence[torch.Tensor], mean: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    errors = [_mean_square(summed) / (len(summed) - 1) for summed in sums]
    return _ratio(mean, own + torch.stack(errors).sum(dim=0))


def _mean_square(values: torch.Tensor) -> torch.Tensor:
    return values.square().mean(dim=0)


class _LargestRatio:
    """The largest |mean*(d) − mean(d)| / SE*(d) of all pairs in each resample.

    The pair is found in float32, which halves the time of K²/2 pairs in 2,000 resamples; its ratio
    is then computed in float64.

    Args:
        weights: (B, n) weights for each sample.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self._weights = weights
        self._narrow = [drawn.float() for drawn in weights]
        # written anew for each block: fresh memory would take as long as the products
        self._space = torch.empty(2 * len(weights), len(weights[0]) * _PAIRS)
        self._largest = torch.full((len(weights[0]),), -1.0)
        self._pairs = torch.zeros(2, len(weights[0]), dtype=torch.int64)

    def update(self, sums: Sequence[torch.Tensor], a: int, others: slice) -> None:
        """Take in a block of pairs."""
        shift, redrawn = _redrawn([summed.float() for summed in sums], self._means)
        # squares have the same order as what they are squares of; 0 over 0, of copies, is 0
        ratio = shift.square_().div_(redrawn.clamp_(min=torch.finfo(torch.float32).tiny))
        largest = ratio.amax(dim=1)
        rows = (largest > self._largest).nonzero().squeeze(1)
        self._largest[rows] = largest[rows]
        self._pairs[0, rows] = a
        self._pairs[1, rows] = others.start + ratio[rows].argmax(dim=1)

    def _means(self, place: int, values: torch.Tensor) -> torch.Tensor:
        drawn = self._narrow[place // 2]
        out = self._space[place, : len(drawn) * values.shape[1]].view(len(drawn), -1)
        return torch.mm(drawn, values, out=out)

    def exact(self, pairs: _Pairs) -> torch.Tensor:
        """Return the ratios, (B,) float64."""
        sums, _, _ = pairs.standardized(*self._pairs)
        shift, redrawn = _redrawn(
            sums,
            # each resample with its own pair
            lambda place, values: (self._weights[place // 2].T * values).sum(dim=0),
        )
        return _ratio(shift, redrawn).abs()


def _redrawn(
    centered: Sequence[torch.Tensor], mean: Callable[[int, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the means of resamples and their squared errors.

    Args:
        centered: (n, pairs) of each sample, with a mean of 0.
        mean: Called with such values and a number, 2i for those of sample i and 2i + 1 for their
            squares; returns their means in resamples.
    """
    shifts, errors = [], []
    for i, values in enumerate(centered):
        square = values.square()
        moved, again = mean(2 * i, values), mean(2 * i + 1, square)
        # if only a few real examples distinguish a pair, many resamples have none of them and an
        # error of 0: one such pair would raise the bound of all pairs to infinity
        least = _LEAST_VARIANCE * square.mean(dim=0)
        again.addcmul_(moved, moved, value=-1)
        errors.append(torch.maximum(again, least, out=again).div_(len(values) - 1))
        shifts.append(moved)
    return sum(shifts[1:], shifts[0]), sum(errors[1:], errors[0])


def _bound(largest: torch.Tensor, error: float) -> torch.Tensor:
    """Return what the maximum is above in this share of real samples, at most; inf if B is small.

    The maximum of the sample at hand counts as one more draw, so that few resamples make the bound
    higher and not the error larger.
    """
    every = torch.cat((largest, largest.new_tensor([math.inf])))
    return every.kthvalue(math.ceil((1 - error) * len(every) - 1e-9)).values


def _samples(
    parts: Sequence[Influences], groups: NDArray[np.int64] | None
) -> list[list[torch.Tensor]]:
    """Return what is drawn independently: the real sample, and the judges if there are any.

    Of each, for every part, values of its units whose mean is their share of the scores.
    """
    samples = [[cluster_means(part.each, groups) for part in parts]]
    given = [part.judges for part in parts if part.judges is not None]
    if given:
        nothing = torch.zeros_like(given[0])
        samples.append([nothing if part.judges is None else part.judges for part in parts])
    return samples


def _at_most(n_units: int, sample: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Return the units of a sample, or the means of random groups of them if they are too many.

    Groups of independent units are independent as well, and have the same mean and error.
    """
    n = len(sample[0])
    if n <= n_units:
        return list(sample)
    groups = np.random.default_rng(seed).permutation(n) % n_units
    return [cluster_means(part, groups) for part in sample]


def _ratio(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return mean / √variance; 0 where both are 0, as for two copies."""
    return (mean / variance.sqrt()).nan_to_num_(nan=0.0)


def cluster_means(each: torch.Tensor, groups: NDArray[np.int64] | None) -> torch.Tensor:
    """Return values of independent clusters that have the mean of the values of the examples.

    Args:
        each: (n, K) values of the real examples.
        groups: Cluster of each real example, (n,) from 0 to G − 1; None if they are independent.

    Returns:
        (G, K), or `each` without groups.
    """
    if groups is None:
        return each
    mean = each.mean(dim=0)
    n_groups = int(groups.max()) + 1
    sums = torch.zeros(n_groups, each.shape[1], dtype=each.dtype)
    sums.index_add_(0, torch.from_numpy(groups), each - mean)
    # the sizes of the clusters are random, too: the mean is a ratio of two sums over clusters,
    # and this is its linear approximation
    return mean + sums * (n_groups / len(groups))


def new_sample_scores(
    values: torch.Tensor,
    resampled: torch.Tensor,
    n: int,
    groups: NDArray[np.int64] | None = None,
) -> torch.Tensor:
    """Draw the scores that a new real sample of the same size would give.

    Resamples alone overstate how well the next sample agrees with this one, because this one has
    an error, too. With σ² the error variance of a score, s² the variance of the K scores, and
    r = 1 − (K−3)/(K−1) · σ²/s², at least 0 (1 if K < 4), a draw is
    mean + r (value − mean) + √(1 + r) · (resampled − its mean) · √(n/(n−1)).

    These are draws from the predictive distribution if the true scores are normal around a common
    mean: scores that differ by no more than chance are drawn together, scores that differ clearly
    are not moved, and only the error counts twice.

    Args:
        values: (K,) scores of one proxy.
        resampled: (B, K) its scores under multinomial weights.
        n: Size of the real sample.
        groups: Clusters that the weights were drawn by; their number then replaces n.

    Returns:
        (B, K) float64.

    Source: Efron and Morris 1975, JASA 70, for r.
    """
    units, n_candidates = n_units(n, groups), values.numel()
    deviation = (resampled - resampled.mean(dim=0)) * (units / (units - 1)) ** 0.5
    keep = 1.0
    if n_candidates > 3:
        # what all candidates have in common, as the real-real term of MMD, changes no order
        own = deviation - deviation.mean(dim=1, keepdim=True)
        error = own.var(dim=0).sum() / (n_candidates - 1)
        ratio = float(error / values.var()) if bool(values.var() > 0) else 1.0
        keep = max(0.0, 1 - (n_candidates - 3) / (n_candidates - 1) * ratio)
    center = values.mean()
    draws: torch.Tensor = center + keep * (values - center) + (1 + keep) ** 0.5 * deviation
    return draws


def top_k_frequency(resampled_ranks: torch.Tensor, k: int) -> torch.Tensor:
    """Share of draws in which each candidate is among the best k; ties share the place.

    Args:
        resampled_ranks: (B, K) mid-ranks or mean ranks, lower is better.
        k: How many are selected.

    Returns:
        (K,) float64, summing to k. It measures how stable the choice is under a new real sample;
        it is not the chance of being truly best.

    Raises:
        ConfigError: k is not in 1..K.

    Example:
        >>> top_k_frequency(torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]]), 1).tolist()
        [0.5, 0.5, 0.0]
    """
    if not 1 <= k <= resampled_ranks.shape[1]:
        raise ConfigError(f"k={k}: allowed is 1 to {resampled_ranks.shape[1]}")
    # candidates tied at the border share the places that are left, so that the shares sum to k
    border = resampled_ranks.kthvalue(k, dim=1, keepdim=True).values
    inside = (resampled_ranks < border).double()
    tied = (resampled_ranks == border).double()
    places = k - inside.sum(dim=1, keepdim=True)
    shares: torch.Tensor = (inside + tied * places / tied.sum(dim=1, keepdim=True)).mean(dim=0)
    return shares
