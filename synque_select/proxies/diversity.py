"""How diverse a candidate is: distances to its own medoids."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synque_select.functional.medoids import mean_distance_to_medoids
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    Protocol,
    check_choice,
    check_count,
    content_order,
    score_defined,
    size_message,
)

__all__ = ["MDM"]


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
        sizes = [len(part) if released else m for part in prepared.inputs]
        few = [p.name for p, n in zip(prepared.inputs, sizes, strict=True) if n <= self.k]
        message = (
            f"mdm is 0 where each of at most {self.k} examples is its own medoid (k={self.k}): "
            f"{', '.join(few)}",
        )
        return ProxyScores(
            values=torch.tensor(values, dtype=torch.float64),
            messages=(
                *(() if released else size_message(prepared, m, "by a random subsample")),
                *(message if few else ()),
            ),
            reliable=not few,
        )
