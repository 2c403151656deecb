"""Which real examples to have labeled, and what a few labels say about the candidates' heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "UNIFORM_SHARE",
    "Draws",
    "closed_e_values",
    "contest",
    "differences_from_others",
    "draw_questions",
    "evidence_against",
    "importance_weights",
    "mean_interval",
    "reading_differences",
    "recorded_draws",
    "votes",
    "weighted_mean",
]

# A quarter of the draws go to any example: one that all heads agree on can show that all are wrong.
# No weight is above 4, so that one unlikely answer cannot decide alone.
UNIFORM_SHARE = 0.25
# Fractions of the largest bet that cannot lose everything. Their mean is as good as the best of
# them up to a factor of 10, without a choice that depends on the answers.
_BETS = np.arange(0.05, 1, 0.1)
# a gain that the limits all but exclude counts this much, so that products stay numbers
_LARGEST_GAIN = 1e6
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Draws:
    """Real examples drawn one after the other without replacement, with known probabilities.

    Args:
        rows: (m,) int64 positions in the order of the draws.
        probabilities: (m,) float64, the probability with which each was drawn from those left.
        least: (m, n) float64, at most the probability of each example at each draw. Examples that
            are no longer left are never looked up.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    least: NDArray[np.float64]

    def first(self, m: int) -> Draws:
        """Return the first m draws, which are a valid sample themselves."""
        return Draws(self.rows[:m], self.probabilities[:m], self.least[:m])


def votes(shares: NDArray[np.float64], families: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how the heads vote on the class of each example, one vote per family.

    Args:
        shares: (K, n, C) share of a candidate's heads that predict each class.
        families: (K,) int64 family of each candidate.

    Returns:
        (n, C) float64; rows sum to 1.

    Example:
        >>> shares = np.eye(2)[[0, 0, 1]][:, None]
        >>> votes(shares, np.array([0, 0, 1]))
        array([[0.5, 0.5]])
    """
    means = [shares[families == family].mean(0) for family in np.unique(families)]
    voted: NDArray[np.float64] = np.mean(means, axis=0)
    return voted


def contest(shares: NDArray[np.float64], families: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Return how much the label of each example would separate the candidates.

    .. math:: g_i = \sqrt{\sum_c p_{ic} \sum_k (s_{kic} - \bar s_{ic})^2}

    with the share s of candidate k's heads that predict class c, its mean over the candidates, and
    the votes p. Drawing in proportion to it has the smallest expected variance of the differences
    between candidates (Neyman's allocation) if the votes are right about the label. It is 0 where
    all heads agree, whatever the label.

    Args:
        shares: (K, n, C) share of a candidate's heads that predict each class.
        families: (K,) int64 family of each candidate.

    Returns:
        (n,) float64, at least 0.

    Source: the idea of asking where the candidates' consensus is divided is that of CODA (Kay et
    al. 2025) and ModelPicker (Karimi et al. 2021), which choose without known probabilities; the
    allocation is that of active testing (Kossen et al. 2021).

    Example:
        >>> shares = np.eye(2)[[[0, 0], [0, 1]]]
        >>> contest(shares, np.arange(2)).round(2)
        array([0.  , 0.71])
    """
    spread = np.square(shares - shares.mean(0)).sum(0)
    return np.asarray(np.sqrt((votes(shares, families) * spread).sum(1)))


def draw_questions(
    scores: NDArray[np.float64], m: int, *, seed: int, uniform: float = UNIFORM_SHARE
) -> Draws:
    """Draw examples one after the other without replacement.

    Each is drawn from those left: with probability `uniform` by equal chances, else by chances in
    proportion to `scores`. The first draws do not depend on m, so that more can be asked later.

    Args:
        scores: (n,) at least 0, such as `contest` returns; if all left are 0, chances are equal.
        m: Number of draws, 1 to n.
        seed: Random seed.
        uniform: Share of the equal chances.

    Example:
        >>> draws = draw_questions(np.array([0.0, 1.0, 1.0]), 2, seed=0)
        >>> len(set(draws.rows.tolist())), draws.least.shape
        (2, (2, 3))
    """
    generator = np.random.default_rng(seed)
    left = np.ones(len(scores), dtype=bool)
    rows, least = [], []
    for _ in range(m):
        chances = _chances(scores, left, uniform)
        row = int(generator.choice(len(scores), p=chances))
        rows.append(row)
        least.append(chances)
        left[row] = False
    table = np.stack(least)
    order = np.array(rows, dtype=np.int64)
    return Draws(order, table[np.arange(m), order], table)


def recorded_draws(
    rows: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    n: int,
    scores: NDArray[np.float64] | None = None,
) -> Draws:
    """Return draws that were made earlier.

    Args:
        rows: (m,) int64 positions in the order of the draws.
        probabilities: (m,) with which each was drawn from those left.
        n: Number of examples.
        scores: (n,) the scores that they were drawn by; None if these are no longer known: then
            only the share of equal chances bounds the probabilities of the other examples, and
            intervals are wider.

    Raises:
        ValueError: The probabilities are not those of the scores.

    Example:
        >>> recorded_draws(np.array([1]), np.array([0.5]), 4).least.round(4)
        array([[0.0625, 0.5   , 0.0625, 0.0625]])
    """
    left = np.ones(n, dtype=bool)
    least = np.empty((len(rows), n))
    for t, row in enumerate(rows.tolist()):
        if scores is None:
            least[t] = UNIFORM_SHARE / left.sum()
        else:
            least[t] = _chances(scores, left, UNIFORM_SHARE)
            # files keep six digits, and embeddings differ a little between machines
            if not np.isclose(least[t, row], probabilities[t], rtol=1e-3):
                raise ValueError(f"draw {t}: {probabilities[t]}, but by the scores {least[t, row]}")
        least[t, row] = probabilities[t]
        left[row] = False
    return Draws(rows, probabilities, least)


def _chances(
    scores: NDArray[np.float64], left: NDArray[np.bool_], uniform: float
) -> NDArray[np.float64]:
    even: NDArray[np.float64] = left / left.sum()
    total = float(scores[left].sum())
    if total <= 0:
        return even
    chances = uniform * even + (1 - uniform) * np.where(left, scores, 0.0) / total
    normed: NDArray[np.float64] = chances / chances.sum()
    return normed


def importance_weights(probabilities: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    r"""Return the weight of each draw in an unbiased mean over all n examples.

    .. math:: v_t = 1 + \frac{n - m}{n - t} \Big(\frac{1}{(n - t + 1)\, q_t} - 1\Big),
        \quad t = 1, \dots, m

    Args:
        probabilities: (m,) probability q of each draw from those left.
        n: Number of examples.

    Returns:
        (m,) float64, at least 0; all 1 for equal chances, or if all examples were drawn.

    Source: Farquhar, Gal and Rainforth 2021, "On statistical bias in active learning" (LURE).

    Example:
        >>> importance_weights(1 / np.array([5.0, 4.0, 3.0]), 5)
        array([1., 1., 1.])
    """
    m = len(probabilities)
    t = np.arange(1, m + 1)
    share = np.divide(n - m, n - t, out=np.zeros(m), where=t < n)
    weights: NDArray[np.float64] = 1 + share * (1 / ((n - t + 1) * probabilities) - 1)
    return weights


def weighted_mean(
    values: NDArray[np.float64], answered: NDArray[np.bool_], draws: Draws, n: int
) -> NDArray[np.float64]:
    """Return the importance-weighted mean of values over the examples that can be answered.

    Args:
        values: (..., m) value of each draw; those of unanswered draws are not used.
        answered: (m,) bool.
        draws: The draws.
        n: Number of examples.

    Returns:
        (...) float64; NaN without an answer of positive weight.
    """
    weights = importance_weights(draws.probabilities, n) * answered
    total = weights.sum()
    sums: NDArray[np.float64] = (np.where(answered, values, 0.0) * weights).sum(-1)
    return sums / total if total > 0 else np.full_like(sums, np.nan)


def differences_from_others(right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each candidate's value minus the mean of the other candidates.

    Args:
        right: (K, ...) values.

    Example:
        >>> differences_from_others(np.array([1.0, 0.0, 0.0]))
        array([ 1. , -0.5, -0.5])
    """
    n_others = len(right) - 1
    others = (right.sum(0) - right) / n_others
    return np.asarray(right - others)


def reading_differences(
    shares: NDArray[np.float64], first: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return, for each possible label, which of two groups of candidates reads an example so.

    A group reads an example as the class that most of its heads predict.

    Args:
        shares: (K, n, C) share of a candidate's heads that predict each class.
        first: (K,) bool, the candidates of the first group.

    Returns:
        (n, C) float64: 1 for the class that only the first group reads, -1 for the class that only
        the second reads; all 0 where both read the same.

    Example:
        >>> shares = np.eye(2)[[[0, 0], [0, 1]]]
        >>> reading_differences(shares, np.array([True, False]))
        array([[ 0.,  0.],
               [ 1., -1.]])
    """
    kinds = np.eye(shares.shape[2])
    read = [kinds[shares[group].mean(0).argmax(1)] for group in (first, ~first)]
    return np.asarray(read[0] - read[1])


def evidence_against(
    values: NDArray[np.float64],
    answered: NDArray[np.bool_],
    draws: Draws,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    means: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return the evidence that the mean over all examples is above, and below, each given mean.

    The evidence is the wealth of a player who starts with 1 and bets on each draw at fair odds, if
    the mean is the given one. Then it exceeds 1/α with probability at most α, for every number of
    draws and also if one stops when one likes:

    .. math:: W^\pm(\theta) = \operatorname{mean}_\gamma \prod_t
        \big(1 \pm \gamma Z_t / B^\pm_t\big), \quad
        n Z_t = \sum_{s < t} x_s + x_t / q_t, \quad x_t = a_t (y_t - \theta)

    with the value y, 0 or 1 for answered in a, and the largest loss B that the next draw can
    bring. No distribution is assumed, only the limits of each value.

    Args:
        values: (m,) value y of each draw; those of unanswered draws are not used.
        answered: (m,) bool; the mean is over the examples that can be answered.
        draws: The draws.
        low: (n,) smallest possible value of each example.
        high: (n,) largest possible value of each example.
        means: (G,) means θ to test.

    Returns:
        Evidence that the mean is above (G,), and below (G,); at least 0.

    Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting";
    Shekhar, Xu, Lipton, Liang and Ramdas 2023, "Risk-limiting financial audits via weighted
    sampling without replacement".

    Example:
        >>> draws = draw_questions(np.ones(50), 8, seed=0)
        >>> zeros, ones = np.zeros(50), np.ones(50)
        >>> above, below = evidence_against(
        ...     np.ones(8), np.ones(8, bool), draws, zeros, ones, np.array([0.5])
        ... )
        >>> bool(above[0] > 1 > below[0])
        True
    """
    n = len(low)
    # relative to the given mean; an example that cannot be answered adds 0
    least = np.minimum(low - means[:, None], 0.0)
    most = np.maximum(high - means[:, None], 0.0)
    x = np.where(answered, values, 0.0) - answered * means[:, None]  # (G, m)
    left = np.ones(n, dtype=bool)
    total = np.zeros(len(means))
    up = np.ones((len(means), len(_BETS)))
    down = np.ones_like(up)
    for t, row in enumerate(draws.rows.tolist()):
        chances = draws.least[t, left]
        lowest = total + (least[:, left] / chances).min(1)
        highest = total + (most[:, left] / chances).max(1)
        z = total + x[:, t] / draws.probabilities[t]
        up *= 1 + _BETS * _gain(z, -lowest)[:, None]
        down *= 1 + _BETS * _gain(-z, highest)[:, None]
        total = total + x[:, t]
        left[row] = False
    above, below = up.mean(1), down.mean(1)
    # what the examples left cannot make up for needs no bet
    above[total + least[:, left].sum(1) > _TINY] = np.inf
    below[total + most[:, left].sum(1) < -_TINY] = np.inf
    return above.clip(0), below.clip(0)


def _gain(amount: NDArray[np.float64], largest_loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a player gains who bets as much as cannot lose everything."""
    gain: NDArray[np.float64] = amount / np.maximum(largest_loss, _TINY)
    # a smaller gain than the true one keeps the bets fair or worse
    return gain.clip(-1.0, _LARGEST_GAIN)


def mean_interval(
    values: NDArray[np.float64],
    answered: NDArray[np.bool_],
    draws: Draws,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    alpha: float = 0.05,
    step: float = 0.005,
) -> tuple[float, float]:
    """Return an interval for the mean over all examples that contains it with 1 − alpha or more.

    Args:
        values: As for `evidence_against`, as are the next four arguments.
        answered: As there.
        draws: As there.
        low: As there.
        high: As there.
        alpha: Largest probability of missing the mean, over the random draws.
        step: Distance of the means that are tested; the ends are rounded outwards.

    Example:
        >>> draws = draw_questions(np.ones(50), 12, seed=0)
        >>> mean_interval(np.ones(12), np.ones(12, bool), draws, np.zeros(50), np.ones(50))[1]
        1.0
    """
    start, end = float(low.min()), float(high.max())
    means = np.linspace(start, end, max(2, round((end - start) / step) + 1))
    above, below = evidence_against(values, answered, draws, low, high, means)
    kept = np.flatnonzero((above + below) / 2 < 1 / alpha)
    if not len(kept):  # between two of the tested means
        kept = np.array([int(np.argmin(above + below))])
    return float(means[max(0, kept[0] - 1)]), float(means[min(len(means) - 1, kept[-1] + 1)])


def closed_e_values(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the evidence for each of K claims, adjusted so that all hold at once.

    The smallest mean over all sets of claims that contain it: claims with an adjusted evidence of
    1/α or more are all true with probability 1 − α or more. At best equal to the evidence, and
    never less than 1/K of it, which is Bonferroni's.

    Args:
        evidence: (K,) values whose expectation is at most 1 if the claim is false.

    Returns:
        (K,) float64.

    Source: Vovk and Wang 2021, "E-values: calibration, combination and applications".

    Example:
        >>> closed_e_values(np.array([30.0, 90.0, 0.0]))
        array([15., 40., 0.])
    """
    n = len(evidence)
    adjusted = np.empty(n)
    for k in range(n):
        others = np.sort(np.delete(evidence, k))
        totals = evidence[k] + np.concatenate([[0.0], np.cumsum(others)])
        adjusted[k] = (totals / np.arange(1, n + 1)).min()
    return adjusted
