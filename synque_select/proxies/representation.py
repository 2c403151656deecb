"""Proxies over embeddings: domain classifier, nearest neighbours, medoids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from synque_select.functional.coverage import coverage_distances
from synque_select.functional.medoids import mean_distance_to_medoids
from synque_select.functional.pad import (
    CrossFit,
    cross_fit,
    proxy_a_distance_released,
    stratified_folds,
)
from synque_select.functional.pairwise import nearest_distances, precise
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    Protocol,
    check_choice,
    check_count,
    content_order,
    example_groups,
    score_defined,
)
from synque_select.proxies.kernel import MMD, Energy

__all__ = ["MDM", "MMD", "PAD", "Coverage", "Energy"]


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
        distances = torch.stack(
            [
                coverage_distances(prepared.real, prepared.embeddings(position), m)
                for position in range(len(prepared.inputs))
            ],
            1,
        ).cpu()
        return ProxyScores(
            values=distances.mean(0),
            resample=lambda weights: weights.cpu() @ distances,
            example_scores=lambda k: _nearness(prepared, k),
            messages=size_message(prepared, m, "by exact expectation"),
        )


def size_message(prepared: Prepared, m: int, how: str) -> tuple[str, ...]:
    """Say at which common size the candidates were scored, where one of them is larger."""
    larger = sum(len(part) > m for part in prepared.inputs)
    if not larger:
        return ()
    return (f"scored at a common size of {m} examples {how} ({larger} candidates have more)",)


def _nearness(prepared: Prepared, position: int) -> torch.Tensor:
    """Distance of each synthetic example to its nearest real one, negated."""
    with precise():
        return -nearest_distances(prepared.rows(position), prepared.real).squeeze(1).cpu()


class MDM(BaseProxy):
    """Mean distance to the medoids of the candidate alone; higher is more diverse.

    k-medoids (FasterPAM, Euclidean), then the mean over the clusters of the mean distance to the
    medoid. It never reads the real sample, and noise maximises it: never in a default consensus.
    Candidates are clustered at a common size, by a random subsample.

    Args:
        k: Number of medoids.
        protocol: "default", or "released": all examples of each candidate in their order.
        max_examples: Largest common size; the cost grows with its square.

    Source: SynQuE (arXiv 2511.03928); Schubert and Rousseeuw 2021.

    Example:
        >>> MDM(protocol="released").options()["k"]
        5
    """

    key = "mdm"
    higher_is_better = True
    unit = "distance between embeddings"
    source = "arXiv 2511.03928"
    family = "diversity"

    def __init__(
        self, *, k: int = 5, protocol: Protocol = "default", max_examples: int = 10_000
    ) -> None:
        self.k = check_count("k", k, at_least=1)
        self.protocol = check_choice("protocol", protocol, Protocol)
        self.max_examples = check_count("max_examples", max_examples, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        released = self.protocol == "released"
        m = prepared.common_size(self.max_examples)
        values = []
        for position, part in enumerate(prepared.inputs):
            points = prepared.rows(position, None if released else content_order(part, seed)[:m])
            values.append(mean_distance_to_medoids(points, self.k))
        return ProxyScores(
            values=torch.tensor(values, dtype=torch.float64),
            messages=() if released else size_message(prepared, m, "by a random subsample"),
        )


class PAD(BaseProxy):
    """Proxy A-distance: how well a linear classifier tells real from synthetic; lower is closer.

    2 (1 − 2ε), ε the mean of the two classes' held-out soft errors |p − y| of a logistic
    regression (L2, C = 1, no standardising, classes weighted to balance), cross-fitted over
    stratified folds; equal examples stay in one fold. 0 is chance, 2 is perfectly told apart. All
    candidates are scored at a common size, by a random subsample, as a classifier that sees more
    examples finds more differences.

    Args:
        n_folds: At most; never more than a class has distinct examples.
        protocol: "default", or "released": the authors' (one 80/20 split with seed 42 of the rows
            stacked synthetic then real, unweighted, not stratified).
        max_examples: Largest common size.

    Source: Ben-David et al. 2007; SynQuE (arXiv 2511.03928).

    Example:
        >>> PAD().options()
        {'n_folds': 5, 'protocol': 'default', 'max_examples': 20000}
    """

    key = "pad"
    higher_is_better = False
    unit = "2(1 - 2 error)"
    source = "Ben-David et al. 2007"
    family = "domain"

    def __init__(
        self, *, n_folds: int = 5, protocol: Protocol = "default", max_examples: int = 20_000
    ) -> None:
        self.n_folds = check_count("n_folds", n_folds, at_least=2)
        self.protocol = check_choice("protocol", protocol, Protocol)
        self.max_examples = check_count("max_examples", max_examples, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        if self.protocol == "released":
            return score_defined(real, candidates, device, _released_pad)
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        m = prepared.common_size(self.max_examples)
        chosen = [content_order(part, seed)[:m] for part in prepared.inputs]
        fits = [self._fit(prepared, k, rows, seed) for k, rows in enumerate(chosen)]
        n = len(prepared.real)
        missing = torch.full((n + m,), torch.nan, dtype=torch.float64)
        chances = torch.stack(
            [missing if fit is None else fit.probabilities[0].cpu() for fit in fits], 1
        )
        real_errors, synthetic_errors = 1 - chances[:n], chances[n:].mean(0)
        return ProxyScores(
            values=2 * (1 - (real_errors.mean(0) + synthetic_errors)),
            resample=lambda weights: 2 * (1 - (weights.cpu() @ real_errors + synthetic_errors)),
            messages=size_message(prepared, m, "by a random subsample"),
        )

    def _fit(
        self, prepared: Prepared, position: int, chosen: np.ndarray, seed: int
    ) -> CrossFit | None:
        real_groups = example_groups(prepared.real_input).astype(np.int64)
        groups = example_groups(prepared.inputs[position])[chosen].astype(np.int64)
        folds = stratified_folds(real_groups, groups, self.n_folds, seed=seed)
        if folds is None:
            return None
        features = torch.cat((prepared.real, prepared.rows(position, chosen)))
        is_real = torch.arange(len(features), device=features.device) < len(prepared.real)
        return cross_fit(
            features.unsqueeze(0), is_real, torch.from_numpy(folds).to(features.device).unsqueeze(0)
        )


def _released_pad(prepared: Prepared) -> ProxyScores:
    values = [
        proxy_a_distance_released(prepared.real, prepared.rows(position))
        for position in range(len(prepared.inputs))
    ]
    return ProxyScores(values=torch.tensor(values, dtype=torch.float64))
