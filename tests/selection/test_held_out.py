"""Classifiers of a candidate's labels: those of scikit-learn, with few rows and with many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from synque_select.selection import held_out
from synque_select.selection.held_out import fit_held_out


def data(n: int, d: int, scale: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    generator = np.random.default_rng(n)
    y = generator.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    x = generator.normal(size=(n, d)) / np.sqrt(d) + 3
    x[:, 0] += 2 * (y == "a") / np.sqrt(d)
    x[:, 1] += 3 * (y == "b") / np.sqrt(d)
    return (scale * x).astype(np.float32), y


def refitted(
    x: NDArray[np.float32], y: NDArray[np.str_], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores of scikit-learn's ridge regression, fitted without each fold."""
    classes, place = np.unique(y, return_inverse=True)
    weights = (len(y) / (len(classes) * np.bincount(place)))[place]
    targets = 2.0 * (y[:, None] == classes) - 1
    scores = np.empty(targets.shape)
    for fold in set(folds.tolist()):
        at = folds == fold
        model = Ridge(alpha=1.0).fit(x[~at].astype(float), targets[~at], weights[~at])
        scores[at] = model.predict(x[at].astype(float))
    return scores


@pytest.mark.parametrize(("n", "d"), [(90, 200), (199, 200), (200, 200), (300, 40)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_held_out_predictions_are_those_of_refitting(n: int, d: int, scale: float):
    x, y = data(n, d, scale)
    head, predicted = fit_held_out(x, y, n_folds=5, seed=3)
    classes, place = np.unique(y, return_inverse=True)
    folds = held_out._folds(place, 5, 3)
    scores = refitted(x, y, folds)
    best = np.sort(scores, axis=1)
    is_clear = best[:, -1] - best[:, -2] > 1e-3  # or rounding decides
    assert is_clear.mean() > 0.95
    assert (predicted == classes[scores.argmax(1)])[is_clear].all()
    assert head is not None
    whole = refitted(np.r_[x, x], np.r_[y, y], np.repeat([0, 1], n))[:n]
    np.testing.assert_allclose(x @ head.coefficients.T + head.intercepts, whole, atol=2e-3)


def test_both_ways_give_the_same():
    x, y = data(150, 160)
    classes, place = np.unique(y, return_inverse=True)
    folds = torch.from_numpy(held_out._folds(place, 4, 0))
    targets = 2 * torch.from_numpy(y[:, None] == classes).float() - 1
    weights = torch.from_numpy(1.0 + np.arange(150) % 3).float()
    parts = torch.from_numpy(x), targets, weights, folds
    for one, other in zip(
        held_out._ridge_by_rows(*parts), held_out._ridge_by_folds(*parts), strict=True
    ):
        torch.testing.assert_close(one.float(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_columns_are_those_below_the_diagonal(dtype: torch.dtype):
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    products = held_out._lower_products(rows)
    torch.testing.assert_close(products, (rows.T @ rows).tril())
    assert products.dtype == dtype


def test_a_class_with_one_example_has_a_classifier_and_no_held_out_predictions():
    x, y = data(30, 50)
    y[0] = "d"
    head, predicted = fit_held_out(x, y, n_folds=5, seed=0)
    assert head is not None
    assert head.predict(x)[0] == "d"
    assert not len(predicted)


def test_one_class_has_no_classifier():
    head, predicted = fit_held_out(*(data(30, 50)[0], np.full(30, "a")), n_folds=5, seed=0)
    assert head is None
    assert not len(predicted)


def test_large_features_are_fitted_by_folds(monkeypatch: pytest.MonkeyPatch):
    """Their inner products would lose the penalty."""
    monkeypatch.delattr(held_out, "_ridge_by_rows")
    x, y = data(60, 100, 1e6)
    _, predicted = fit_held_out(x, y, n_folds=5, seed=0)
    assert len(predicted) == 60
