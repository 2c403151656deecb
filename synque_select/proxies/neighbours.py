"""Nearest-neighbor proxies: coverage distance, k-NN density and k-NN coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from synque_select.functional.coverage import (
    counts_within,
    coverage_distances,
    knn_coverage,
    knn_density,
    mixture_coverage_distances,
    order_weights,
    real_radii,
    stacked_counts_within,
    stacked_coverage_distances,
)
from synque_select.functional.pairwise import nearest_distances, precise
from synque_select.proxies.base import BaseProxy, Contributions, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    mixture_of_defined,
    real_groups,
    score_defined,
    similar_sizes,
    size_message,
    sizes_of,
)
from synque_select.utils.device import batch_bytes, in_batches

__all__ = ["Coverage", "Density", "KNNCoverage"]


class Coverage(BaseProxy):
    """Mean distance from each real example to its nearest synthetic one; lower is closer.

    Nearest-neighbor distances fall as a candidate grows. All candidates are therefore scored at
    the size m of the smallest one, by the exact expectation over random subsamples without
    replacement: Σ_j d_(j) C(N−j, m−1) / C(N, m), with distances d_(1) ≤ … ≤ d_(N).

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

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return the score of mixtures; see `BaseProxy.mixture_score`."""
        return mixture_of_defined(real, candidates, device, _mixture_coverage)

    def _score(self, prepared: Prepared) -> ProxyScores:
        # an expectation instead of one random subsample: two candidates then never change places
        # by the luck of a draw
        m = prepared.common_size()
        real = prepared.real
        distances = _of_each(
            prepared,
            lambda x: coverage_distances(real, x, m),
            lambda x, sizes, lengths: stacked_coverage_distances(
                real, x, sizes, _weights(lengths, m).to(real.device)
            ),
        )
        return ProxyScores(
            values=distances.mean(0),
            # one term per real example, which depends on no other real example: reweighting the
            # rows is the resampling. The candidate stays fixed, as copies among its examples
            # would make nearest distances too long (95 % intervals held 70 %)
            resample=Contributions(distances),
            example_scores=lambda k: _nearness(prepared, k),
            messages=size_message(prepared, m, "by exact expectation"),
            mixture=_mixture_coverage(prepared),
        )


class Density(BaseProxy):
    """Relative number of synthetic examples in the real examples' k-NN balls; higher is better.

    1/(kN) Σ_j Σ_i 1[‖s_j − r_i‖ ≤ distance of r_i to its k-th nearest real neighbor], with
    k = min(5, ⌊√n⌋), neighbors of other groups if the real sample has groups. It is about 1 for
    equal distributions and 0 if no synthetic example is close to a real one. Its expectation over
    subsamples does not depend on their size. No interval is given: the balls depend on the whole
    real sample, and intervals that hold the balls fixed contain the true value in 60 to 90 % of
    cases at a nominal 95 %.

    Source: Naeem et al. 2020, equation 3.

    Example:
        >>> Density().higher_is_better
        True
    """

    key = "density"
    higher_is_better = True
    unit = "share of the expected neighbors"
    source = "Naeem et al. 2020"
    family = "coverage"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, self._score)

    def _score(self, prepared: Prepared) -> ProxyScores:
        # the balls come from the real sample alone, so all candidates are measured by the same ones
        k = n_neighbours(len(prepared.real))
        radii = real_radii(prepared.real, k, real_groups(prepared.real_input))

        # all N examples: a mean count per example has the same expectation at every size, and a
        # subsample would only add noise
        counts = _counts(prepared, radii)
        columns = [
            knn_density(column, k, len(part))
            for column, part in zip(counts.T, prepared.inputs, strict=True)
        ]
        return ProxyScores(
            values=torch.stack(columns, 1).mean(0),
            example_scores=lambda k: _nearness(prepared, k),
        )


class KNNCoverage(BaseProxy):
    """Share of the real examples whose k-NN ball contains a synthetic one; higher is better.

    Scored with m synthetic examples, m the size of the real sample or of the smallest candidate if
    that is less, by the exact expectation over random subsamples:
    mean_i (1 − C(N−c_i, m) / C(N, m)), with c_i synthetic examples in the ball of r_i and
    k = min(5, ⌊√n⌋), neighbors of other groups if there are any. No interval is given, for
    the same reason as for `Density`.

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
        # no more synthetic than real examples: a large enough candidate has an example in every
        # ball, and all candidates would reach 1
        m = prepared.common_size(n)
        radii = real_radii(prepared.real, n_neighbours(n), real_groups(prepared.real_input))

        counts = _counts(prepared, radii)
        columns = [
            knn_coverage(column, len(part), m)
            for column, part in zip(counts.T, prepared.inputs, strict=True)
        ]
        return ProxyScores(
            values=torch.stack(columns, 1).mean(0),
            example_scores=lambda k: _nearness(prepared, k),
            messages=size_message(prepared, m, "by exact expectation"),
        )


def _mixture_coverage(prepared: Prepared) -> Callable[[torch.Tensor], float]:
    m = prepared.common_size()

    def mixture(weights: torch.Tensor) -> float:
        # m draws for the mixture, as for every candidate. Fractions are kept: rounded, a small
        # change of the weights would often change nothing
        w = weights.tolist()
        used = [k for k, weight in enumerate(w) if weight]
        draws = [w[k] * m for k in used]
        with precise():
            parts = [prepared.embeddings(k) for k in used]
            return float(mixture_coverage_distances(prepared.real, parts, draws).mean())

    return mixture


def n_neighbours(n_real: int) -> int:
    """Return the number of neighbors that defines a ball, k = min(5, ⌊√n⌋).

    Args:
        n_real: n, the size of the real sample.

    Example:
        >>> n_neighbours(2), n_neighbours(20), n_neighbours(200)
        (1, 4, 5)
    """
    # 5 is the choice of Naeem et al. for thousands of examples. In a sample of 10, a ball up to the
    # fifth neighbor would span half the sample and contain examples of nearly every candidate
    return min(5, math.isqrt(n_real))


def _counts(prepared: Prepared, radii: torch.Tensor) -> torch.Tensor:
    """Return the number of examples of each candidate in each ball, (n, K) int64, on the CPU."""
    real = prepared.real
    return _of_each(
        prepared,
        lambda x: counts_within(real, x, radii),
        lambda x, sizes, _: stacked_counts_within(real, x, sizes, radii),
    )


def _weights(lengths: Sequence[int], m: int) -> torch.Tensor:
    """Return the `order_weights` of sets of these sizes, (G, J) float64, followed by 0."""
    known = {n: order_weights(n, m) for n in set(lengths)}
    return torch.nn.utils.rnn.pad_sequence([known[n] for n in lengths], batch_first=True)


def _of_each(
    prepared: Prepared,
    one: Callable[[torch.Tensor], torch.Tensor],
    stacked: Callable[[torch.Tensor, torch.Tensor | None, Sequence[int]], torch.Tensor],
) -> torch.Tensor:
    """Return what is computed of each real example and each candidate, (n, K), on the CPU.

    Args:
        prepared: The real sample and the candidates.
        one: Computes it for one candidate, from its embeddings as they are given: it reads them in
            blocks, so that a memory-mapped candidate is never loaded as a whole.
        stacked: Computes it, (G, n), for several candidates that are small enough to fill a GPU
            only together, from their stacked rows and sizes, on the device and as numbers.
    """
    real, n_parts = prepared.real, len(prepared.inputs)
    lengths = [len(part) for part in prepared.inputs]
    columns: dict[int, torch.Tensor] = {}
    if not real.is_cuda:
        return torch.stack([one(prepared.embeddings(k)) for k in range(n_parts)], 1).cpu()
    budget = batch_bytes(real)
    # rows as stored, copied and shifted; distances, and what sorts them
    per_row = real.element_size() * (4 * real.shape[1] + 6 * len(real))
    for group in similar_sizes(lengths):
        n_bytes = per_row * lengths[group[0]]
        if n_bytes > budget:
            columns |= {k: one(prepared.embeddings(k)) for k in group}
            continue

        def load(part: Sequence[int]) -> torch.Tensor:
            return prepared.stacked(part, [np.arange(lengths[k]) for k in part])

        def compute(part: Sequence[int], rows: torch.Tensor) -> torch.Tensor:
            sizes = sizes_of([lengths[k] for k in part], real.device)
            return stacked(rows, sizes, [lengths[k] for k in part])

        results = torch.cat(in_batches(group, budget // n_bytes, real, load, compute))
        columns |= dict(zip(group, results, strict=True))
    return torch.stack([columns[k] for k in range(n_parts)], 1).cpu()


def _nearness(prepared: Prepared, position: int) -> torch.Tensor:
    """Return the negated distance of each synthetic example to its nearest real one."""
    # negated, because example scores are higher for more realistic examples; not at a common size,
    # because the real examples are the neighbors here, and they are the same for all candidates
    with precise():
        return -nearest_distances(prepared.rows(position), prepared.real).squeeze(1).cpu()
