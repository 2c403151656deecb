"""The verdict that every candidate is far."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from synque_select.proxies.base import ProxyInput
from synque_select.proxies.domain import PAD
from synque_select.proxies.kernel import MMD
from synque_select.selection.farness import NOT_TESTED
from synque_select.selection.ranking import ranking_from
from synque_select.selection.reference import reference_scores
from synque_select.selection.scoring import Scoring
from synque_select.types import Decision
from synque_select.utils.json_fields import JsonFields

CPU = torch.device("cpu")


def part(name: str, n: int, shift: float, seed: int, groups: Any = None) -> ProxyInput:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 16, generator=generator) + shift
    digests = np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)
    return ProxyInput(name, ["x"] * n, "text", digests, rows, groups=groups)


def scoring(*shifts: float, n: int = 60, copies: tuple[str, ...] = ()) -> Scoring:
    real = part("real", n, 0, 0)
    parts = tuple(part(f"c{i}", 300, shift, i + 1) for i, shift in enumerate(shifts))
    suite = (PAD(), MMD())
    scores = {proxy.key: proxy.score(real, parts, seed=0, device=CPU) for proxy in suite}
    return Scoring(
        real, parts, suite, scores, dict.fromkeys(scores, 0.0), "r",
        tuple(p.name for p in parts), None, 0, 0, (), {}, copies=copies,
        reference=reference_scores(real, suite, 300, seed=0, device=CPU),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shifts", "opening"),
    [
        ((2, 2.5, 3), "far"),
        ((0, 0.35, 0.4), "clear"),
        ((0, 0, 0), "tie"),
        ((0.2, 2.5, 3), "untested"),
    ],
)
def test_only_where_every_candidate_is_far(shifts: tuple[float, ...], opening: str):
    decision = ranking_from(scoring(*shifts)).decision
    assert decision is not None
    assert decision.opening == opening
    assert decision.evidence.far is not None
    if opening == "far":
        assert len(decision.mixture.names) == 3
        assert decision.evidence.far.low >= 0.75 > 0.6 > decision.evidence.far.halves
        assert any("training on them is not advised" in why for why in decision.reasons)


def test_a_copy_does_not_hide_that_the_others_are_far():
    decision = ranking_from(scoring(0, 2.5, 3, copies=("c0",))).decision
    assert decision is not None
    assert decision.opening == "far"
    assert set(decision.mixture.names) == {"c1", "c2"}


@pytest.mark.parametrize(
    ("shifts", "opening"), [((2, 3), "far"), ((0.2, 3), "untested"), ((0, 0), "tie")]
)
def test_without_pad_in_the_suite_it_is_measured_all_the_same(shifts: Any, opening: str):
    whole = scoring(*shifts)
    alone = replace(whole, suite=whole.suite[1:], scores={"mmd": whole.scores["mmd"]})
    ranking = ranking_from(alone)
    decision = ranking.decision
    assert decision is not None
    assert decision.opening == opening
    far = decision.evidence.far
    assert far is not None
    assert far.nearest is not None
    if opening == "far":
        with_pad = ranking_from(whole).decision
        assert with_pad is not None
        assert with_pad.evidence.far is not None
        assert far.accuracy == pytest.approx(with_pad.evidence.far.accuracy)
        assert far.nearest < 0.05
    elif opening == "untested":
        assert set(far.each) == {"c1"}
        assert "c1 does not resemble your real data" in decision.sentence
    else:
        assert math.isnan(far.accuracy)
        assert far.nearest > 0.3
    assert Decision.from_fields(JsonFields(decision.to_dict())).to_dict() == decision.to_dict()


def test_without_embeddings_a_message_says_that_it_was_not_measured():
    whole = scoring(2, 3)
    blind = replace(
        whole,
        real=replace(whole.real, embeddings=None),
        suite=whole.suite[1:],
        scores={"mmd": whole.scores["mmd"]},
    )
    ranking = ranking_from(blind)
    assert ranking.decision is not None
    assert ranking.decision.evidence.far is None
    assert NOT_TESTED in ranking.messages
    assert NOT_TESTED not in ranking_from(whole).messages


def test_a_diverse_real_sample_does_not_hide_that_a_candidate_is_far():
    # each real example is about as far from most others as from the candidates; only its
    # neighbors show that it belongs to the sample
    topics = 8 * torch.eye(64)[torch.arange(80) % 20]
    real = part("real", 80, 0, 0)
    noise = torch.randn(80, 64, generator=torch.Generator().manual_seed(1))
    other = torch.randn(300, 64, generator=torch.Generator().manual_seed(2))
    other[:, 40:] += 0.8
    real = replace(real, embeddings=topics + noise)
    parts = tuple(replace(part(f"c{i}", 300, 0, i + 1), embeddings=other + i) for i in range(2))
    suite = (PAD(),)
    scores = {"pad": PAD().score(real, parts, seed=0, device=CPU)}
    given = replace(scoring(0, 0), real=real, candidates=parts, suite=suite, scores=scores)
    decision = ranking_from(given).decision
    assert decision is not None
    assert decision.opening == "far"


def test_a_few_real_examples_cannot_show_that_all_are_far():
    decision = ranking_from(scoring(5, 6, n=10)).decision
    assert decision is not None
    assert decision.opening == "small"


def test_a_candidate_that_alone_is_far_is_not_selected_by_default():
    decided = ranking_from(scoring(0.1, 0, 0.05, 3))
    decision = decided.decision
    assert decision is not None
    assert set(decision.evidence.dissimilar) == {"c3"}
    assert decision.evidence.dissimilar["c3"] > 0.9
    assert set(decision.mixture.names) == {"c0", "c1", "c2"}
    assert "Train on the 3 that can be selected: " in decision.sentence
    assert "c3 does not resemble your real data (a linear classifier is right" in decision.sentence
    assert decided.excluded == ("c3",)
    assert Decision.from_fields(JsonFields(decision.to_dict())) == decision


def test_a_given_top_k_selects_a_far_candidate_and_says_so():
    decided = ranking_from(scoring(0.1, 0, 0.05, 3), top_k=4)
    assert decided.decision is not None
    assert len(decided.decision.mixture.names) == 4
    assert "although c3 does not resemble your real data" in decided.decision.sentence


def test_candidates_are_named_as_far_all_at_once():
    for seed in range(3):
        real = part("real", 60, 0, 1000 + seed)
        parts = [part(f"c{i}", 120, 0.0, 50 * seed + i) for i in range(10)]
        one = replace(scoring(0, 0), real=real, candidates=tuple(parts))
        scores = {"pad": PAD().score(real, parts, seed=0, device=CPU)}
        one = replace(one, suite=(PAD(),), scores=scores, seconds={"pad": 0.0}, sha256=("x",) * 10)
        decision = ranking_from(one).decision
        assert decision is not None
        assert decision.evidence.dissimilar == {}
