"""Diversity of a candidate: distances of its examples to their medoids."""

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
from synque_select.utils.wording import counted

__all__ = ["MDM"]


class MDM(BaseProxy):
    """Mean distance to the medoid (MDM) within a candidate; higher is more diverse.

    A candidate is clustered by k-medoids (FasterPAM, Euclidean distance); the score is the mean
    over the clusters of the mean distance to the medoid. The real sample is never read, and noise
    maximizes the score, so MDM is never part of a default consensus. Candidates are clustered at a
    common size, on a random subsample.

    Args:
        k: Number of medoids.
        protocol: "default", or "released" to cluster all examples of each candidate in the order
            of its file, as in the authors' code.
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
        """Score the candidates on the CPU; see `BaseProxy.score`."""
        # each swap decides what is compared next: a GPU would be waited for more than it computes
        place = torch.device("cpu")
        return score_defined(real, candidates, place, lambda parts: self._score(parts, seed))

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        released = self.protocol == "released"
        # with k fixed, the distance depends on the size: each medoid is itself at distance 0, which
        # counts for much in a small candidate
        m = prepared.common_size(self.max_examples)
        values = []
        for position, part in enumerate(prepared.inputs):
            # the local optimum of k-medoids depends on the order of the rows: the authors' values
            # need their order, all others the one that follows the content
            points = prepared.rows(position, None if released else content_order(part, seed)[:m])
            values.append(mean_distance_to_medoids(points, self.k))
        sizes = [len(part) if released else m for part in prepared.inputs]
        # a 0 from too few examples says nothing about diversity: marked as unreliable
        few = [p.name for p, n in zip(prepared.inputs, sizes, strict=True) if n <= self.k]
        message = (
            f"mdm is 0 where each of at most {counted(self.k, 'example')} is its own medoid "
            f"(k={self.k}): {', '.join(few)}",
        )
        # no `resample`: the score does not depend on the real sample
        return ProxyScores(
            values=torch.tensor(values, dtype=torch.float64),
            messages=(
                *(() if released else size_message(prepared, m, "by a random subsample")),
                *(message if few else ()),
            ),
            reliable=not few,
        )
