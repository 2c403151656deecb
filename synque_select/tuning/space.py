"""The space of mixtures that is searched, and where the search starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.types import Mixture, Ranking

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["MixtureSpace", "starting_mixtures"]

_LEAST = 1e-3  # a smaller share is less than one draw in 1,000
_TOP = 0.8  # where the largest share of a start lies: with room on both sides
_STARTS = (1, 2, 3, 5, 8, 13, 21)


@dataclass(frozen=True)
class MixtureSpace:
    r"""Mixtures of k of K candidates, as K + 1 parameters that are always there.

    One whole number, `k`, and for each candidate a number u in [0, 1], `share <name>`. Chosen are
    the k candidates with the largest u; their weights are

    .. math:: w_a = g_a / \sum_{b \text{ chosen}} g_b, \quad g_a = -\ln(1 - u_a)

    the quantiles of a Gamma(1) distribution: under uniform u every subset of k is as likely as any
    other, and with k = K the weights are uniform on the simplex (a flat Dirichlet distribution).
    No parameter depends on another's value, so that samplers that model parameters together
    (multivariate TPE, GP, CMA-ES) see all of them in every trial; conditional parameters would
    leave each with a part of the trials. Every mixture is a point of the space (`params`), so that
    a search can start from any.

    Args:
        names: The candidates, the best of the proxies' ranking first.
        k_range: Least and largest number of candidates in a mixture.

    Raises:
        ConfigError: `k_range` is not within 1..K.

    Example:
        >>> space = MixtureSpace(("a", "b", "c"), (1, 3))
        >>> point = space.params(Mixture({"a": 0.75, "c": 0.25}))
        >>> point["k"], space.mixture(point).weights
        (2, {'a': 0.75, 'c': 0.25})
    """

    names: tuple[str, ...]
    k_range: tuple[int, int]

    def __post_init__(self) -> None:
        low, high = self.k_range
        if not 1 <= low <= high <= len(self.names):
            raise ConfigError(
                f"k_range={self.k_range}: allowed are two numbers, 1 <= least <= largest <= "
                f"{len(self.names)}, the number of candidates"
            )

    def suggest(self, trial: Trial) -> Mixture:
        """Let an Optuna trial choose a mixture."""
        point: dict[str, float] = {"k": trial.suggest_int("k", *self.k_range)}
        for name in self.names:
            point[_share(name)] = trial.suggest_float(_share(name), 0.0, 1.0)
        return self.mixture(point)

    def mixture(self, point: Mapping[str, float]) -> Mixture:
        """Return the mixture of a point; shares under one draw in 1,000 are left out."""
        shares = {name: point[_share(name)] for name in self.names}
        # the sort is stable: of equal ones the better ranked come first
        chosen = sorted(shares, key=lambda name: -shares[name])[: int(point["k"])]
        gammas = {name: -math.log1p(-min(shares[name], 1 - 1e-9)) for name in chosen}
        total = sum(gammas.values())
        if not total > 0:
            return Mixture.equal(chosen, "tuned")
        kept = {name: g for name, g in gammas.items() if g / total >= _LEAST}
        total = sum(kept.values())
        return Mixture({name: g / total for name, g in kept.items()}, "tuned")

    def params(self, mixture: Mixture) -> dict[str, float]:
        """Return the point of a mixture; candidates that are not in it wait in their order.

        Raises:
            ConfigError: The mixture has too few or too many candidates for the space.
        """
        low, high = self.k_range
        if not low <= len(mixture.weights) <= high:
            raise ConfigError(f"{len(mixture.weights)} candidates: allowed are {low} to {high}")
        scale = -math.log1p(-_TOP) / max(mixture.weights.values())
        shares = {name: -math.expm1(-scale * w) for name, w in mixture.weights.items()}
        least, n = min(shares.values()), len(self.names)
        for place, name in enumerate(self.names):
            shares.setdefault(name, least / 2 * (1 - place / n))
        point: dict[str, float] = {"k": len(mixture.weights)}
        return point | {_share(name): shares[name] for name in self.names}


def _share(name: str) -> str:
    return f"share {name}"


def starting_mixtures(
    ranking: Ranking, space: MixtureSpace, optimal: Mixture | None = None
) -> dict[str, Mixture]:
    """Return what a search tries first, by name: what the proxies advise, for several k.

    In this order: the ranking's top k, all candidates, the MMD-optimal mixture, then the top 1, 2,
    3, 5, 8, …; what the space does not hold is left out, and so is what was there before.

    Args:
        ranking: What the proxies said.
        space: Which mixtures are allowed.
        optimal: The MMD-optimal mixture, if there is one.
    """
    n_defined = sum(not math.isnan(row.ranks[ranking.rank_by]) for row in ranking)
    found = {_top(k): ranking.top(k) for k in (ranking.top_k,) if k <= n_defined}
    found["all"] = Mixture.equal(space.names, "all, equal weights")
    if optimal is not None:
        found["MMD-optimal"] = optimal
    found |= {_top(k): ranking.top(k) for k in _STARTS if k <= n_defined}
    low, high = space.k_range
    kept: dict[str, Mixture] = {}
    for name, mixture in found.items():
        known = [other.weights for other in kept.values()]
        if low <= len(mixture.weights) <= high and dict(mixture.weights) not in known:
            kept[name] = mixture
    return kept


def _top(k: int) -> str:
    return f"top {k}"
