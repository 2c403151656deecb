"""Proxies over nearest neighbours: coverage distance, k-NN density and coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from synque_select.functional.coverage import (
    counts_within,
    coverage_distances,
    knn_coverage,
    knn_density,
    mixture_coverage_distances,
    real_radii,
)
from synque_select.functional.pairwise import nearest_distances, precise
from synque_select.proxies.base import BaseProxy, Contributions, ProxyInput, ProxyScores
from synque_select.proxies.inputs import Prepared, score_defined, size_message

__all__ = ["Coverage", "Density", "KNNCoverage"]


class Coverage(BaseProxy):
    """Mean distance from each real example to its nearest synthetic one; lower is closer.

    Nearest distances fall with the number of examples, so all candidates are scored at the size m
    of the smallest, by the exact expectation over subsamples without replacement:
    Σ_j d_(j) C(N−j, m−1) / C(N, m).

    Source: directed Chamfer distance.

    Example:
        >>> Coverage().unit
        'distance between embeddings'
    """

    key = "coverage"
    higher_is_better = False
    unit = "distance between embeddings"
    source = "directed Chamfer distance"
    family = "coverage"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, self._score)

    def _score(self, prepared: Prepared) -> ProxyScores:
        m = prepared.common_size()
        distances = _of_each(prepared, lambda x: coverage_distances(prepared.real, x, m))
        return ProxyScores(
            values=distances.mean(0),
            resample=Contributions(distances),
            example_scores=lambda k: _nearness(prepared, k),
            messages=size_message(prepared, m, "by exact expectation"),
            mixture=lambda weights: _mixture_coverage(prepared, m, weights),
        )


class Density(BaseProxy):
    """How many synthetic examples lie in the real examples' k-NN balls; higher is better.

    1/(kN) Σ_j Σ_i 1[‖s_j − r_i‖ ≤ distance of r_i to its k-th nearest real neighbour], with
    k = min(5, ⌊√n⌋): about 1 for equal distributions, 0 where none lies near. Its expectation over
    subsamples does not depend on their size. It has no interval: the balls depend on the whole
    real sample, and with the balls held fixed an interval of nominal 95 % holds 60 to 90 %.

    Source: Naeem et al. 2020, equation 3.

    Example:
        >>> Density().higher_is_better
        True
    """

    key = "density"
    higher_is_better = True
    unit = "share of the expected neighbours"
    source = "Naeem et al. 2020"
    family = "coverage"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, self._score)

    def _score(self, prepared: Prepared) -> ProxyScores:
        k = n_neighbours(len(prepared.real))
        radii = real_radii(prepared.real, k)

        def density(points: torch.Tensor) -> torch.Tensor:
            return knn_density(counts_within(prepared.real, points, radii), k, len(points))

        return ProxyScores(
            values=_of_each(prepared, density).mean(0),
            example_scores=lambda k: _nearness(prepared, k),
        )


class KNNCoverage(BaseProxy):
    """Share of the real examples whose k-NN ball holds a synthetic example; higher is better.

    At as many synthetic as real examples (or the size of the smallest candidate, if less), by the
    exact expectation over subsamples: mean_i (1 − C(N−c_i, m) / C(N, m)) with c_i synthetic
    examples in the ball of r_i and k = min(5, ⌊√n⌋). It has no interval, as `Density` has none.

    Source: Naeem et al. 2020, equation 4.

    Example:
        >>> KNNCoverage().family
        'coverage'
    """

    key = "knn_coverage"
    higher_is_better = True
    unit = "share of the real examples"
    source = "Naeem et al. 2020"
    family = "coverage"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, self._score)

    def _score(self, prepared: Prepared) -> ProxyScores:
        n = len(prepared.real)
        m = prepared.common_size(n)
        radii = real_radii(prepared.real, n_neighbours(n))

        def chances(points: torch.Tensor) -> torch.Tensor:
            return knn_coverage(counts_within(prepared.real, points, radii), len(points), m)

        return ProxyScores(
            values=_of_each(prepared, chances).mean(0),
            example_scores=lambda k: _nearness(prepared, k),
            messages=size_message(prepared, m, "by exact expectation"),
        )


def _mixture_coverage(prepared: Prepared, m: int, weights: torch.Tensor) -> float:
    used = weights.nonzero().flatten().tolist()
    draws = [float(weights[k]) * m for k in used]
    with precise():
        parts = [prepared.embeddings(k) for k in used]
        return float(mixture_coverage_distances(prepared.real, parts, draws).mean())


def n_neighbours(n_real: int) -> int:
    """Return k = min(5, ⌊√n⌋).

    Example:
        >>> n_neighbours(2), n_neighbours(20), n_neighbours(200)
        (1, 4, 5)
    """
    return min(5, math.isqrt(n_real))


def _of_each(
    prepared: Prepared, contribution: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What each real example contributes for each candidate, (n, K) float64."""
    positions = range(len(prepared.inputs))
    return torch.stack([contribution(prepared.embeddings(k)) for k in positions], 1).cpu()


def _nearness(prepared: Prepared, position: int) -> torch.Tensor:
    """Distance of each synthetic example to its nearest real one, negated."""
    with precise():
        return -nearest_distances(prepared.rows(position), prepared.real).squeeze(1).cpu()
