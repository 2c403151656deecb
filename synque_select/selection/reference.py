"""What the real sample scores against itself: the scale on which candidates' scores are read."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.errors import ProxyError
from synque_select.proxies.base import BaseProxy, ProxyInput

__all__ = ["reference_scores"]

_log = logging.getLogger(__name__)

_N_HALVINGS = 5
# under ten examples in a half, folds, neighbors and bandwidths say nothing
_LEAST_HALF = 10
_LARGEST_HALF = 1000


def reference_scores(
    real: ProxyInput, suite: Sequence[BaseProxy], *, seed: int, device: torch.device
) -> dict[str, float]:
    """Score one half of the real sample as a candidate against the other half, by each proxy.

    The score is the mean over 5 random halvings, at the size of a half, which is at most 1,000
    examples. Examples of one group stay in one half. Proxies that ask a language model, or that
    read more of an example than its view, are left out.

    Args:
        real: The real sample.
        suite: The proxies.
        seed: Random seed for the halvings and the proxies.
        device: Device to compute on.

    Returns:
        Proxy key to score; without the proxies that cannot score a half, and empty where a half has
        fewer than 10 examples.
    """
    halvings = _halvings(real, seed)
    scores = {}
    for proxy in suite:
        if proxy.family == "lens" or proxy.needs_records or not halvings:
            continue
        try:
            values = [
                float(proxy.score(first, [second], seed=seed, device=device).values[0])
                for first, second in halvings
            ]
        except ProxyError:  # it needs more examples than a half has
            continue
        except Exception as error:
            # a proxy of the user's may expect two candidates: its ranking must not fail for a scale
            _log.debug("no reference score by %s: %s", proxy.key, error)
            continue
        if all(map(math.isfinite, values)):
            scores[proxy.key] = sum(values) / len(values)
    return scores


def _halvings(real: ProxyInput, seed: int) -> list[tuple[ProxyInput, ProxyInput]]:
    """Return pairs of halves; none if they would be too small."""
    groups = np.arange(len(real)) if real.groups is None else real.groups
    pairs = []
    for i in range(_N_HALVINGS):
        first, second = _halves(groups, np.random.default_rng([seed, i]))
        if min(len(first), len(second)) < _LEAST_HALF:
            return []
        pairs.append((_part(real, first), _part(real, second)))
    return pairs


def _halves(
    groups: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of two halves of equal size, with each group in one of them."""
    order = generator.permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order]
    border = int(np.searchsorted(np.cumsum(sizes), len(groups) / 2)) + 1
    is_first = np.isin(groups, order[:border])
    first, second = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    size = min(len(first), len(second), _LARGEST_HALF)
    first, second = (generator.permutation(part)[:size] for part in (first, second))
    return np.sort(first), np.sort(second)


def _part(real: ProxyInput, positions: NDArray[np.int64]) -> ProxyInput:
    return dataclasses.replace(
        real,
        views=[real.views[int(position)] for position in positions],
        digests=real.digests[positions],
        embeddings=None if real.embeddings is None else real.embeddings[positions],
        groups=None if real.groups is None else _renumbered(real.groups[positions]),
    )


def _renumbered(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return numbers
