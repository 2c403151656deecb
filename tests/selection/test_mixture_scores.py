"""A mixture's own proxies, without concatenating data, against data that was concatenated."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from synque_select.errors import ConfigError
from synque_select.functional.coverage import coverage_distances, mixture_coverage_distances
from synque_select.functional.ngram import mixture_log_probabilities, ngram_log_probabilities
from synque_select.proxies import kernel
from synque_select.proxies.base import BaseProxy, ProxyInput
from synque_select.proxies.inputs import content_order, parts_of
from synque_select.proxies.registry import default_suite, get_proxy
from synque_select.selection.mixture import mixture_scores
from synque_select.selection.scoring import Scoring
from synque_select.types import Mixture

CPU = torch.device("cpu")
WORDS = ["apple", "banana", "cherry", "owl", "pillow", "violet", "stone", "zebra", "night", "moon"]
SUITE = ("pad", "mmd", "coverage", "ngram", "energy")


def part(name: str, n: int, seed: int, shift: float) -> ProxyInput:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 4)) for _ in range(n)]
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 6, generator=generator) + shift
    return ProxyInput(name, texts, "text", rng.integers(0, 255, (n, 32), dtype=np.uint8), rows)


def joined(parts: list[ProxyInput], rows: list[np.ndarray]) -> ProxyInput:
    return ProxyInput(
        "joined",
        [p.views[i] for p, chosen in zip(parts, rows, strict=True) for i in chosen],
        "text",
        np.concatenate([p.digests[chosen] for p, chosen in zip(parts, rows, strict=True)]),
        torch.cat([p.embeddings[chosen] for p, chosen in zip(parts, rows, strict=True)]),
    )


REAL = part("real", 40, 0, 0.0)
A, B, C = part("a", 200, 1, 0.0), part("b", 200, 2, 0.8), part("c", 200, 3, -0.5)


def score(proxy: BaseProxy, *candidates: ProxyInput):
    return proxy.score(REAL, list(candidates), seed=0, device=CPU)


def weights(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("key", SUITE)
def test_the_default_suite_can_and_one_part_is_that_part(key: str):
    assert set(default_suite("text")) <= set(SUITE)
    scores = score(get_proxy(key), A, B, C)
    for k in range(3):
        alone = scores.mixture(torch.eye(3, dtype=torch.float64)[k])
        assert alone == pytest.approx(float(scores.values[k]), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("key", ["mmd", "energy"])
@pytest.mark.parametrize("shares", [(0.5, 0.5, 0), (0.25, 0.5, 0.25)])
def test_kernel_proxies_are_those_of_the_concatenation(key: str, shares):
    """All pairs of a concatenation, where its own diagonal counts as pairs within a part do."""
    n = [int(200 * share) for share in shares]
    parts = [p for p, m in zip((A, B, C), n, strict=True) if m]
    rows = [np.arange(m) for m in n if m]
    cut = [joined([p], [chosen]) for p, chosen in zip(parts, rows, strict=True)]
    scores = score(get_proxy(key), *cut)
    ours = scores.mixture(weights(*[share for share in shares if share]))
    theirs = float(score(get_proxy(key), joined(parts, rows), A).values[0])
    # of the pairs i ≠ j of the whole, those within a part are fewer by 1 / N than its weight says
    own = [float(score(get_proxy(key), c, A).values[0]) for c in cut]
    assert ours == pytest.approx(theirs, abs=3 * max(map(abs, own)) / 200 + 1e-6)


def test_mmd_is_the_expectation_of_samples_of_the_mixture():
    scores = score(get_proxy("mmd"), A, B)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(60):
        from_a = int((rng.random(100) < 0.3).sum())
        rows = [
            rng.choice(200, from_a, replace=False),
            rng.choice(200, 100 - from_a, replace=False),
        ]
        drawn.append(float(score(get_proxy("mmd"), joined([A, B], rows), A).values[0]))
    error = np.std(drawn) / 60**0.5
    assert scores.mixture(weights(0.3, 0.7)) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_coverage_is_exact_over_all_samples():
    parts = [torch.randn(6, 2, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    real = torch.randn(3, 2, generator=torch.Generator().manual_seed(3))
    distances = [torch.cdist(real.double(), p.double()) for p in parts]
    smallest = [
        torch.minimum(distances[0][:, list(i)].amin(1), distances[1][:, list(j)].amin(1))
        for i in itertools.combinations(range(6), 2)
        for j in itertools.combinations(range(6), 3)
    ]
    result = mixture_coverage_distances(real, parts, [2, 3])
    torch.testing.assert_close(result, torch.stack(smallest).mean(0), rtol=1e-6, atol=0)


def test_coverage_of_halves_of_one_set_is_that_of_the_whole_at_its_size():
    """Stratified draws differ from plain ones by less than one example does."""
    half = [A.embeddings[:100], A.embeddings[100:]]
    distances = mixture_coverage_distances(REAL.embeddings, half, [40, 40])
    whole = [coverage_distances(REAL.embeddings, A.embeddings, m).mean() for m in (79, 80, 81)]
    assert whole[2] - 1e-3 < distances.mean() < whole[0] + 1e-3


def test_fractions_of_a_draw_stand_between_whole_ones():
    scores = [
        float(mixture_coverage_distances(REAL.embeddings, [A.embeddings, B.embeddings], m).mean())
        for m in ((10, 5), (10.5, 5), (11, 5))
    ]
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_ngrams_of_equal_shares_are_those_of_added_counts(share: float):
    counts = torch.poisson(torch.rand(2, 500, generator=torch.Generator().manual_seed(0)) * 30)
    log_probabilities = mixture_log_probabilities(counts, torch.full((2,), share))
    expected = ngram_log_probabilities(counts.sum(0), share=share)
    torch.testing.assert_close(log_probabilities, expected, rtol=0, atol=1e-6)


def test_ngrams_of_unlike_shares_are_the_mean_over_draws():
    counts = torch.poisson(torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) * 9)
    shares = np.array([0.2, 0.7])
    rng = np.random.default_rng(0)
    kept = rng.binomial(counts.numpy().astype(int)[:, None], shares[:, None, None], (2, 40_000, 40))
    drawn = np.log(kept.sum(0) + 0.1)
    expected = drawn.mean(0) - np.log(float(shares @ counts.sum(1).numpy()) + 0.1 * 40)
    log_probabilities = mixture_log_probabilities(counts, torch.from_numpy(shares))
    assert np.abs(log_probabilities.numpy() - expected).max() < 5 * drawn.std(0).max() / 200


def test_ngrams_equal_those_of_the_concatenation():
    mixed = score(get_proxy("ngram"), A, B, C).mixture(weights(0.5, 0.5, 0))
    both = joined([A, B], [np.arange(200)] * 2)
    # which for large counts takes a second-order expansion
    assert mixed == pytest.approx(float(score(get_proxy("ngram"), both, A).values[0]), abs=1e-4)


def test_pad_is_that_of_as_many_examples_of_the_mixture():
    scores = score(get_proxy("pad"), A, B, C)
    n = parts_of(200, weights(0.6, 0.4))
    rows = [content_order(p, 0)[:m] for p, m in zip((A, B), n, strict=True)]
    sample = joined([A, B], rows)
    alone = float(score(get_proxy("pad"), sample, A).values[0])
    # the same examples; only their folds are dealt otherwise
    assert scores.mixture(weights(0.6, 0.4, 0)) == pytest.approx(alone, abs=0.1)


def test_a_mixture_with_an_undefined_part_is_undefined():
    broken = ProxyInput("x", B.views, "text", B.digests, torch.full_like(B.embeddings, torch.nan))
    for key in ("pad", "mmd", "coverage"):
        scores = score(get_proxy(key), A, broken, C)
        assert np.isnan(scores.mixture(weights(0.5, 0.5, 0)))
        assert np.isfinite(scores.mixture(weights(0.5, 0, 0.5)))


def test_scores_of_a_mixture_by_name():
    proxies = [get_proxy(key) for key in ("mmd", "mdm")]
    scoring = Scoring(
        REAL, (A, B), tuple(proxies), {p.key: score(p, A, B) for p in proxies},
        {"mmd": 0.0, "mdm": 0.0}, "r", ("a", "b"), None, 0, 0, (), {},
    )  # fmt: skip
    scores = mixture_scores(scoring, Mixture({"b": 0.25, "a": 0.75}))
    assert set(scores) == {"mmd"}
    assert scores["mmd"] == scoring.scores["mmd"].mixture(weights(0.75, 0.25))
    assert set(mixture_scores(scoring, Mixture({"b": 1.0}))) == {"mmd", "mdm"}
    with pytest.raises(ConfigError, match="no candidate 'z'"):
        mixture_scores(scoring, Mixture({"z": 1.0}))


@pytest.mark.parametrize("key", SUITE)
def test_without_scoring_the_candidates_the_score_is_the_same(key: str):
    shares = weights(0.5, 0.0, 0.5)
    scored = score(get_proxy(key), A, B, C).mixture(shares)
    function = get_proxy(key).mixture_score(REAL, [A, B, C], seed=0, device=CPU)
    assert function(shares) == scored


def test_a_candidate_that_cannot_be_scored_makes_its_mixtures_undefined():
    broken = dataclasses.replace(B, embeddings=B.embeddings * math.nan)
    function = get_proxy("mmd").mixture_score(REAL, [A, broken, C], seed=0, device=CPU)
    assert math.isnan(function(weights(0.5, 0.5, 0.0)))
    assert math.isfinite(function(weights(0.5, 0.0, 0.5)))


@pytest.mark.parametrize("key", ["mmd", "energy"])
def test_many_candidates_are_compared_by_subsamples_of_all(
    key: str, monkeypatch: pytest.MonkeyPatch
):
    parts = [part(str(i), 100, i, i / 40) for i in range(20)]
    even = torch.full((20,), 0.05, dtype=torch.float64)
    exact, subsampled = [], []
    for seed in range(20):
        for rows, scores in ((8192, exact), (800, subsampled)):
            monkeypatch.setattr(kernel, "_BETWEEN_ROWS", rows)
            function = get_proxy(key).mixture_score(REAL, parts, seed=seed, device=CPU)
            scores.append(function(even))
    errors = np.array(subsampled) - np.array(exact)
    assert np.ptp(exact) < 1e-9
    assert np.ptp(errors) > 0
    # unbiased: the mean error is within four of its own standard errors
    assert abs(errors.mean()) < 4 * errors.std(ddof=1) / 20**0.5
    # work that does not grow with the pairs of candidates
    calls = []
    given = kernel.kernel_contributions
    monkeypatch.setattr(kernel, "kernel_contributions", lambda *p: calls.append(p) or given(*p))
    get_proxy(key).mixture_score(REAL, parts, seed=0, device=CPU)(even)
    assert len(calls) == 20  # each candidate with the real sample, and no pair of candidates
