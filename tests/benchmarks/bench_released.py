"""The text2sql part of the released data: our proxies against the authors' formulas in a loop.

Needs SYNQUE_BENCHMARK_DATA, the folder that holds text2sql/; without it nothing is measured.
Embeddings are in the cache before either is timed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kmedoids
import numpy as np
import torch
from mauve import compute_mauve
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.model_selection import train_test_split

from synque_select.benchmark.layout import find_tasks
from synque_select.data.examples import Examples
from synque_select.encoders import embed, get_encoder
from synque_select.proxies.base import ProxyInput, ProxyScores
from synque_select.proxies.registry import get_proxy
from tests.benchmarks.base import NotMeasured, Result, Row, compare

TASK = "text2sql"
Matrix = NDArray[np.float32]


def pad(real: Matrix, synthetic: Matrix) -> float:
    targets = np.r_[np.zeros(len(synthetic)), np.ones(len(real))]
    train, test, train_targets, test_targets = train_test_split(
        np.concatenate((synthetic, real)), targets, test_size=0.2, random_state=42
    )
    chance = LogisticRegression().fit(train, train_targets).predict_proba(test)[:, 1]
    return 2 * (1 - 2 * float(np.abs(chance - test_targets).mean()))


def mmd(real: Matrix, synthetic: Matrix) -> float:
    pairs = ((real, real), (synthetic, synthetic), (real, synthetic))
    means = [float(polynomial_kernel(x, y, degree=3).mean()) for x, y in pairs]
    return means[0] + means[1] - 2 * means[2]


def mdm(real: Matrix, synthetic: Matrix) -> float:
    distances = euclidean_distances(synthetic)
    clustering = kmedoids.fasterpam(distances, 5, random_state=42)
    to_medoids = distances[:, clustering.medoids]
    nearest = to_medoids.argmin(1)
    return float(np.mean([to_medoids[nearest == c, c].mean() for c in np.unique(nearest)]))


def mauve_text(real: Matrix, synthetic: Matrix) -> float:
    return float(compute_mauve(p_features=synthetic, q_features=real, verbose=False).mauve)


def authors(groups: list[Group]) -> list[list[float]]:
    """Every formula on every pair, as the authors' scripts go through them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            [formula(matrix(real), matrix(synthetic)) for formula in (pad, mmd, mdm, mauve_text)]
            for group in groups
            for real in group.reals
            for synthetic in group.candidates
        ]


def ours(groups: list[Group]) -> list[ProxyScores]:
    """The authors' protocols, one seed of MAUVE; MDM, which reads no real sample, once a group."""
    released = [get_proxy(key, protocol="released") for key in ("pad", "mmd")]
    proxies = [*released, get_proxy("mauve", n_seeds=1)]
    alone = get_proxy("mdm", protocol="released")
    device = torch.device("cpu")
    rows = []
    for group in groups:
        rows.append(alone.score(group.reals[0], group.candidates, seed=0, device=device))
        for real in group.reals:
            rows += [
                proxy.score(real, group.candidates, seed=0, device=device) for proxy in proxies
            ]
    return rows


@dataclass(frozen=True)
class Group:
    """Real samples and candidates with their embeddings in memory."""

    reals: list[ProxyInput]
    candidates: list[ProxyInput]


def matrix(part: ProxyInput) -> Matrix:
    assert part.embeddings is not None
    return part.embeddings.numpy()


def embedded_groups(data: str) -> list[Group]:
    """All groups of the task, through the cache of embeddings."""
    encoder = get_encoder(None, "text")

    def scored(part: Examples) -> ProxyInput:
        embeddings = embed(encoder, part, progress=False).embeddings.clone()
        return ProxyInput(part.name, part.views, part.modality, part.digests, embeddings)

    tasks, _ = find_tasks(Path(data), [TASK])
    return [
        Group(
            [scored(real) for real in group.reals.values()], [scored(c) for c in group.candidates]
        )
        for task in tasks
        for group in task.groups
    ]


def run() -> Iterator[Row]:
    """Yield one result, or none without the data."""
    data = os.environ.get("SYNQUE_BENCHMARK_DATA")
    if not data:
        reason = "SYNQUE_BENCHMARK_DATA does not say where the released data is"
        yield NotMeasured(f"{TASK}, four paper proxies", reason)
        return
    groups = embedded_groups(data)
    seconds, rival = compare(lambda: ours(groups), lambda: authors(groups), 3)
    n_pairs = sum(len(group.reals) * len(group.candidates) for group in groups)
    yield Result(
        name=f"{TASK}, {n_pairs} pairs, four paper proxies, embeddings cached",
        ratio=rival / seconds,
        target=3.0,
        rival="the authors' formulas in a loop",
        seconds=seconds,
        rival_seconds=rival,
    )
