"""Linear classifiers of one candidate's labels, and what each predicts that has not seen them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

__all__ = ["Head", "fit_held_out"]

# above this squared norm of a row, the inner products of the rows lose what the penalty does
_MOST_SQUARED = 1e8


class Head(NamedTuple):
    """A ridge classifier.

    Args:
        classes: (C,) its classes.
        coefficients: (C, d) one row per class.
        intercepts: (C,) one per class.
    """

    classes: NDArray[np.str_]
    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.str_]:
        """Return the class of each row of (n, d) features, (n,)."""
        predicted: NDArray[np.str_] = self.classes[
            (x @ self.coefficients.T + self.intercepts).argmax(axis=1)
        ]
        return predicted


def fit_held_out(
    x: NDArray[np.float32], y: NDArray[np.str_], *, n_folds: int, seed: int
) -> tuple[Head | None, NDArray[np.str_]]:
    """Fit a ridge classifier on all examples, and one without each fold.

    The objective is that of sklearn's RidgeClassifier with class weights, which are those of all
    examples also without a fold: the sums of each fold then serve all fits. A logistic regression
    agrees within a few points and takes many times longer.

    Args:
        x: (n, d) features.
        y: (n,) labels.
        n_folds: Number of folds; fewer where a class has fewer examples.
        seed: Random seed for the folds.

    Returns:
        The first, None with one class; and the label that the other folds predict for each example,
        empty if a class has only one.
    """
    classes, place = np.unique(y, return_inverse=True)
    nothing = np.array([], dtype=y.dtype)
    if len(classes) < 2:
        return None, nothing
    counts = np.bincount(place)
    folds = torch.from_numpy(_folds(place, min(n_folds, int(counts.min())), seed))
    rows = torch.from_numpy(x)
    targets = 2 * torch.nn.functional.one_hot(torch.from_numpy(place)).float() - 1
    weights = torch.from_numpy(len(y) / (len(classes) * counts))[place].float()
    # with fewer rows than columns, the fits without a fold follow from the one on all rows
    few = len(x) < x.shape[1] and bool(rows.square().sum(1).amax() <= _MOST_SQUARED)
    fit = _ridge_by_rows if few else _ridge_by_folds
    coefficients, intercepts, held_out = fit(rows, targets, weights, folds)
    head = Head(classes, coefficients.T.float().numpy(), intercepts.float().numpy())
    return head, classes[held_out.numpy().argmax(1)] if counts.min() > 1 else nothing


def _folds(place: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each example, (n,), stratified by class; all 0 for one fold.

    These are the folds of scikit-learn's `StratifiedKFold` with shuffling, whose import takes a
    second, and whose checks take several times as long as the split.
    """
    numbers = np.zeros(len(place), dtype=np.int64)
    if n_folds < 2:
        return numbers
    first = np.unique(place, return_index=True)[1]
    encoded = np.argsort(np.argsort(first))[place]  # classes in the order of their first examples
    ordered = np.sort(encoded)
    sizes = np.stack(
        [np.bincount(ordered[i::n_folds], minlength=len(first)) for i in range(n_folds)]
    )
    generator = np.random.RandomState(seed)
    for number in range(len(first)):
        folds = np.arange(n_folds).repeat(sizes[:, number])
        generator.shuffle(folds)
        numbers[encoded == number] = folds
    return numbers


def _ridge_by_rows(
    x: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, folds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit a weighted ridge regression with a penalty of 1, and predict each fold without it.

    With K the inner products of the rows less their weighted mean, each multiplied with the root r
    of its weight, the residuals of the fit are R y, R = (K + I)⁻¹ − r rᵀ / Σ r², and those of the
    rows of a fold F in the fit without them (R_FF)⁻¹ (R y)_F.

    Args:
        x: (n, d) float32.
        targets: (n, C) float32.
        weights: (n,) float32.
        folds: (n,) int64, 0 to F − 1.

    Returns:
        Coefficients (d, C), intercepts (C,) and held-out predictions (n, C), float64; these are NaN
        with one fold.
    """
    x, y, w = x.double(), targets.double(), weights.double()
    root, total = w.sqrt().unsqueeze(1), w.sum()
    mean, mean_target = w @ x / total, w @ y / total
    z = root * (x - mean)
    kernel = z @ z.T
    kernel.diagonal().add_(1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
    solved = inverse @ (root * (y - mean_target))
    coefficients = z.T @ solved
    shrinking = inverse - root @ root.T / total
    held_out = torch.full_like(y, torch.nan)
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds if n_folds > 1 else 0):  # without the only fold, nothing is left
        at = torch.nonzero(folds == fold)[:, 0]
        residuals = torch.linalg.solve(shrinking[at][:, at], solved[at])
        held_out[at] = y[at] - residuals / root[at]
    return coefficients, mean_target - mean @ coefficients, held_out


def _ridge_by_folds(
    x: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, folds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `_ridge_by_rows` does, from a fit without each fold."""
    coefficients, intercepts = (part.float() for part in _ridge(x, targets, weights, folds))
    held_out = torch.empty_like(targets)
    for fold in range(int(folds.max()) + 1):
        at = torch.nonzero(folds == fold)[:, 0]
        held_out[at] = x[at] @ coefficients[fold] + intercepts[fold]
    return coefficients[-1], intercepts[-1], held_out


def _ridge(
    x: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, folds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit weighted ridge regressions with a penalty of 1, without each fold and then on all rows.

    Args:
        x: (n, d) float32.
        targets: (n, C) float32.
        weights: (n,) float32.
        folds: (n,) int64, 0 to F − 1.

    Returns:
        Coefficients (F + 1, d, C) and intercepts (F + 1, C); with one fold, those on all rows only.
    """
    order = folds.argsort(stable=True)  # those of a fold lie together
    x, targets, weights = x[order], targets[order], weights[order]
    center = x.mean(0)  # sums of squares far from 0 would lose digits
    basis, z = None, x - center
    if len(x) < x.shape[1]:  # the rows span no more dimensions than there are rows
        basis, triangle = torch.linalg.qr(z.T)
        z = triangle.T
    ones = torch.ones(len(z), 1, dtype=x.dtype)
    weighted = torch.cat((z, ones, targets), 1).mul_(weights.sqrt()[:, None])
    sizes = torch.bincount(folds).tolist()
    each = [_lower_products(part) for part in torch.split(weighted, sizes)]
    every = torch.stack(each).sum(0)
    # without the only fold, nothing is left
    wanted = [every - part for part in each] if len(each) > 1 else []
    fits = [_solve(sums, z.shape[1]) for sums in (*wanted, every)]
    solved, intercepts = (torch.stack(parts) for parts in zip(*fits, strict=True))
    # of large features, the penalty is lost
    if x.dtype != torch.float64 and not solved.isfinite().all():
        return _ridge(x.double(), targets.double(), weights.double(), folds[order])
    solved = solved if basis is None else basis @ solved
    return solved, intercepts - center @ solved


def _solve(sums: torch.Tensor, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve a ridge regression with a penalty of 1.

    Args:
        sums: The inner products of d features, ones and C targets, of which those below the
            diagonal are read.
        d: Number of features.

    Returns:
        Coefficients (d, C) and intercepts (C,); NaN if the matrix is not positive definite.
    """
    total = sums[d, d]
    mean, mean_target = sums[d, :d] / total, sums[d + 1 :, d] / total
    # one fit after another: a matrix of a few hundred columns stays in the caches
    gram = torch.addr(sums[:d, :d], -total * mean, mean)
    gram.diagonal().add_(1)
    factor, failed = torch.linalg.cholesky_ex(gram)
    wanted = sums[d + 1 :, :d].T - torch.outer(total * mean, mean_target)
    solved = torch.cholesky_solve(wanted, factor)
    if failed:
        solved.fill_(torch.nan)
    return solved, mean_target - mean @ solved


def _lower_products(rows: torch.Tensor) -> torch.Tensor:
    """Return the inner products of the columns of (n, p) rows, (p, p); 0 above the diagonal."""
    # half of the work of a product of two matrices
    products = get_blas_funcs("syrk", dtype=rows.numpy().dtype)(1.0, rows.numpy().T)
    return torch.from_numpy(products.T)
