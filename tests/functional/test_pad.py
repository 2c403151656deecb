"""PAD's classifiers against scikit-learn, its folds, its released form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from synque_select.functional import pad
from synque_select.functional.folds import assign_folds, stratified_folds
from synque_select.functional.logistic import (
    fit_logistic_regressions,
    inverse_hessian_products,
)
from synque_select.functional.pad import (
    cross_fit,
    proxy_a_distance,
    proxy_a_distance_released,
    real_contributions,
)


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def unit(points: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(points, dim=1)


def exact(features, targets, weights):
    """Return the probabilities at scikit-learn's optimum, computed in well-conditioned form."""
    kept = weights > 0
    # rotating the rows changes nothing, and leaves as many columns as there are rows at most;
    # dividing them by s is the same as a penalty 1/s² of the size
    size = np.abs(features).max()
    _, _, axes = np.linalg.svd(features[kept], full_matrices=False)
    rows = features @ axes.T / size
    model = LogisticRegression(C=size**2, tol=1e-13, solver="newton-cholesky", max_iter=10_000)
    model.fit(rows[kept], targets[kept], sample_weight=weights[kept])
    return model.predict_proba(rows)[:, 1]


@pytest.mark.parametrize(
    ("scale", "d"), [(1e-3, 10), (1.0, 10), (1.0, 80), (30.0, 10), (1e4, 10), (1e4, 80)]
)
def test_equals_scikit_learn_at_any_scale(scale, d):
    n_groups, n_folds, n = 3, 2, 60
    features = torch.stack([sample(n, d, seed) for seed in range(n_groups)]) * scale
    targets = torch.arange(n) % 3 == 0
    features[:, targets] += 0.3 * scale
    weights = torch.rand(n_groups, n_folds, n, generator=torch.Generator().manual_seed(9)) * (
        torch.arange(n) % 2 == torch.arange(n_folds).unsqueeze(1)
    )
    solution = fit_logistic_regressions(features, targets.float(), weights)
    for group in range(n_groups):
        for fold in range(n_folds):
            rows = features[group].double().numpy()
            expected = exact(rows, targets.numpy(), weights[group, fold].double().numpy())
            logits = rows @ solution[group, fold, :-1].double().numpy() + float(
                solution[group, fold, -1]
            )
            np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=2e-4)


def test_many_groups_together_equal_each_alone():
    features = torch.stack([unit(sample(80, 30, s, 0.2 * s)) for s in range(9)])
    targets = (torch.arange(80) < 30).float()
    weights = torch.ones(9, 1, 80)
    together = fit_logistic_regressions(features, targets, weights)
    for group in range(9):
        alone = fit_logistic_regressions(features[group : group + 1], targets, weights[:1])
        torch.testing.assert_close(together[group], alone[0], atol=1e-3, rtol=0)


def test_cross_fit_equals_a_loop_of_balanced_classifiers():
    real, synthetic = unit(sample(40, 16, 0, 0.3)), unit(sample(90, 16, 1))
    features = torch.cat((real, synthetic))
    is_real = torch.arange(130) < 40
    folds = torch.arange(130) % 5
    probabilities = cross_fit(features.unsqueeze(0), is_real, folds.unsqueeze(0)).probabilities[0]
    for fold in range(5):
        train, test = (folds != fold).numpy(), (folds == fold).numpy()
        model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=10_000)
        model.fit(features.double().numpy()[train], is_real.numpy()[train])
        expected = model.predict_proba(features.double().numpy()[test])[:, 1]
        np.testing.assert_allclose(probabilities.numpy()[test], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "n_synthetic", "d", "scale"),
    [(30, 200, 16, 1.0), (15, 100, 80, 1.0), (10, 25, 4, 1.0), (40, 300, 16, 30.0)],
)
def test_released_is_the_authors_recipe(dtype, n, n_synthetic, d, scale):
    real = (unit(sample(n, d, 0, 0.3)) * scale).to(dtype)
    synthetic = (unit(sample(n_synthetic, d, 1)) * scale).to(dtype)
    features = torch.cat((synthetic, real)).numpy()
    targets = np.r_[np.zeros(n_synthetic), np.ones(n)]
    train, test, train_targets, test_targets = train_test_split(
        features, targets, test_size=0.2, random_state=42
    )
    chance = LogisticRegression().fit(train, train_targets).predict_proba(test)[:, 1]
    expected = 2 * (1 - 2 * np.mean(np.abs(chance - test_targets)))
    # in float32, rounding moves the point at which the solver stops
    error = 2e-6 if dtype == torch.float64 else 1e-4
    assert proxy_a_distance_released(real, synthetic) == pytest.approx(expected, abs=error)


def test_chance_is_zero_and_perfect_separation_is_two():
    same = [
        proxy_a_distance(unit(sample(50, 8, s)), unit(sample(100, 8, 50 + s))) for s in range(9)
    ]
    assert abs(np.mean(same)) < 0.1
    assert proxy_a_distance(sample(50, 8, 0), sample(100, 8, 1, 50.0)) > 1.95


@pytest.mark.parametrize("seed", range(10))
def test_folds_are_stratified_and_keep_copies_together(seed):
    generator = np.random.default_rng(seed)
    real = generator.integers(0, 40, 50)
    synthetic = generator.integers(20, 400, 300)
    folds = stratified_folds(real, synthetic, 5, seed=seed)
    assert folds is not None
    for groups in (np.r_[real, synthetic],):
        for group in np.unique(groups):
            assert len(np.unique(folds[groups == group])) == 1
    assert set(folds[:50]) == set(range(5))
    sizes = np.bincount(folds[50:], minlength=5)
    assert sizes.max() - sizes.min() <= 6


def test_folds_without_copies_are_even():
    sizes = np.bincount(assign_folds(np.arange(103), 5, seed=0))
    assert sorted(sizes) == [20, 20, 21, 21, 21]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("copies", [[0, 1], [2, 5], [1, 3, 4]])
def test_a_few_copies_of_real_examples_leave_both_classes_to_train_on(seed, copies):
    folds = stratified_folds(np.arange(6), np.array(copies), 5, seed=seed)
    assert folds is not None
    assert min(len(set(folds[:6])), len(set(folds[6:]))) >= 2
    np.testing.assert_array_equal(folds[6:], folds[copies])
    real = unit(sample(6, 8, seed))
    assert -2 <= proxy_a_distance(real, real[copies], seed=seed) <= 2


def test_one_example_repeated_is_undefined():
    assert math.isnan(proxy_a_distance(torch.ones(10, 3), sample(20, 3, 0)))
    assert stratified_folds(np.zeros(5, int), np.arange(9), 5, seed=0) is None


def test_inverse_hessian_products_solve_the_system():
    features = sample(50, 12, 0).unsqueeze(0)
    weights = torch.rand(1, 2, 50, generator=torch.Generator().manual_seed(4))
    logits, vectors = sample(2, 50, 1).unsqueeze(0), sample(2, 13, 2).unsqueeze(0)
    products = inverse_hessian_products(features, weights, logits, vectors, l2=0.7)
    rows = torch.cat((features[0], torch.ones(50, 1)), 1).double()
    chance = torch.sigmoid(logits.double())
    for fold in range(2):
        curvatures = weights[0, fold] * chance[0, fold] * (1 - chance[0, fold])
        hessian = rows.T @ (curvatures.unsqueeze(1) * rows)
        hessian += 0.7 * torch.diag(torch.cat((torch.ones(12), torch.zeros(1))).double())
        expected = torch.linalg.solve(hessian, vectors[0, fold].double())
        error = torch.linalg.vector_norm(products[0, fold].double() - expected)
        assert error < 2e-3 * torch.linalg.vector_norm(expected)


def test_contributions_say_what_leaving_an_example_out_changes(monkeypatch):
    n, m, d = 24, 60, 6
    features = torch.cat((sample(n, d, 0, 0.5), sample(m, d, 1))).double()
    features[:3] *= 5  # far from all others: the fit follows them
    is_real, folds = torch.arange(n + m) < n, torch.arange(n + m) % 4

    def errors(weights: torch.Tensor) -> float:
        """Sum of both held-out errors under weights of the real examples, of mean 1."""
        held_out = torch.empty(n + m, dtype=torch.float64)
        for fold in range(4):
            trained = (folds != fold).double()
            real = trained * torch.cat((weights, torch.zeros(m).double()))
            synthetic = trained * ~is_real
            # each class weighs half of the number of rows
            balanced = (real / real.sum() + synthetic / synthetic.sum()) * trained.sum() / 2
            beta = fit_logistic_regressions(
                features.unsqueeze(0), is_real.double(), balanced.view(1, 1, -1)
            )[0, 0]
            chance = torch.sigmoid(features @ beta[:-1] + beta[-1])
            held_out[folds == fold] = chance[folds == fold]
        return float((weights * (1 - held_out[:n])).mean() + held_out[n:].mean())

    fit = cross_fit(features.unsqueeze(0), is_real, folds.unsqueeze(0))
    contributions = real_contributions(features.unsqueeze(0), is_real, folds.unsqueeze(0), fit)[0]
    assert float(contributions.mean()) == pytest.approx(float(1 - fit.probabilities[0, :n].mean()))
    changes = []
    for example in range(n):
        without = torch.full((n,), n / (n - 1)).double()
        without[example] = 0
        changes.append(
            errors(without) - float(contributions.mean()) - float(fit.probabilities[0, n:].mean())
        )
    expected = torch.tensor(changes).double() * (n - 1)
    deviation = contributions.mean() - contributions
    assert float(torch.corrcoef(torch.stack((deviation, expected)))[0, 1]) > 0.99
    assert (deviation - expected).norm() < 0.2 * expected.norm()
    # a far row has a small residual of its own making: without its leverage it seems to matter less
    monkeypatch.setattr(pad, "leverages", lambda *_, **__: torch.zeros(1, 4, n).double())
    first_order = real_contributions(features.unsqueeze(0), is_real, folds.unsqueeze(0), fit)[0]
    assert first_order.std() < expected.std() < deviation.std()
