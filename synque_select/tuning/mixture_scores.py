"""Proxies' scores of a mixture, from the embeddings that its candidates have already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch

from synque_select.data.views import View
from synque_select.proxies.base import BaseProxy, ProxyInput
from synque_select.selection.mixture import mixture_scores
from synque_select.selection.mixture_sample import mixture_positions
from synque_select.selection.scoring import Scoring
from synque_select.types import Mixture
from synque_select.utils.process_state import preserved_state

__all__ = ["MixtureScores"]


@dataclass(frozen=True)
class MixtureScores:
    """Scores mixtures beside the candidates that they consist of; encodes nothing.

    The scores follow from those of the candidates if a proxy supports it (all of the default suite
    do); the other proxies score a seeded sample of the mixture that is as large as its weights
    allow without repeating an example. `ProxyCorrelationCallback` does the same.

    Args:
        scoring: The scored candidates.
        device: Where to compute.
    """

    scoring: Scoring
    device: torch.device

    def of(self, mixture: Mixture, keys: Sequence[str] | None = None) -> dict[str, float]:
        """Return the score of each proxy by key; None for all proxies of the suite."""
        # a mixture cannot be judged by labels: its judges are the candidates that it consists of
        suite = [
            proxy
            for proxy in self.scoring.suite
            if (keys is None or proxy.key in keys) and not proxy.needs_labels
        ]
        with preserved_state():
            scores = mixture_scores(self.scoring, mixture, [proxy.key for proxy in suite])
            rest = [proxy for proxy in suite if proxy.key not in scores]
            if rest:
                sample = self._sample(mixture)
                scores |= {proxy.key: self._score(proxy, sample) for proxy in rest}
        return scores

    def follow_from_candidates(self, mixture: Mixture) -> dict[str, float]:
        """Return the scores that follow from those of the candidates, which is quick."""
        keys = [proxy.key for proxy in self.scoring.suite if not proxy.needs_labels]
        with preserved_state():
            return mixture_scores(self.scoring, mixture, keys)

    def _score(self, proxy: BaseProxy, sample: ProxyInput) -> float:
        scoring = self.scoring
        # beside the candidates, because the common size and the bandwidth depend on all of them
        pool = [*scoring.candidates, sample]
        scores = proxy.score(scoring.real, pool, seed=scoring.seed, device=self.device)
        return float(scores.values[-1])

    def _sample(self, mixture: Mixture) -> ProxyInput:
        scoring = self.scoring
        parts = {candidate.name: candidate for candidate in scoring.candidates}
        sizes = {name: len(part) for name, part in parts.items()}
        sampled = mixture_positions(sizes, mixture, scoring.seed)
        views = [
            (parts[name], i) for name, positions in sampled.items() for i in positions.tolist()
        ]
        digests = [parts[name].digests[positions.numpy()] for name, positions in sampled.items()]
        rows = [
            embeddings[positions.to(embeddings.device)]
            for name, positions in sampled.items()
            if (embeddings := parts[name].embeddings) is not None
        ]
        return ProxyInput(
            "(mixture)",
            _Views(views),
            scoring.modality,
            np.concatenate(digests),
            torch.cat(rows) if rows else None,
        )


class _Views(Sequence[View]):
    """Views of several candidates, read when they are asked for."""

    def __init__(self, places: Sequence[tuple[ProxyInput, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> View: ...

    @overload
    def __getitem__(self, index: slice) -> list[View]: ...

    def __getitem__(self, index: int | slice) -> View | list[View]:
        if isinstance(index, slice):
            return [part.views[i] for part, i in self._places[index]]
        part, i = self._places[index]
        return part.views[i]
