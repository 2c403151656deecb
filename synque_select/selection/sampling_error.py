"""The error of scores where only some examples of a candidate, drawn at random, were scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.proxies.base import ProxyInput, ProxyScores

__all__ = ["with_sampling_error"]

_N_GROUPS = 10
# below this share of the scores, an error is one of rounding
_ROUNDING = 1e-6


def with_sampling_error(
    scores: ProxyScores,
    inputs: Sequence[ProxyInput],
    score: Callable[[Sequence[ProxyInput]], torch.Tensor],
    seed: int,
    *,
    reads_records: bool = False,
    reads_others: bool = False,
) -> ProxyScores:
    """Add the error of the draw to the spread of the scores, which their intervals contain.

    It is estimated by the delete-a-group jackknife: the m drawn examples of each candidate are
    divided at random into G = 10 groups, and all candidates are scored without their g-th group,
    s_g. The squared error is (1 − m/N) (G − 1)/G Σ_g (s_g − s̄)², with N all examples: nothing is
    left of it if all were drawn, or if the score reads exact counts. A proxy that reads records,
    for which each takes time, scores each group alone, s_g: (1 − m/N) Σ_g (s_g − s̄)² / (G(G − 1)).

    Args:
        scores: The scores.
        inputs: The real sample and the candidates.
        score: Scores other inputs: (K,) float64.
        seed: Random seed for the groups.
        reads_records: Whether the proxy reads records.
        reads_others: Whether the score of a candidate depends on the examples of the others.

    Returns:
        The same scores; a message has the largest error, and `details` have all.

    Source:
        Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17.
    """
    real, *candidates = inputs
    if all(part.population is None for part in candidates):
        return scores
    groups = [_groups(part, seed + i) for i, part in enumerate(candidates)]
    scored = []
    for g in range(_N_GROUPS):
        kept = [
            None if own is None else np.flatnonzero((own == g) == reads_records) for own in groups
        ]
        scored.append(score([real, *map(_part, candidates, kept)]))
    each = torch.stack(scored).double()
    each = torch.where(each.isnan(), each.nanmean(dim=0), each)  # undefined with fewer examples
    left = torch.tensor([1 - len(part) / part.n_all for part in candidates], dtype=torch.float64)
    if reads_others:
        left = left.max().expand(len(candidates))
    squared = (each - each.mean(dim=0)).square().sum(dim=0)
    weight = 1 / (_N_GROUPS - 1) if reads_records else _N_GROUPS - 1
    variance = left * squared * weight / _N_GROUPS
    variance = torch.where(variance.sqrt() > _ROUNDING * scores.values.abs(), variance, 0.0)
    if not bool((variance > 0).any()):
        return scores
    errors = variance.sqrt()
    names = [part.name for part in candidates]
    largest = int(errors.nan_to_num(-1).argmax())
    message = (
        "the random draw of examples adds a standard error of up to "
        f"{float(errors[largest]):.2g} ({names[largest]}), which intervals and comparisons contain"
    )
    own = torch.zeros_like(variance) if scores.spread is None else scores.spread.double().square()
    of_draw = {name: error for name, error in zip(names, errors.tolist(), strict=True) if error > 0}
    return replace(
        scores,
        spread=(own + variance.to(own)).sqrt(),
        messages=(*scores.messages, message),
        details={**scores.details, "error_of_draw": of_draw},
    )


def _groups(part: ProxyInput, seed: int) -> NDArray[np.int64] | None:
    """Return the group of each example; None for a candidate whose examples are all here."""
    if part.population is None:
        return None
    return np.random.default_rng(seed).permutation(np.arange(len(part)) % _N_GROUPS)


def _part(part: ProxyInput, kept: NDArray[np.int64] | None) -> ProxyInput:
    """Return an input with some of its examples; itself for None."""
    if kept is None:
        return part
    labels = None if part.labels is None else [part.labels[int(i)] for i in kept]
    return replace(
        part,
        # views are not sent to a proxy that reads embeddings
        views=_At(part.views, kept) if len(part.views) else part.views,
        digests=part.digests[kept],
        embeddings=None if part.embeddings is None else part.embeddings[torch.from_numpy(kept)],
        records=None if part.records is None else _At(part.records, kept),
        labels=labels,
    )


@dataclass(frozen=True, eq=False)
class _At(Sequence[Any]):
    """Some items of a sequence."""

    items: Any
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self.items[int(i)] for i in self.positions[index]]
        return self.items[int(self.positions[index])]
