"""Intervals and comparisons hold what they promise for a real sample that comes in groups.

New real samples are drawn again and again, the candidates stay. The truth of an interval is the
mean of the scores over the draws; the truth of a comparison is that no candidate is nearer than
another, because each has the examples of the first with the coordinates in another order.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.proxies.registry import get_proxy
from synque_select.selection.uncertainty import (
    influences,
    multinomial_weights,
    separation,
    t_interval,
)

D = 12
N_DRAWS, N_RESAMPLES = 300, 500
SUITE = ("pad", "mmd", "coverage", "ngram")
Groups = NDArray[np.int64]


def part(name: str, points: NDArray[np.float64], groups: Groups | None = None) -> ProxyInput:
    # no word has another one as its neighbor: with a word for each coordinate, only texts without
    # pairs of them are equally near in every order of the coordinates
    words = np.round(points * 1.2).astype(int)
    texts = ["and " + "".join(f"w{j}x{v} and " for j, v in enumerate(row)) for row in words]
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in points)
    return ProxyInput(
        name=name,
        views=texts,
        modality="text",
        digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        embeddings=torch.from_numpy(points.astype(np.float32)),
        groups=groups,
    )


def copies(rng: np.random.Generator, n_groups: int) -> ProxyInput:
    """Each example three times."""
    groups = np.repeat(np.arange(n_groups), 3)
    return part("real", rng.normal(size=(n_groups, D))[groups], groups)


def threads(rng: np.random.Generator, n_groups: int) -> ProxyInput:
    """Threads of 1 to 5 posts, half of whose variance is between threads."""
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    points = rng.normal(size=(n_groups, D))[groups] + rng.normal(size=(len(groups), D))
    return part("real", points / 2**0.5, groups)


DESIGNS: dict[str, Callable[[np.random.Generator, int], ProxyInput]] = {
    "copies": copies,
    "threads": threads,
}


def apart_candidates() -> list[ProxyInput]:
    rng = np.random.default_rng(0)
    return [
        part("near", rng.normal(size=(200, D)) + 0.3),
        part("wide", rng.normal(size=(200, D)) * 1.2 + 0.2),
        part("far", rng.normal(size=(200, D)) + 0.8),
    ]


def equal_candidates(n: int = 6) -> list[ProxyInput]:
    points = np.random.default_rng(0).normal(size=(200, D)) * np.linspace(0.5, 1.5, D) + 0.2
    return [part(f"c{k}", np.roll(points, 2 * k, axis=1)) for k in range(n)]


def scored(proxy: BaseProxy, real: ProxyInput, candidates: list[ProxyInput]) -> ProxyScores:
    return proxy.score(real, candidates, seed=0, device=torch.device("cpu"))


def coverage(key: str, design: str, n_groups: int, *, known: bool = True) -> dict[str, list[float]]:
    """Share of the draws whose intervals hold the truth, of scores and of differences."""
    candidates, proxy = apart_candidates(), get_proxy(key)
    pairs = [0, 0, 1], [1, 2, 2]
    ends: dict[str, list[torch.Tensor]] = {"scores": [], "differences": []}
    values: dict[str, list[torch.Tensor]] = {"scores": [], "differences": []}
    for draw in range(N_DRAWS):
        real = DESIGNS[design](np.random.default_rng(1000 + draw), n_groups)
        real = real if known else dataclasses.replace(real, groups=None)
        scores = scored(proxy, real, candidates)
        assert scores.resample is not None
        redrawn = scores.resample(multinomial_weights(len(real), N_RESAMPLES, draw, real.groups))
        spread = torch.zeros(3).double() if scores.spread is None else scores.spread
        for what, value, resample, own in (
            ("scores", scores.values, redrawn, spread),
            (
                "differences",
                scores.values[pairs[0]] - scores.values[pairs[1]],
                redrawn[:, pairs[0]] - redrawn[:, pairs[1]],
                (spread[pairs[0]] ** 2 + spread[pairs[1]] ** 2).sqrt(),
            ),
        ):
            low, high = t_interval(value, resample, len(real), groups=real.groups, spread=own)
            values[what].append(value)
            ends[what].append(torch.stack((low, high)))
    shares = {}
    for what in values:
        truth = torch.stack(values[what]).mean(0)
        low, high = torch.stack(ends[what]).unbind(1)
        shares[what] = ((low <= truth) & (truth <= high)).double().mean(0).tolist()
    return shares


def false_verdicts(
    design: str, n_groups: int, n_draws: int = N_DRAWS, *, known: bool = True
) -> dict[str, float]:
    """Share of the draws in which a pair is distinguished, by each proxy and by all together."""
    candidates, proxies = equal_candidates(), [get_proxy(key) for key in SUITE]
    false: dict[str, list[bool]] = {key: [] for key in (*SUITE, "consensus")}
    for draw in range(n_draws):
        real = DESIGNS[design](np.random.default_rng(5000 + draw), n_groups)
        real = real if known else dataclasses.replace(real, groups=None)
        parts = [
            influences(scored(proxy, real, candidates), len(real), higher_is_better=False)
            for proxy in proxies
        ]
        for key, members in zip(false, [*([part] for part in parts), parts], strict=True):
            verdict = separation(members, n_resamples=N_RESAMPLES, seed=draw, groups=real.groups)
            false[key].append(bool(verdict.apart.any()))
    return {key: float(np.mean(shares)) for key, shares in false.items()}


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [20, 50])
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("key", SUITE)
def test_intervals_hold_what_they_promise(key, design, n_groups):
    shares = coverage(key, design, n_groups)
    assert min(min(part) for part in shares.values()) >= 0.90, shares


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [20, 50])
@pytest.mark.parametrize("design", DESIGNS)
def test_equal_candidates_are_not_distinguished(design, n_groups):
    shares = false_verdicts(design, n_groups)
    # an error of 0.04, at which 200 draws show 0.07 at most, exceeds this once in 200 tests
    assert max(shares.values()) <= 0.07, shares
