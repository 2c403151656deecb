"""The scale of a ranking: what further real examples would score, from the real sample alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from synque_select.proxies.base import BaseProxy, ProxyInput
from synque_select.proxies.diversity import MDM
from synque_select.proxies.domain import PAD
from synque_select.proxies.kernel import MMD
from synque_select.proxies.lexical import NGram
from synque_select.proxies.neighbours import Coverage
from synque_select.selection.reference import reference_scores

CPU = torch.device("cpu")
DEFAULT: Sequence[BaseProxy] = (PAD(), MMD(), Coverage(), NGram())


def words(rng: np.random.Generator) -> str:
    # frequencies as of natural words, so that larger samples hold words that smaller ones lack
    ranks = np.floor(rng.pareto(1.0, 12)).astype(int)
    return " ".join(f"w{rank % 5000}" for rank in ranks)


def sample(name: str, n: int, seed: int, d: int = 16) -> ProxyInput:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, d))
    return ProxyInput(
        name,
        [words(rng) for _ in range(n)],
        "text",
        rng.integers(0, 256, (n, 32), dtype=np.uint8),
        torch.from_numpy(points).float(),
    )


@pytest.mark.parametrize(("n", "size"), [(24, 200), (60, 40), (60, 300)])
def test_further_real_examples_score_the_reference_on_average(n: int, size: int):
    references: dict[str, list[float]] = {proxy.key: [] for proxy in DEFAULT}
    further: dict[str, list[float]] = {proxy.key: [] for proxy in DEFAULT}
    for draw in range(20):
        real, fresh = sample("real", n, 2 * draw), sample("fresh", size, 2 * draw + 1)
        reference = reference_scores(real, DEFAULT, size, seed=draw, device=CPU)
        for proxy in DEFAULT:
            value = proxy.score(real, [fresh], seed=draw, device=CPU).values[0]
            references[proxy.key].append(reference[proxy.key])
            further[proxy.key].append(float(value))
    bias = {key: float(np.mean(references[key]) - np.mean(further[key])) for key in references}
    assert abs(bias["pad"]) < 0.1, bias
    assert abs(bias["mmd"]) < 0.005, bias
    assert abs(bias["coverage"]) < 0.03 * np.mean(further["coverage"]), bias
    assert abs(bias["ngram"]) < (0.05 if size < n else 0.25), bias


def test_examples_of_one_group_do_not_score_each_other():
    # twenty examples, each three times: a copy would be found at distance 0, and known word by word
    groups = np.repeat(np.arange(20), 3)
    single = sample("real", 20, 0)
    assert single.embeddings is not None
    tripled = replace(
        sample("real", 60, 0),
        views=[single.views[i] for i in groups],
        embeddings=single.embeddings.repeat_interleave(3, 0),
        groups=groups,
    )
    grouped, ungrouped = (
        reference_scores(real, DEFAULT, 19, seed=0, device=CPU)
        for real in (tripled, replace(tripled, groups=None))
    )
    alone = reference_scores(single, DEFAULT, 19, seed=0, device=CPU)
    for key in ("mmd", "coverage", "ngram"):
        assert grouped[key] == pytest.approx(alone[key]), key
    assert ungrouped["coverage"] < 0.5 * grouped["coverage"]
    assert ungrouped["ngram"] < grouped["ngram"] - 0.1


def test_what_the_real_sample_cannot_tell_is_left_out():
    suite = (MDM(), PAD(protocol="released"), MMD())
    assert set(reference_scores(sample("real", 30, 0), suite, 50, seed=0, device=CPU)) == {"mmd"}


def test_halves_under_ten_examples_have_no_reference():
    assert reference_scores(sample("real", 19, 0), DEFAULT, 50, seed=0, device=CPU) == {}


def test_the_reference_is_in_the_ranking_and_near_nothing_to_find():
    reference = reference_scores(sample("real", 60, 0), DEFAULT, 300, seed=0, device=CPU)
    assert abs(reference["mmd"]) < 0.02
    assert abs(reference["pad"]) < 0.4
