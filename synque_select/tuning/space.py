"""The space of mixtures to search, and the starting points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.types import Mixture, Ranking
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

__all__ = ["MixtureSpace", "is_mixture_parameter", "starting_mixtures"]

_LEAST = 1e-3  # a smaller share is less than one draw in 1,000
_TOP = 0.8  # u of the largest share of a start: leaves the sampler room on both sides
_STARTS = (1, 2, 3, 5, 8, 13, 21)
# with a prefix, because a user's hyper-parameter may be named "k"
_K, _SHARE = "mixture/k", "mixture/share "


@dataclass(frozen=True)
class MixtureSpace:
    r"""Mixtures of k of K candidates, as K + 1 parameters that every point has.

    The parameters are one integer k, named `mixture/k`, and for each candidate a number u in
    [0, 1], named `mixture/share <name>`. The k candidates with the largest u are selected; their
    weights are

    .. math:: w_a = g_a / \sum_{b \text{ selected}} g_b, \quad g_a = -\ln(1 - u_a)

    the quantiles of a Gamma(1) distribution: under uniform u every subset of k is equally likely,
    and with k = K the weights are uniform on the simplex (a flat Dirichlet distribution). No
    parameter depends on another's value, so samplers that model parameters jointly (multivariate
    TPE, GP, CMA-ES) see all of them in every trial; with conditional parameters they would see each
    in only some of the trials. Every mixture is a point of the space (`params`), so a search can
    start from any mixture.

    Args:
        names: Names of the candidates, best of the proxies' ranking first.
        k_range: Smallest and largest number of candidates in a mixture.

    Raises:
        ConfigError: `k_range` is not within 1..K.

    Example:
        >>> space = MixtureSpace(("a", "b", "c"), (1, 3))
        >>> point = space.params(Mixture({"a": 0.75, "c": 0.25}))
        >>> point["mixture/k"], space.mixture(point).weights
        (2, {'a': 0.75, 'c': 0.25})
    """

    names: tuple[str, ...]
    k_range: tuple[int, int]

    def __post_init__(self) -> None:
        low, high = self.k_range
        if not 1 <= low <= high <= len(self.names):
            raise ConfigError(
                f"k_range={self.k_range}: allowed are two numbers, 1 <= smallest <= largest <= "
                f"{len(self.names)}, the number of candidates"
            )

    @property
    def parameter_names(self) -> frozenset[str]:
        """The names of all parameters, which a user's hyper-parameters must not have."""
        return frozenset((_K, *map(_share, self.names)))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each parameter, as `suggest` draws it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        shares = {_share(name): FloatDistribution(0.0, 1.0) for name in self.names}
        return {_K: IntDistribution(*self.k_range), **shares}

    def suggest(self, trial: Trial) -> Mixture:
        """Let an Optuna trial choose a mixture."""
        point: dict[str, float] = {_K: trial.suggest_int(_K, *self.k_range)}
        for name in self.names:
            point[_share(name)] = trial.suggest_float(_share(name), 0.0, 1.0)
        return self.mixture(point)

    def mixture(self, point: Mapping[str, float]) -> Mixture:
        """Return the mixture of a point; shares under one draw in 1,000 are left out."""
        shares = {name: point[_share(name)] for name in self.names}
        # the sort is stable: of equal shares the better ranked candidate comes first
        selected = sorted(shares, key=lambda name: -shares[name])[: int(point[_K])]
        # u = 1 would be an infinite weight
        gammas = {name: -math.log1p(-min(shares[name], 1 - 1e-9)) for name in selected}
        total = sum(gammas.values())
        if not total > 0:
            return Mixture.equal(selected, "tuned")
        kept = {name: g for name, g in gammas.items() if g / total >= _LEAST}
        total = sum(kept.values())
        return Mixture({name: g / total for name, g in kept.items()}, "tuned")

    def params(self, mixture: Mixture) -> dict[str, float]:
        """Return the point of a mixture; the other candidates get smaller shares in their order.

        Raises:
            ConfigError: The mixture has too few or too many candidates for the space.
        """
        low, high = self.k_range
        if not low <= len(mixture.weights) <= high:
            raise ConfigError(
                f"{counted(len(mixture.weights), 'candidate')}: allowed are {low} to {high}"
            )
        scale = -math.log1p(-_TOP) / max(mixture.weights.values())
        shares = {name: -math.expm1(-scale * w) for name, w in mixture.weights.items()}
        least, n = min(shares.values()), len(self.names)
        for place, name in enumerate(self.names):
            shares.setdefault(name, least / 2 * (1 - place / n))
        point: dict[str, float] = {_K: len(mixture.weights)}
        return point | {_share(name): shares[name] for name in self.names}


def is_mixture_parameter(name: str) -> bool:
    """Return whether a parameter is one of a `MixtureSpace`, of whatever candidates.

    Example:
        >>> is_mixture_parameter("mixture/k"), is_mixture_parameter("lr")
        (True, False)
    """
    return name == _K or name.startswith(_SHARE)


def _share(name: str) -> str:
    return f"{_SHARE}{name}"


def starting_mixtures(
    ranking: Ranking, space: MixtureSpace, optimal: Mixture | None = None
) -> dict[str, Mixture]:
    """Return the mixtures that a search tries first, by name: what the proxies suggest.

    In this order: what the ranking selects, all candidates, the MMD-optimal mixture, then the top
    1, 2, 3, 5, 8, …. Mixtures outside the space and repeated mixtures are left out.

    Args:
        ranking: The ranking of the candidates.
        space: Which mixtures are allowed.
        optimal: The MMD-optimal mixture, if it exists.
    """
    n_defined = sum(not math.isnan(row.ranks[ranking.rank_by]) for row in ranking)
    k = ranking.top_k
    starts = {"recommended" if k is None else _top(k): ranking.top(k)}
    starts["all"] = Mixture.equal(space.names, "all, equal weights")
    if optimal is not None:
        starts["MMD-optimal"] = optimal
    starts |= {_top(k): ranking.top(k) for k in _STARTS if k <= n_defined}
    low, high = space.k_range
    kept: dict[str, Mixture] = {}
    for name, mixture in starts.items():
        known = [other.weights for other in kept.values()]
        if low <= len(mixture.weights) <= high and dict(mixture.weights) not in known:
            kept[name] = mixture
    return kept


def _top(k: int) -> str:
    return f"top {k}"
