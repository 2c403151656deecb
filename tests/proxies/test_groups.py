"""Proxies and a real sample with groups: folds, kernel means, neighbors, halves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from synque_select.functional.coverage import real_radii
from synque_select.functional.folds import joined_contents
from synque_select.functional.mmd import (
    Kernel,
    kernel_matrix,
    off_diagonal_matrix,
    resampling_factor,
    self_kernel_mean,
    weighted_kernel_mean,
)
from synque_select.lens.samples import halves
from synque_select.proxies import kernel
from synque_select.proxies.base import ProxyInput, ProxyScores
from synque_select.proxies.domain import PAD
from synque_select.proxies.inputs import cross_fit_folds, example_groups
from synque_select.proxies.registry import get_proxy
from synque_select.selection.uncertainty import multinomial_weights
from synque_select.testing.proxies import proxy_input

RNG = np.random.default_rng(0)
GROUPS = np.array([0, 1, 2, 0, 1, 0, 3, 4, 5, 5, 6, 7])
POINTS = torch.from_numpy(RNG.normal(size=(12, 3)))
RBF = Kernel("rbf", (0.3,))
SPECS: list[Any] = ["pad", "mmd", "energy", "coverage", "ngram", "density", "knn_coverage"]


def parts(n_groups: int, copies: int) -> tuple[ProxyInput, list[ProxyInput]]:
    rng = np.random.default_rng(1)
    points = np.repeat(rng.normal(size=(n_groups, 12)), copies, axis=0)
    points += 1e-3 * rng.normal(size=points.shape)  # near copies
    real = dataclasses.replace(
        proxy_input("real", points), groups=np.repeat(np.arange(n_groups), copies)
    )
    return real, [proxy_input(f"c{i}", rng.normal(size=(80, 12)) + 0.3 * i) for i in range(3)]


def score(spec: Any, real: ProxyInput, candidates: list[ProxyInput]) -> ProxyScores:
    key, options = (spec, {}) if isinstance(spec, str) else spec
    return get_proxy(key, **options).score(real, candidates, seed=0, device=torch.device("cpu"))


def test_kernel_mean_is_over_pairs_of_different_groups():
    matrix = kernel_matrix(RBF, POINTS, POINTS).numpy()
    apart = GROUPS[:, None] != GROUPS
    mean = self_kernel_mean(RBF, POINTS, groups=GROUPS)
    assert mean.off_diagonal == pytest.approx(matrix[apart].mean())
    assert mean.diagonal == pytest.approx(matrix[~apart].mean())
    assert mean.all_pairs == pytest.approx(matrix.mean())
    left_out = off_diagonal_matrix(RBF, POINTS, GROUPS).numpy()
    np.testing.assert_allclose(left_out, matrix * apart)


def test_groups_of_one_are_no_groups():
    alone = np.arange(12)
    assert resampling_factor(12, alone) == pytest.approx(resampling_factor(12))
    with_groups, without = (self_kernel_mean(RBF, POINTS, groups=g) for g in (alone, None))
    assert with_groups.off_diagonal == pytest.approx(without.off_diagonal)
    assert with_groups.all_pairs == pytest.approx(without.all_pairs)
    torch.testing.assert_close(real_radii(POINTS, 2, alone), real_radii(POINTS, 2))


def test_kernel_means_in_blocks_are_those_of_one_matrix(monkeypatch):
    whole = self_kernel_mean(RBF, POINTS, groups=GROUPS)
    weights = multinomial_weights(12, 20, 0, GROUPS)
    redrawn = weighted_kernel_mean(RBF, POINTS, weights, GROUPS)
    monkeypatch.setattr("synque_select.functional.mmd._HALF_ROWS", 3)
    monkeypatch.setattr("synque_select.functional.mmd._HALF_COLUMNS", 5)
    blocks = self_kernel_mean(RBF, POINTS, groups=GROUPS)
    assert blocks.off_diagonal == pytest.approx(whole.off_diagonal)
    assert blocks.diagonal == pytest.approx(whole.diagonal)
    torch.testing.assert_close(weighted_kernel_mean(RBF, POINTS, weights, GROUPS), redrawn)


def test_resampled_kernel_mean_is_unbiased():
    groups = np.repeat(np.arange(6), 2)
    weights = multinomial_weights(12, 200_000, 0, groups)
    redrawn = weighted_kernel_mean(RBF, POINTS, weights, groups)
    expected = self_kernel_mean(RBF, POINTS, groups=groups).off_diagonal
    assert float(redrawn.mean()) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("spec", ["mmd", "energy", ("mmd", {"protocol": "released"})])
def test_a_large_real_sample_is_redrawn_in_blocks_alike(monkeypatch, spec):
    real, candidates = parts(10, 3)
    weights = multinomial_weights(30, 50, 0, real.groups)
    small = score(spec, real, candidates)
    monkeypatch.setattr(kernel, "_MAX_PAIRS", 29)
    large = score(spec, real, candidates)
    assert small.resample is not None
    assert large.resample is not None
    torch.testing.assert_close(
        small.resample(weights), large.resample(weights), rtol=1e-5, atol=1e-6
    )


def test_joined_contents_follow_chains_of_copies_and_groups():
    contents = np.array([5, 6, 6, 7, 8], dtype=np.uint64)
    groups = np.array([0, 0, 1, 2, 1])
    joined = joined_contents(contents, groups)
    assert len(np.unique(joined[[0, 1, 2, 4]])) == 1
    assert joined[3] == 7
    assert set(joined.tolist()) <= set(contents.tolist())
    assert joined_contents(contents, None) is contents


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_in_one_fold_of_pad_together_with_its_synthetic_copies(seed):
    real, candidates = parts(8, 3)
    contents = example_groups(real)
    synthetic = np.concatenate((example_groups(candidates[0])[:30], contents[[4, 10]]))
    folds = cross_fit_folds(real, synthetic, 5, seed)
    assert folds is not None
    of_real, of_copies = folds[:24].reshape(8, 3), folds[-2:]
    assert (of_real == of_real[:, :1]).all()
    assert of_copies.tolist() == [of_real[1, 0], of_real[3, 0]]
    assert len(np.unique(folds)) == 5


def test_near_copies_no_longer_reveal_each_other_to_pad():
    # in 12 dimensions 10 points are separated from anything: with copies of them in training, the
    # held-out ones are recognized, and candidates from the same distribution look far away
    real, candidates = parts(10, 3)
    ignored = score("pad", dataclasses.replace(real, groups=None), candidates).values[0]
    known = score("pad", real, candidates).values[0]
    assert known < ignored - 0.1


@pytest.mark.parametrize("spec", SPECS)
def test_copies_score_as_one_example_each(spec):
    thrice, candidates = parts(20, 3)
    once = dataclasses.replace(
        thrice,
        views=thrice.views[::3],
        digests=thrice.digests[::3],
        embeddings=None if thrice.embeddings is None else thrice.embeddings[::3],
        groups=None,
    )
    one, three = (score(spec, part, candidates).values for part in (once, thrice))
    # PAD: the penalty weighs less with three times as many rows. Density and coverage: 5 of 60
    # neighbors are 2 of 20
    loose = {"pad": 0.3, "density": 0.6, "knn_coverage": 0.4, "mmd": 0.01}
    torch.testing.assert_close(three, one, rtol=0.02, atol=loose.get(spec, 0.01))


def test_radii_are_distances_to_other_groups():
    radii = real_radii(POINTS, 2, GROUPS)
    distances = torch.cdist(POINTS, POINTS)
    for i, radius in enumerate(radii):
        others = distances[i][torch.from_numpy(GROUPS[i] != GROUPS)]
        assert float(radius) == pytest.approx(float(others.sort().values[1]))
    # one group leaves a single neighbor
    few = np.array([0] * 11 + [1])
    torch.testing.assert_close(real_radii(POINTS, 5, few)[:11], distances[:11, 11])


def test_p_values_are_of_one_example_per_group():
    real, candidates = parts(12, 4)
    near = proxy_input("near", np.random.default_rng(7).normal(size=(80, 12)))
    spec = ("mmd", {"p_value": True})
    known = score(spec, real, [near, *candidates]).p_values
    ignored = score(spec, dataclasses.replace(real, groups=None), [near, *candidates]).p_values
    assert known is not None
    assert ignored is not None
    assert known[0] > 0.05
    assert ignored[0] < known[0]


@pytest.mark.parametrize("spec", [*SPECS, "mauve", "frechet"])
def test_one_group_of_all_is_scored_as_if_there_were_none(spec):
    real, candidates = parts(10, 2)
    one = dataclasses.replace(real, groups=np.zeros(20, dtype=np.int64))
    none = dataclasses.replace(real, groups=None)
    assert torch.equal(score(spec, one, candidates).values, score(spec, none, candidates).values)


def test_mauve_is_unreliable_by_the_number_of_groups():
    real, candidates = parts(40, 3)
    scores = score("mauve", real, candidates)
    assert not scores.reliable
    assert any("40 groups of real examples" in message for message in scores.messages)
    assert score("mauve", dataclasses.replace(real, groups=None), candidates).reliable


@pytest.mark.parametrize("seed", range(5))
def test_halves_do_not_divide_groups(seed):
    order = np.random.default_rng(seed).permutation(12)
    first, second = halves(order, GROUPS)
    assert sorted([*first, *second]) == list(range(12))
    assert not set(GROUPS[first]) & set(GROUPS[second])
    assert abs(len(first) - len(second)) <= 3
    plain = halves(order, None)
    assert np.concatenate(plain).tolist() == order.tolist()


def test_pad_scores_mixtures_by_the_same_folds():
    real, candidates = parts(10, 3)
    scores = PAD().score(real, candidates, seed=0, device=torch.device("cpu"))
    assert scores.mixture is not None
    single = scores.mixture(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert single == pytest.approx(float(scores.values[1]), abs=1e-5)
