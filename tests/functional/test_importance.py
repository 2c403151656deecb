"""Importance weights, and what a real example does to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from synque_select.functional import balanced_accuracy, fit_importance_weights

N_REAL, N_POOL, D, FOLDS = 40, 200, 5, 5


def _data(seed: int, shift: float = 0.7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(N_REAL, D, generator=generator) + torch.tensor([shift] + [0.0] * (D - 1))
    synthetic = torch.randn(N_POOL, D, generator=generator)
    folds = torch.cat((torch.arange(N_REAL), torch.arange(N_POOL))) % FOLDS
    return real, synthetic, folds


def test_ratios_are_those_of_scikit_learn() -> None:
    real, synthetic, folds = _data(0)
    shares = torch.zeros(2, N_POOL)
    shares[0], shares[1, :100] = 1 / N_POOL, 1 / 100
    fitted = fit_importance_weights(real, synthetic, shares, folds)
    assert (fitted.weights[1, 100:] == 0).all()
    mean_square = float(torch.cat((real, synthetic)).square().sum(1).mean())
    for pool, size in ((0, N_POOL), (1, 100)):
        rows = np.r_[np.arange(N_REAL), N_REAL + np.arange(size)]
        x = torch.cat((real, synthetic)).numpy()[rows]
        y, fold = (rows < N_REAL).astype(int), folds.numpy()[rows]
        for held_out in range(FOLDS):
            train = fold != held_out
            n_real = y[train].sum()
            weights = np.where(y[train], 1, n_real / (1 - y[train]).sum())
            fit = LogisticRegression(C=1 / mean_square, tol=1e-8, max_iter=1000)
            fit.fit(x[train], y[train], sample_weight=weights)
            here = (fold == held_out) & (y == 0)
            expected = np.exp(fit.decision_function(x[here])) / size
            places = rows[here] - N_REAL
            np.testing.assert_allclose(fitted.weights[pool, places], expected, rtol=1e-2)


def test_no_row_has_more_than_its_bound() -> None:
    real, synthetic, folds = _data(0, shift=6.0)
    synthetic[:3] += torch.tensor([6.0, 0, 0, 0, 0])  # the only ones like the real sample
    fitted = fit_importance_weights(real, synthetic, torch.ones(1, N_POOL), folds, l2=1e-4)
    assert 1 <= fitted.clipped.sum() < 3
    rows, coefficients = torch.cat((real, synthetic)), fitted.coefficients[0]
    logits = rows @ coefficients[:, :-1].T + coefficients[:, -1]
    ratios = logits.gather(1, folds.unsqueeze(1))[N_REAL:, 0].double().exp()
    bound = ratios.mean() * N_POOL**0.5
    torch.testing.assert_close(
        fitted.weights[0] * N_POOL, ratios.clamp(max=bound), rtol=1e-4, atol=0
    )


def test_the_influence_of_a_real_example_is_what_leaving_it_out_changes() -> None:
    real, synthetic, folds = _data(1)
    shares = torch.full((1, N_POOL), 1 / N_POOL)
    mask = synthetic[:, 1] > 0
    right = (synthetic[:, 0] + synthetic[:, 2] > 0).double().unsqueeze(0)

    def score(kept: torch.Tensor) -> tuple[float, torch.Tensor]:
        rows = torch.cat((kept, torch.arange(N_REAL, N_REAL + N_POOL)))
        fitted = fit_importance_weights(real[kept], synthetic, shares, folds[rows])
        values, slopes = balanced_accuracy([(mask, right), (~mask, right)], fitted.weights)
        return float(values), fitted.real_influences(slopes, torch.zeros(1, dtype=torch.int64))[
            :, 0
        ]

    everything = torch.arange(N_REAL)
    value, influences = score(everything)
    assert influences.mean().abs() < 1e-9
    left_out = torch.tensor([score(everything[everything != i])[0] - value for i in range(N_REAL)])
    predicted = -influences / (N_REAL - 1)
    assert torch.corrcoef(torch.stack((left_out.double(), predicted)))[0, 1] > 0.97
    assert float(left_out.std() / predicted.std()) == pytest.approx(1, abs=0.2)


def test_the_influence_of_a_group_is_what_leaving_it_out_changes() -> None:
    # 10 groups of 4 that are nearly alike: each example has a small leverage, and the group none
    real, synthetic, folds = _data(2)
    groups = torch.arange(N_REAL) // 4
    real = real[::4][groups] + 0.1 * real
    folds[:N_REAL] = groups % FOLDS
    shares = torch.full((1, N_POOL), 1 / N_POOL)
    mask = synthetic[:, 1] > 0
    right = (synthetic[:, 0] + synthetic[:, 2] > 0).double().unsqueeze(0)

    def score(kept: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
        rows = torch.cat((kept, torch.arange(N_REAL, N_REAL + N_POOL)))
        fitted = fit_importance_weights(real[kept], synthetic, shares, folds[rows])
        values, slopes = balanced_accuracy([(mask, right), (~mask, right)], fitted.weights)
        pools = torch.zeros(1, dtype=torch.int64)
        alone = fitted.real_influences(slopes, pools)[:, 0]
        numbers = groups[kept].unique(return_inverse=True)[1]
        grouped = fitted.real_influences(slopes, pools, numbers)[:, 0]
        return float(values), alone, grouped

    value, alone, grouped = score(torch.arange(N_REAL))
    exact = torch.tensor([score(torch.nonzero(groups != g)[:, 0])[0] - value for g in range(10)])
    sums = [
        -torch.zeros(10).double().index_add_(0, groups, each) / (N_REAL - 4)
        for each in (alone, grouped)
    ]
    assert torch.corrcoef(torch.stack((exact.double(), sums[1])))[0, 1] > 0.95
    assert float(exact.std() / sums[1].std()) == pytest.approx(1, abs=0.25)
    # as if each were left out on its own, the effect of the group is too small
    assert float(sums[0].std()) < 0.8 * float(sums[1].std())


def test_groups_of_one_example_change_nothing() -> None:
    real, synthetic, folds = _data(3)
    fitted = fit_importance_weights(real, synthetic, torch.full((1, N_POOL), 1 / N_POOL), folds)
    slopes = torch.randn(1, N_POOL, generator=torch.Generator().manual_seed(0)).double()
    pools = torch.zeros(1, dtype=torch.int64)
    order = torch.randperm(N_REAL, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        fitted.real_influences(slopes, pools, order), fitted.real_influences(slopes, pools)
    )
