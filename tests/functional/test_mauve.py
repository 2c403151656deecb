from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from synque_select.data.views import digest
from synque_select.errors import ConfigError, DependencyError
from synque_select.functional.mauve import (
    default_n_bins,
    divergence_frontier,
    frontier_area,
    kmeans,
    mauve_from_counts,
    mauve_score,
    project_to_variance,
    quantize,
)
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.divergence import MAUVE, MAUVEStar

CPU = torch.device("cpu")


def normal(n: int, d: int = 8, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, d), generator=generator) + shift


def part(name: str, embeddings: torch.Tensor) -> ProxyInput:
    views = [f"{name} {i}" for i in range(len(embeddings))]
    digests = np.frombuffer(b"".join(map(digest, views)), dtype=np.uint8).reshape(-1, 32)
    return ProxyInput(name, views, "text", digests, embeddings)


def permuted(given: ProxyInput, seed: int = 5) -> ProxyInput:
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
    views = [given.views[int(i)] for i in order]
    return ProxyInput(
        given.name, views, "text", given.digests[order.numpy()], given.embeddings[order]
    )


def test_disjoint_histograms_have_the_area_of_the_closed_form():
    # KL(P|R_t) = −log t where the supports are disjoint: the curve is (1−t)^c against t^c
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    x, y = divergence_frontier(p, q, scale=2.0, n_points=400)
    t = torch.arange(1, 400, dtype=torch.float64) / 400
    torch.testing.assert_close(x[1:-1], (1 - t) ** 2)
    torch.testing.assert_close(y[1:-1], t**2)
    # ∫ (1 − √x)² dx over 0..1 = 1/6
    assert float(frontier_area(x, y)) == pytest.approx(1 / 6, abs=1e-4)


def test_the_area_is_symmetric():
    p = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    q = torch.tensor([0.1, 0.0, 0.2, 0.7], dtype=torch.float64)
    there = frontier_area(*divergence_frontier(p, q))
    back = frontier_area(*divergence_frontier(q, p))
    torch.testing.assert_close(there, back)


def test_smoothing_moves_disjoint_histograms_off_the_floor_but_keeps_equal_ones_at_one():
    a, b = torch.tensor([8.0, 0.0]), torch.tensor([0.0, 8.0])
    assert mauve_from_counts(a, b, smoothing=0.5) > mauve_from_counts(a, b)
    assert float(mauve_from_counts(a, a, smoothing=0.5)) == 1.0


def test_projection_keeps_the_share_of_variance_and_the_distances_in_it():
    points = normal(300, 12) * torch.linspace(3, 0.1, 12)
    kept = project_to_variance(points, 0.9)
    unit = torch.nn.functional.normalize(points, dim=1)
    unit = unit - unit.mean(0)
    variances = torch.linalg.svdvals(unit).square()
    share = float(kept.square().sum() / variances.sum())
    assert 0.9 <= share < 1
    without_last = variances[: kept.shape[1] - 1].sum() / variances.sum()
    assert float(without_last) < 0.9


def test_projection_of_fewer_points_than_dimensions_equals_that_by_the_covariance():
    points = normal(20, 30)
    kept = project_to_variance(points, 1.0)
    unit = torch.nn.functional.normalize(points, dim=1)
    torch.testing.assert_close(torch.cdist(kept, kept), torch.cdist(unit, unit), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_kmeans_finds_separated_clusters(seed: int):
    centres = torch.eye(6) * 20
    truth = torch.arange(6).repeat_interleave(40)
    labels = kmeans(centres[truth] + normal(240, 6, seed), 6, seed=seed)
    pairs = {(int(a), int(b)) for a, b in zip(truth, labels, strict=True)}
    assert len(pairs) == 6


def test_kmeans_in_blocks_equals_kmeans_at_once(monkeypatch: pytest.MonkeyPatch):
    points = normal(500, 5)
    at_once = kmeans(points, 10, seed=3)
    monkeypatch.setattr("synque_select.functional.mauve._BLOCK_ELEMENTS", 700)
    assert torch.equal(kmeans(points, 10, seed=3), at_once)


def test_kmeans_of_one_point_repeated():
    assert kmeans(torch.ones(30, 4), 3).tolist() == [0] * 30


def test_quantize_counts_everything():
    real_counts, synthetic_counts = quantize(normal(30), normal(70, seed=1), 5)
    assert int(real_counts.sum()) == 30
    assert int(synthetic_counts.sum()) == 70


def test_a_growing_shift_makes_it_worse():
    real = normal(300)
    scores = [float(mauve_score(real, normal(300, seed=1, shift=s))) for s in (0.0, 0.4, 1.0, 3.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[-1] < 0.1


def test_identical_sets_score_one_and_scaling_changes_nothing():
    real = normal(200)
    assert float(mauve_score(real, real)) == 1.0
    other = normal(200, seed=2, shift=0.3)
    assert float(mauve_score(8 * real, 0.5 * other)) == float(mauve_score(real, other))


@pytest.mark.parametrize(("n", "m", "bins"), [(2, 2, 2), (100, 1000, 10), (1000, 100, 10)])
def test_number_of_bins(n: int, m: int, bins: int):
    assert default_n_bins(n, m) == bins


def test_the_class_is_the_mean_of_the_function_over_seeds():
    real, synthetic = part("real", normal(150)), part("a", normal(150, seed=1, shift=0.5))
    proxy = MAUVE(n_seeds=4)
    scores = proxy.score(real, [synthetic], seed=0, device=CPU)
    singles = [MAUVE(n_seeds=1).score(real, [synthetic], seed=s, device=CPU) for s in range(4)]
    values = torch.cat([single.values for single in singles])
    torch.testing.assert_close(scores.values[0], values.mean())
    torch.testing.assert_close(scores.spread[0], values.std())
    assert singles[0].spread is None
    assert scores.resample is None


@pytest.mark.parametrize("cls", [MAUVE, MAUVEStar])
def test_permuting_rows_changes_nothing(cls: type[MAUVE]):
    real, synthetic = part("real", normal(120)), part("a", normal(300, seed=1, shift=0.5))
    proxy = cls(n_seeds=2, max_examples=200)
    given = proxy.score(real, [synthetic], seed=1, device=CPU).values
    turned = proxy.score(permuted(real), [permuted(synthetic)], seed=1, device=CPU).values
    torch.testing.assert_close(given, turned, rtol=1e-9, atol=0)


def test_few_real_examples_are_marked_unreliable():
    scores = MAUVE(n_seeds=1).score(
        part("real", normal(99)), [part("a", normal(200))], seed=0, device=CPU
    )
    assert not scores.reliable
    assert "99 real examples give 10 bins" in scores.messages[0]
    enough = MAUVE(n_seeds=1).score(
        part("real", normal(100)), [part("a", normal(200))], seed=0, device=CPU
    )
    assert enough.reliable
    assert enough.messages == ()


def test_candidates_are_compared_at_the_size_of_the_smallest():
    real = part("real", normal(120))
    small = part("small", normal(150, seed=1))
    large = part("large", normal(900, seed=2))
    scores = MAUVE(n_seeds=2).score(real, [small, large], seed=0, device=CPU)
    assert "compares 150 examples of every candidate" in scores.messages[0]
    # both come from the distribution of the real sample: size must not decide
    assert abs(float(scores.values[0] - scores.values[1])) < 0.1


def test_nan_embeddings_make_one_candidate_undefined():
    bad = normal(120, seed=1)
    bad[3, 2] = torch.nan
    scores = MAUVE(n_seeds=1).score(
        part("real", normal(120)), [part("a", normal(120, seed=2)), part("b", bad)],
        seed=0, device=CPU,
    )  # fmt: skip
    assert torch.isfinite(scores.values).tolist() == [True, False]
    assert "b" in scores.messages[-1]


@pytest.mark.parametrize(
    "options",
    [{"n_seeds": 0}, {"scale": 0.0}, {"max_examples": 1}, {"backend": "faiss"}],
    ids=lambda options: next(iter(options)),
)
def test_options_out_of_range_are_refused_by_name(options: dict):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MAUVE(**options)


def test_a_backend_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mauve", None)
    side = part("a", torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(DependencyError, match=r"mauve-text.*synque-select\[mauve\]"):
        MAUVE(backend="mauve-text").score(side, [side], seed=0, device=torch.device("cpu"))
