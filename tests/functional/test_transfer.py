"""Heads against scikit-learn, and what their scores promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from synque_select.functional import fit_heads, stratified_rows
from synque_select.functional.transfer import Heads


def _classes(codes: torch.Tensor, n_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(codes, n_classes).bool()


def _blobs(n: int, n_classes: int, seed: int, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = 2 * torch.randn(n_classes, d, generator=torch.Generator().manual_seed(99))
    codes = torch.randint(n_classes, (n,), generator=generator)
    return centers[codes] + torch.randn(n, d, generator=generator), codes


@pytest.mark.parametrize("n_classes", [2, 4])
def test_heads_are_the_regressions_of_scikit_learn(n_classes: int) -> None:
    data = [_blobs(80, n_classes, seed) for seed in range(3)]
    heads = fit_heads([x for x, _ in data], [_classes(y, n_classes) for _, y in data])
    assert heads.owners.tolist() == [0, 1, 2]
    for k, (x, y) in enumerate(data):
        counts = np.bincount(y.numpy(), minlength=n_classes)
        weights = 80 / n_classes / counts[y.numpy()]
        for c in range(n_classes):
            expected = LogisticRegression(tol=1e-8, max_iter=1000)
            expected.fit(x.numpy(), (y == c).numpy(), sample_weight=weights)
            torch.testing.assert_close(
                heads.coefficients[k, c],
                torch.from_numpy(np.r_[expected.coef_[0], expected.intercept_]).float(),
                rtol=0,
                atol=5e-3,
            )


def test_a_class_that_a_head_never_saw_is_never_predicted() -> None:
    x, y = _blobs(90, 3, 0)
    parts = [torch.arange(90), (y != 2).nonzero()[:, 0], (y == 1).nonzero()[:, 0]]
    heads = fit_heads(
        [x[rows] for rows in parts], [_classes(y, 3)[rows] for rows in parts], n_draws=1
    )
    chances = heads.probabilities(x)
    torch.testing.assert_close(chances.sum(2), torch.ones(3, 90))
    assert heads.known.tolist() == [[True] * 3, [True, True, False], [False, True, False]]
    assert set(chances.argmax(2)[1].tolist()) == {0, 1}
    assert (chances.argmax(2)[2] == 1).all()


def test_larger_candidates_get_one_head_per_draw_of_the_common_size() -> None:
    x, y = _blobs(60, 2, 0)
    more, labels = _blobs(300, 2, 1)
    heads = fit_heads([x, more], [_classes(y, 2), _classes(labels, 2)], n_draws=4)
    assert heads.owners.tolist() == [0, 1, 1, 1, 1]
    assert len(torch.unique(heads.coefficients, dim=0)) == 5
    again = [part for part in heads.batches(2**23)]
    assert [len(part) for part in again] == [1] * 5


def test_several_labels_per_row() -> None:
    x, y = _blobs(200, 2, 0)
    targets = torch.stack((y == 0, torch.ones(200, dtype=torch.bool), y == 1, y > 1), 1)
    chances = fit_heads([x], [targets], exclusive=False).probabilities(x)[0]
    predicted = chances > 0.5
    assert (predicted[:, [0, 2]] == targets[:, [0, 2]]).double().mean() > 0.9
    assert predicted[:, 1].all(), "every row has it"
    assert not predicted[:, 3].any(), "no row has it"


def test_a_stratified_draw_keeps_the_shares_and_forgets_the_order_of_rows() -> None:
    codes = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = np.arange(100)
    for seed in range(50):
        rows = stratified_rows(_classes(codes, 3), 30, seed=seed, order=order)
        assert len(set(rows.tolist())) == 30
        assert np.abs(np.bincount(codes[rows], minlength=3) - [18, 9, 3]).max() <= 1
    turned = stratified_rows(_classes(codes.flip(0), 3), 30, seed=7, order=order[::-1].copy())
    straight = stratified_rows(_classes(codes, 3), 30, seed=7, order=order)
    assert set(99 - turned) == set(straight)


def test_each_row_is_drawn_with_the_same_probability() -> None:
    codes = torch.tensor([0] * 17 + [1] * 3)
    drawn = np.zeros(20)
    for seed in range(4000):
        drawn[stratified_rows(_classes(codes, 2), 5, seed=seed)] += 1
    # standard error of a share of 0.25 over 4,000 draws: 0.007
    assert np.abs(drawn / 4000 - 0.25).max() < 0.03


@pytest.mark.parametrize("owners", [[0, 1, 2], [0, 0, 1], [0, 1, 1]])
def test_by_candidate_is_the_mean_of_each_candidates_heads(owners: list[int]):
    heads = Heads(torch.zeros(3, 2, 4), torch.ones(3, 2, dtype=torch.bool), torch.tensor(owners))
    values = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    expected = [values[torch.tensor(owners) == k].mean(0) for k in range(max(owners) + 1)]
    torch.testing.assert_close(heads.by_candidate(values), torch.stack(expected))
