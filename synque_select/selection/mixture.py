"""From scores to the weights of a mixture: proportional to scores, or optimal in MMD."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from synque_select.errors import ConfigError, ProxyError, did_you_mean
from synque_select.functional.mmd import BANK, Kernel, kernel_contributions, self_kernel_mean
from synque_select.functional.pairwise import median_sq_distance
from synque_select.functional.random_features import RandomFeatures
from synque_select.functional.simplex import minimize_quadratic_on_simplex, nearest_psd
from synque_select.selection.consensus import CONSENSUS
from synque_select.selection.decision import redecided, with_weights
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import multinomial_weights
from synque_select.types import Mixture, Ranking
from synque_select.utils.wording import counted

__all__ = [
    "MixtureChoice",
    "MixtureKind",
    "MixtureOptions",
    "mixture_scores",
    "mmd_optimal_mixture",
    "score_proportional_mixture",
    "with_mixture",
]

MixtureKind: TypeAlias = Literal["equal", "proportional", "mmd_optimal"]

_MAX_SUBSETS = 100_000
_SUBSETS_AT_ONCE = 4096
_MAX_ROWS = 4096
# examples and candidates of which all pairs are computed; of more, random features
_MAX_EXACT_ROWS, _MAX_EXACT_SETS = 32_768, 128
_N_FREQUENCIES = 2048
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class MixtureOptions:
    """How the candidates to train on are chosen and weighted.

    Args:
        kind: "equal": the selected candidates with equal weights; "proportional": the same
            candidates with weights by score (`score_proportional_mixture`); "mmd_optimal":
            candidates, at most `top_k` if it is given, whose kernel mean is nearest to the real
            sample's (`mmd_optimal_mixture`).
        temperature: Temperature of "proportional", in standard deviations of the score; None for 1.
        budget: Number of examples that the training run draws. "mmd_optimal" uses it to limit how
            often an example is repeated; if no mixture can keep the limit, the limit is dropped
            and one of the ranking's messages says so.

    Raises:
        ConfigError: The kind is unknown, or the temperature is not positive or is given for another
            kind than "proportional".

    Example:
        >>> MixtureOptions("proportional", temperature=0.5).kind
        'proportional'
    """

    kind: MixtureKind = "equal"
    temperature: float | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(MixtureKind):
            raise ConfigError(
                f"mixture={self.kind!r}: {did_you_mean(str(self.kind), get_args(MixtureKind))}"
            )
        if self.temperature is None:
            return
        if self.kind != "proportional":
            raise ConfigError(
                f"temperature={self.temperature} is given with mixture={self.kind!r}: it belongs "
                "to mixture='proportional'"
            )
        _check_temperature(self.temperature)

    @classmethod
    def of(cls, mixture: MixtureChoice) -> MixtureOptions:
        """Return the given options, or those of a kind alone."""
        return mixture if isinstance(mixture, MixtureOptions) else cls(mixture)


MixtureChoice: TypeAlias = MixtureKind | MixtureOptions


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature={temperature}: allowed is a number above 0")


def with_mixture(
    ranking: Ranking, mixture: MixtureChoice, scoring: Scoring | None = None
) -> Ranking:
    """Return the ranking with the mixture to train on, which `ranking.top()` then returns.

    Args:
        ranking: The ranking whose candidates are mixed.
        mixture: A kind, or `MixtureOptions`.
        scoring: The scoring that the ranking was made from; "mmd_optimal" needs it.

    Raises:
        ConfigError: The options are not allowed, or "mmd_optimal" is requested without a scoring.
        ProxyError: "mmd_optimal" is requested without embeddings, or has no kernel bandwidth.
    """
    options = MixtureOptions.of(mixture)
    # equal weights first: the weighted candidates are those that the decision selects
    decision = ranking.decision
    is_equal = decision is not None and decision.weighting == "equal"
    plain = ranking if is_equal else redecided(ranking)
    if options.kind == "equal":
        return plain
    if options.kind == "proportional":
        chosen = score_proportional_mixture(plain, temperature=options.temperature or 1.0)
    elif scoring is None:
        raise ConfigError(
            "mixture='mmd_optimal' needs the embeddings, which a saved ranking does not hold: "
            "rank again with mixture='mmd_optimal', or choose 'equal' or 'proportional'"
        )
    else:
        chosen, messages = _capped_if_possible(scoring, plain, options.budget)
        plain = dataclasses.replace(plain, messages=(*plain.messages, *messages))
    return with_weights(plain, chosen, options.kind)


def _capped_if_possible(
    scoring: Scoring, ranking: Ranking, budget: int | None
) -> tuple[Mixture, tuple[str, ...]]:
    names, top_k = _allowed(ranking)
    try:
        return mmd_optimal_mixture(scoring, top_k=top_k, budget=budget, names=names), ()
    except ConfigError as error:
        if budget is None:
            raise
        message = f"The MMD-optimal mixture has no cap on repeats, as none could be kept: {error}."
        return mmd_optimal_mixture(scoring, top_k=top_k, names=names), (message,)


def _allowed(ranking: Ranking) -> tuple[list[str], int]:
    """Return which candidates an optimal mixture may use, and how many of them.

    The weights choose, not the ranks: two poor candidates that complete each other may be best.
    """
    excluded = set(ranking.excluded)
    names = [row.name for row in ranking.candidates if row.name not in excluded]
    return names, len(names) if ranking.top_k is None else min(ranking.top_k, len(names))


def mixture_scores(
    scoring: Scoring, mixture: Mixture, keys: Sequence[str] | None = None
) -> dict[str, float]:
    """Score a mixture by every proxy that can without concatenating data (see `ProxyScores`).

    A mixture of one candidate has that candidate's score by every proxy.

    Args:
        scoring: The result of `Scorer.score` for the candidates.
        mixture: A mixture of some of these candidates.
        keys: Keys of the proxies to score by; None for all.

    Returns:
        Proxy key to score; a proxy that would need a sample of the mixture is left out.

    Raises:
        ConfigError: The mixture names a candidate that was not scored.
    """
    wanted = {k: s for k, s in scoring.scores.items() if keys is None or k in keys}
    names = [candidate.name for candidate in scoring.candidates]
    known = set(names)
    unknown = [name for name in mixture.names if name not in known]
    if unknown:
        raise ConfigError(f"no candidate {unknown[0]!r}: {did_you_mean(unknown[0], names)}")
    if len(mixture.names) == 1:
        place = names.index(mixture.names[0])
        return {key: float(scores.values[place]) for key, scores in wanted.items()}
    weights = torch.tensor([mixture.weights.get(n, 0.0) for n in names], dtype=torch.float64)
    return {
        key: scores.mixture(weights) for key, scores in wanted.items() if scores.mixture is not None
    }


def score_proportional_mixture(
    ranking: Ranking, *, top_k: int | None = None, by: str | None = None, temperature: float = 1.0
) -> Mixture:
    """Weight the best k candidates in proportion to exp(z / temperature), z the standardized score.

    z is (score − mean) / standard deviation over all candidates, turned so that higher is better;
    for the consensus the score is the mean rank. A high temperature approaches equal weights.

    Args:
        ranking: The result of `rank`.
        top_k: Number of candidates; None for those that the ranking selects.
        by: A proxy's key or "consensus"; None for the ranking's `rank_by`.
        temperature: Positive, in standard deviations.

    Raises:
        ConfigError: The temperature is not positive, or a selected score is undefined.
    """
    _check_temperature(temperature)
    by = by or ranking.rank_by
    is_own = top_k is None and by == ranking.rank_by
    chosen = (ranking.top() if is_own else ranking.top(top_k, by)).names
    values = {row.name: _oriented(ranking, row.name, by) for row in ranking.candidates}
    defined = np.array([v for v in values.values() if not math.isnan(v)])
    scale = float(defined.std()) or 1.0  # all scores are equal: any scale gives equal weights
    best = max(values[name] for name in chosen)  # subtracted so that exp cannot overflow
    every = {name: math.exp((values[name] - best) / scale / temperature) for name in chosen}
    # at a low temperature, the weight of the worst is below the smallest float
    raw = {name: weight for name, weight in every.items() if weight != 0}
    total = sum(raw.values())
    selected = counted(len(raw), "candidate") if is_own else f"top {len(raw)} by {by}"
    source = f"{selected}, proportional at temperature {temperature:g}"
    return Mixture({name: weight / total for name, weight in raw.items()}, source)


def _oriented(ranking: Ranking, name: str, by: str) -> float:
    row = ranking[name]
    if by == CONSENSUS:
        return math.nan if row.mean_rank is None else -row.mean_rank
    value = row.scores[by].value
    return value if ranking.proxies[by].higher_is_better else -value


def mmd_optimal_mixture(
    scoring: Scoring,
    *,
    top_k: int | None = None,
    budget: int | None = None,
    max_repeats: float = 4.0,
    n_resamples: int = 200,
    names: Sequence[str] | None = None,
) -> Mixture:
    """Find the mixture with the kernel mean nearest to that of the real sample.

    MMD²(w) = wᵀKw − 2wᵀc + const over the simplex, with K_ab the mean kernel between candidates a
    and b (its diagonal unbiased, or size would decide; projected to be positive semi-definite) and
    c_a that between candidate a and the real sample; the kernel is the default of the `mmd` proxy.
    The weights are averaged over redrawn real samples, so that they do not fit its noise.
    Candidates of more than 4,096 examples enter K by a seeded random subsample of that size. Of
    more than 128 candidates, or more than 32,768 examples in K, both terms are estimated from 2,048
    random Fourier frequencies of all examples instead, in a time that is linear in their number.

    Args:
        scoring: The result of `Scorer.score`, with embeddings.
        top_k: Maximum number of candidates: the best subset by enumeration up to 10^5 subsets, else
            chosen greedily, which the mixture's source then says. None for no limit.
        budget: Number of examples that training draws; with it, w_a ≤ max_repeats · N_a / budget.
        max_repeats: Maximum number of times that an example is drawn, if a budget is given.
        n_resamples: Number of redrawn real samples.
        names: The candidates that may be used; None for all.

    Raises:
        ProxyError: The scoring has no embeddings, or over half of the real pairs are equal.
        ConfigError: top_k is less than 1, or the repeat caps leave no mixture.

    Source:
        Huang et al. 2006 (kernel mean matching), at the level of datasets.
    """
    allowed = None if names is None else set(names)
    pool = [c for c in scoring.candidates if allowed is None or c.name in allowed]
    top_k = len(pool) if top_k is None else top_k
    if top_k < 1:
        raise ConfigError(f"top_k={top_k}: allowed is a whole number from 1")
    top_k = min(top_k, len(pool))
    real, *sides = (side.float() for side in scoring.embeddings("an MMD-optimal mixture"))
    pooled = {c.name for c in pool}
    used = [side for side, c in zip(sides, scoring.candidates, strict=True) if c.name in pooled]
    quadratic, contributions = _kernel_means(real, used, scoring.seed)
    upper = _caps([c.n_all for c in pool], budget, max_repeats)
    chosen, how = _best_subset(quadratic, contributions.mean(dim=0), upper, top_k)
    redrawn = multinomial_weights(len(real), n_resamples, scoring.seed, scoring.groups)
    linear = redrawn @ contributions
    weights = minimize_quadratic_on_simplex(
        quadratic[chosen][:, chosen], linear[:, chosen], upper[chosen]
    ).mean(dim=0)
    # the solver stops near the boundary: what is left of an unused candidate is not a choice
    weights = torch.where(weights > _NEGLIGIBLE, weights, 0.0)
    weights = weights / weights.sum()
    chosen_names = [pool[i].name for i in chosen]
    kept = {name: w for name, w in zip(chosen_names, weights.tolist(), strict=True) if w > 0}
    return Mixture(kept, f"MMD-optimal, {how}, mean over {n_resamples} redrawn real samples")


def _kernel_means(
    real: torch.Tensor, candidates: Sequence[torch.Tensor], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """K×K kernel means between candidates, and (n, K) means with each real example."""
    median = median_sq_distance(real)
    if not median > 0:
        raise ProxyError(
            "an MMD-optimal mixture has no kernel bandwidth here: over half of the pairs of real "
            "examples have equal embeddings"
        )
    kernel = Kernel("rbf", tuple(gamma / median for gamma in BANK))
    parts = [_subsample(c, seed + i) for i, c in enumerate(candidates)]
    if len(parts) > _MAX_EXACT_SETS or sum(map(len, parts)) > _MAX_EXACT_ROWS:
        return _feature_means(kernel, real, candidates, seed)
    contributions = torch.stack([kernel_contributions(kernel, real, c) for c in candidates], dim=1)
    means = torch.empty(len(parts), len(parts), dtype=torch.float64)
    for a, left in enumerate(parts):
        means[a, a] = self_kernel_mean(kernel, left).off_diagonal
        for b in range(a):
            means[a, b] = means[b, a] = kernel_contributions(kernel, left, parts[b]).mean()
    return nearest_psd(means), contributions.cpu()


def _feature_means(
    kernel: Kernel, real: torch.Tensor, candidates: Sequence[torch.Tensor], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `_kernel_means` does, by random features, in a time linear in the examples."""
    features = RandomFeatures(real.shape[1], kernel.gammas, _N_FREQUENCIES, seed=seed)
    each = torch.stack([features.mean(c) for c in candidates])
    means = each @ each.T
    # every example has a product of 1 with itself, which the mean over pairs leaves out
    sizes = torch.tensor([len(c) for c in candidates], dtype=torch.float64)
    means.diagonal().copy_((sizes * means.diagonal() - 1) / (sizes - 1))
    # by the same features, so that the errors of both terms of MMD² cancel
    return nearest_psd(means).cpu(), (features(real).double() @ each.T).cpu()


def _subsample(points: torch.Tensor, seed: int) -> torch.Tensor:
    if len(points) <= _MAX_ROWS:
        return points
    chosen = np.random.default_rng(seed).choice(len(points), _MAX_ROWS, replace=False)
    return points[torch.from_numpy(np.sort(chosen))]


def _caps(sizes: Sequence[int], budget: int | None, max_repeats: float) -> torch.Tensor:
    if budget is None:
        return torch.ones(len(sizes), dtype=torch.float64)
    caps = torch.tensor([max_repeats * n / budget for n in sizes], dtype=torch.float64).clamp(max=1)
    if caps.sum() < 1:
        raise ConfigError(
            f"budget={budget}: allowed is at most {max_repeats * sum(sizes):.0f} draws, because "
            f"the {counted(sum(sizes), 'example')} may be drawn {max_repeats:g} times each"
        )
    return caps


def _best_subset(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor, k: int
) -> tuple[list[int], str]:
    n_candidates = len(linear)
    if k == n_candidates:
        return list(range(k)), "all candidates allowed"
    if math.comb(n_candidates, k) <= _MAX_SUBSETS:
        subsets = list(itertools.combinations(range(n_candidates), k))
        return list(_best_of(subsets, quadratic, linear, upper)), f"best {k} by enumeration"
    chosen: tuple[int, ...] = ()
    for _ in range(k):
        larger = [(*chosen, i) for i in range(n_candidates) if i not in chosen]
        chosen = _best_of(larger, quadratic, linear, torch.ones_like(upper))
    return list(chosen), f"{k} chosen greedily"


def _best_of(
    subsets: Sequence[tuple[int, ...]],
    quadratic: torch.Tensor,
    linear: torch.Tensor,
    upper: torch.Tensor,
) -> tuple[int, ...]:
    """Return the subset with the least MMD² among those whose caps leave a mixture."""
    best, least = None, math.inf
    for start in range(0, len(subsets), _SUBSETS_AT_ONCE):
        index = torch.tensor(subsets[start : start + _SUBSETS_AT_ONCE])
        index = index[upper[index].sum(dim=1) >= 1]
        if not len(index):
            continue
        block = quadratic[index.unsqueeze(2), index.unsqueeze(1)]
        weights = minimize_quadratic_on_simplex(block, linear[index], upper[index])
        values = torch.einsum("si,sij,sj->s", weights, block, weights)
        values = values - 2 * (weights * linear[index]).sum(dim=1)
        if float(values.min()) < least:
            least, best = float(values.min()), tuple(index[int(values.argmin())].tolist())
    if best is None:
        raise ConfigError(f"no {counted(len(subsets[0]), 'candidate')} have enough examples")
    return best
