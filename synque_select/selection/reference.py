"""What further real examples would score: the scale on which candidates' scores are read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.groups import one_per_group
from synque_select.errors import ProxyError
from synque_select.functional.ngram import hash_ngrams
from synque_select.functional.pairwise import precise, working_dtype
from synque_select.functional.real_scores import real_coverage_distance, real_cross_entropy
from synque_select.proxies.base import BaseProxy, ProxyInput
from synque_select.proxies.domain import PAD
from synque_select.proxies.kernel import MMD, Energy
from synque_select.proxies.lexical import NGram
from synque_select.proxies.neighbours import Coverage, Density

__all__ = ["reference_scores"]

_N_HALVINGS = 5
# under ten examples in a half, folds, neighbors and bandwidths say nothing
_LEAST_HALF = 10
_LARGEST_HALF = 1000
_MOST_COMPARED = 2000
_SAME_AT_EVERY_SIZE = (PAD, MMD, Energy, Density)


def reference_scores(
    real: ProxyInput, suite: Sequence[BaseProxy], size: int, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Estimate what a candidate of `size` further real examples would score, by each proxy.

    For `mmd`, `energy`, `pad` and `density`, whose expected score is then the same at every size,
    it is the mean over 5 random halvings of the score of one half of the real sample as a
    candidate against the other, of at most 1,000 examples each. `coverage` and `ngram` score each
    real example against the others and extrapolate to `size`. Of each group of real examples, one
    is used, drawn at random: a candidate does not consist of groups. All other proxies are left
    out, as are released protocols: their scores depend on the numbers of examples in ways that the
    real sample alone does not tell.

    Args:
        real: The real sample.
        suite: The proxies.
        size: The common size of the candidates.
        seed: Random seed for the halvings and the proxies.
        device: Device to compute on.

    Returns:
        Proxy key to score; without the proxies that are left out, and empty where a half has fewer
        than 10 examples.
    """
    if real.groups is not None:
        real = _part(real, one_per_group(real.groups, seed))
    halvings = _halvings(real, seed)
    scores = {}
    for proxy in suite if halvings else ():
        if isinstance(proxy, Coverage):
            score = _coverage(real, size, seed, device)
        elif isinstance(proxy, NGram):
            score = _ngram(proxy, real, size)
        elif type(proxy) in _SAME_AT_EVERY_SIZE and _by_default_protocol(proxy):
            score = _of_halves(proxy, halvings, seed, device)
        else:
            continue
        if math.isfinite(score):
            scores[proxy.key] = score
    return scores


def _of_halves(
    proxy: BaseProxy,
    halvings: Sequence[tuple[ProxyInput, ProxyInput]],
    seed: int,
    device: torch.device,
) -> float:
    try:
        values = [
            float(_values(proxy, first, second, seed, device)[0]) for first, second in halvings
        ]
    except ProxyError:  # it needs more examples than a half has
        return math.nan
    return sum(values) / len(values)


def _values(
    proxy: BaseProxy, first: ProxyInput, second: ProxyInput, seed: int, device: torch.device
) -> torch.Tensor:
    # no interval is needed, and that of PAD would take most of the time
    if isinstance(proxy, PAD):
        return proxy.values(first, [second], seed=seed, device=device)
    return proxy.score(first, [second], seed=seed, device=device).values


def _by_default_protocol(proxy: BaseProxy) -> bool:
    return str(proxy.options().get("protocol", "default")) == "default"


def _coverage(real: ProxyInput, size: int, seed: int, device: torch.device) -> float:
    if real.embeddings is None:
        return math.nan
    # all pairs of real examples are compared: more of them would not fit into memory
    rows = np.sort(np.random.default_rng(seed).permutation(len(real))[:_MOST_COMPARED])
    points = real.embeddings[rows].to(device)
    points = points.to(working_dtype(points))
    with precise():
        return real_coverage_distance(points, size)


def _ngram(proxy: NGram, real: ProxyInput, size: int) -> float:
    grams = hash_ngrams(
        [str(view) for view in real.views],
        level=proxy.level,
        max_order=proxy.max_order,
        n_buckets=proxy.n_buckets,
    )
    return real_cross_entropy(grams, size, n_buckets=proxy.n_buckets, alpha=proxy.alpha)


def _halvings(real: ProxyInput, seed: int) -> list[tuple[ProxyInput, ProxyInput]]:
    """Return pairs of halves of equal size; none if they would be too small."""
    size = min(len(real) // 2, _LARGEST_HALF)
    if size < _LEAST_HALF:
        return []
    pairs = []
    for i in range(_N_HALVINGS):
        order = np.random.default_rng([seed, i]).permutation(len(real))
        first, second = np.sort(order[:size]), np.sort(order[size : 2 * size])
        pairs.append((_part(real, first), _part(real, second)))
    return pairs


def _part(real: ProxyInput, positions: NDArray[np.int64]) -> ProxyInput:
    return dataclasses.replace(
        real,
        views=[real.views[int(position)] for position in positions],
        digests=real.digests[positions],
        embeddings=None if real.embeddings is None else real.embeddings[positions],
        groups=None,
    )
