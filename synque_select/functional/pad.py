"""Proxy A-distance (PAD): how well a linear classifier separates real from synthetic examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from synque_select.functional.folds import stratified_folds
from synque_select.functional.logistic import (
    fit_logistic_regressions,
    inverse_curvature_root,
    inverse_hessian_products,
    leverages,
)

__all__ = [
    "CrossFit",
    "cross_fit",
    "pad_from_errors",
    "proxy_a_distance",
    "proxy_a_distance_released",
    "real_contributions",
]

_Floats = NDArray[np.floating[Any]]
# a row is undone at most tenfold: beyond that the linear approximation has nothing left to say
_LEAST_FREE = 0.1


def pad_from_errors(real_error: float, synthetic_error: float) -> float:
    """Return 2 (1 − 2ε) with ε the mean of the two classes' held-out errors; lower is closer.

    Args:
        real_error: Mean held-out error on the real examples, 0 to 1.
        synthetic_error: Mean held-out error on the synthetic examples, 0 to 1.

    Returns:
        −2 to 2; 0 is chance, 2 a perfect separation.

    Source: Ben-David et al. 2007, "Analysis of representations for domain adaptation".

    Example:
        >>> pad_from_errors(0.5, 0.5), pad_from_errors(0.0, 0.0)
        (0.0, 2.0)
    """
    return 2 * (1 - (real_error + synthetic_error))


@dataclass(frozen=True)
class CrossFit:
    """Held-out probabilities of being real, and the classifiers that predicted them.

    Args:
        probabilities: (G, N) float64, each from the classifier that was not trained on the row.
        coefficients: (G, F, d + 1), the intercept last.
        root: (d + 1, d + 1) result of `inverse_curvature_root` at the curvature of these fits;
            also usable for further groups of similar features.
    """

    probabilities: torch.Tensor
    coefficients: torch.Tensor
    root: torch.Tensor


def cross_fit(
    features: torch.Tensor,
    is_real: torch.Tensor,
    folds: torch.Tensor,
    *,
    n_folds: int | None = None,
    l2: float = 1.0,
    root: torch.Tensor | None = None,
) -> CrossFit:
    """Fit each group's classifier once per fold, without that fold, and predict the fold.

    Both classes have the same total weight within each training part.

    Args:
        features: (G, N, d) float32 or float64 rows of each group.
        is_real: (N,) bool, the same in every group.
        folds: (G, N) int64 fold of each row, 0 to F − 1. Every fold must contain rows of both
            classes and leave rows of both outside.
        n_folds: F, the largest number of folds of a group; None to look for it.
        l2: Strength of the penalty, 1 / C in scikit-learn's terms.
        root: `CrossFit.root` of an earlier fit of similar features, to save computing it; None to
            compute it.

    Returns:
        Probabilities and coefficients; NaN for fits that did not converge.

    Example:
        >>> x = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]])
        >>> is_real = torch.tensor([False, False, True, True])
        >>> fit = cross_fit(x, is_real, torch.tensor([[0, 1, 0, 1]]))
        >>> (fit.probabilities > 0.5).tolist()
        [[False, False, True, True]]
    """
    # balanced, because a candidate is usually much larger than the real sample: unweighted, the
    # classifier would call everything synthetic, and the error would measure the ratio of sizes
    n_folds = int(folds.max()) + 1 if n_folds is None else n_folds
    weights = _training_weights(is_real, folds, n_folds).to(features)
    targets = is_real.to(features)
    coefficients = fit_logistic_regressions(features, targets, weights, l2=l2, root=root)
    logits = _logits(features, coefficients)
    if root is None:
        # at the fitted curvature it preconditions better than the bound, for fits to come
        root = inverse_curvature_root(features, weights, logits=logits, l2=l2)
    held_out = logits.gather(1, folds.unsqueeze(1)).squeeze(1)
    return CrossFit(torch.sigmoid(held_out.double()), coefficients, root)


def _logits(features: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    return (features @ coefficients[..., :-1].mT).mT.contiguous() + coefficients[..., -1:]


def _training_weights(is_real: torch.Tensor, folds: torch.Tensor, n_folds: int) -> torch.Tensor:
    """(G, F, N) float64: 0 for the fold that is held out, otherwise balanced by class."""
    numbers = torch.arange(n_folds, device=folds.device).view(1, -1, 1)
    trained = (folds.unsqueeze(1) != numbers).double()
    n_real = (trained * is_real).sum(2, keepdim=True)
    n_synthetic = (trained * ~is_real).sum(2, keepdim=True)
    # scaled to a mean of 1, so that the penalty has the same strength for every size of class
    balanced = torch.where(is_real, 1 / n_real, 1 / n_synthetic) * (n_real + n_synthetic) / 2
    return trained * balanced


def real_contributions(
    features: torch.Tensor,
    is_real: torch.Tensor,
    folds: torch.Tensor,
    fit: CrossFit,
    *,
    l2: float = 1.0,
) -> torch.Tensor:
    """Return each real example's contribution to the sum of the two classes' held-out errors.

    A contribution is the example's own held-out loss plus its effect on all other held-out losses
    through the classifiers that were trained on it, as if it were left out (one Newton step, with
    its leverage): nothing is fitted again. The mean over the real examples is the real class's
    error; the mean under the weights of a resample gives the change of the sum of both errors.

    Args:
        features: (G, N, d) rows given to `cross_fit`.
        is_real: (N,) bool given to `cross_fit`.
        folds: (G, N) int64 folds given to `cross_fit`.
        fit: Result of `cross_fit`.
        l2: Strength of the penalty given to `cross_fit`.

    Returns:
        (G, n_real) float64.

    Source: Giordano et al. 2019 (arXiv 1806.00550), the infinitesimal jackknife; Pregibon 1981 for
        leaving one row out.

    Example:
        >>> x = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]])
        >>> is_real, folds = torch.tensor([False, False, True, True]), torch.tensor([[0, 1, 0, 1]])
        >>> fit = cross_fit(x, is_real, folds)
        >>> contributions = real_contributions(x, is_real, folds, fit)
        >>> error = 1 - fit.probabilities[:, is_real].mean()
        >>> torch.allclose(contributions.mean(), error)
        True
    """
    logits = _logits(features, fit.coefficients)
    chance, n_folds = torch.sigmoid(logits.double()), logits.shape[1]
    weights = _training_weights(is_real, folds, n_folds)
    # once: the host waits for a device to learn how many they are
    rows = torch.nonzero(is_real).ravel()
    n_real = len(rows)
    held_out = folds.unsqueeze(1) == torch.arange(n_folds, device=folds.device).view(1, -1, 1)
    # the chain rule, from the outside in: the slope of the sum of both held-out errors in each
    # classifier's logits, then in its coefficients
    signs = torch.where(is_real, -1 / n_real, 1 / (len(is_real) - n_real)).double()
    slopes = (held_out * signs * chance * (1 - chance)).to(features)
    vectors = torch.cat((slopes @ features, slopes.sum(2, keepdim=True)), 2)
    # one solve per classifier, not one per example: H is symmetric, so uᵀH⁻¹g needs H⁻¹u only
    solved = inverse_hessian_products(features, weights, logits, vectors, l2=l2, root=fit.root)
    # how a real example's weight moves the coefficients of its classifiers, times that slope
    moved = (weights * (1 - chance) * _logits(features, solved).double())[..., rows]
    # a row that pulls the fit towards itself has the small residual of its own making: undone as
    # by leaving the row out, or the contributions of rows far from all others would be too small
    moved = moved / (1 - leverages(features, weights, logits, rows, l2=l2)).clamp_min(_LEAST_FREE)
    trained = (~held_out[..., rows]).double()
    # after a resample the training part is balanced again, so that only the deviation from its
    # mean has an effect
    moved = moved - trained * moved.sum(2, keepdim=True) / trained.sum(2, keepdim=True)
    return 1 - fit.probabilities[:, rows] + n_real * moved.sum(1)


def proxy_a_distance(
    real: torch.Tensor, synthetic: torch.Tensor, *, n_folds: int = 5, seed: int = 0
) -> float:
    """Proxy A-distance by a class-balanced, cross-fitted logistic regression; lower is closer.

    2 (1 − 2ε) with ε the mean of the two classes' held-out soft errors |p − y|. The L2 penalty has
    C = 1, features are not standardized, folds are stratified, and equal rows share a fold.

    Args:
        real: (n, d) float32 or float64, at least 2 distinct rows.
        synthetic: (N, d), any float dtype, any device, at least 2 distinct rows.
        n_folds: Number of folds, at most; never more than the distinct rows of a class.
        seed: Random seed for the folds.

    Returns:
        −2 to 2; 0 is chance. NaN if a class has fewer than 2 distinct rows.

    Source: Ben-David et al. 2007; SynQuE (arXiv 2511.03928).

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x = torch.from_numpy(load_digits().data).float() / 64
        >>> abs(proxy_a_distance(x[:50], x[50:250])) < 0.1
        True
        >>> proxy_a_distance(x[:50], x[50:250] + 1) > 1
        True
    """
    features = torch.cat((real, synthetic.to(real)))
    # with a copy of a row in training, its held-out prediction is a memory, not a generalization
    groups = np.unique(features.cpu().numpy(), axis=0, return_inverse=True)[1].ravel()
    folds = stratified_folds(groups[: len(real)], groups[len(real) :], n_folds, seed=seed)
    if folds is None:
        return math.nan
    is_real = torch.arange(len(features), device=real.device) < len(real)
    fit = cross_fit(
        features.unsqueeze(0), is_real, torch.from_numpy(folds).to(real.device).unsqueeze(0)
    )
    chance = fit.probabilities[0]
    return pad_from_errors(float(1 - chance[: len(real)].mean()), float(chance[len(real) :].mean()))


def proxy_a_distance_released(real: torch.Tensor, synthetic: torch.Tensor) -> float:
    """Proxy A-distance as computed by the authors of SynQuE; lower is closer.

    Rows are stacked, synthetic first (real = 1); one 80/20 split with seed 42, not stratified; an
    unweighted logistic regression with scikit-learn's defaults; ε is the mean |p − y| held out.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d), any float dtype, any device.

    Returns:
        −2 to 2; NaN if the training part contains only one class.

    Source: the repository r2llab/SynQuE.

    Example:
        >>> x = torch.arange(40.0).unsqueeze(1)
        >>> proxy_a_distance_released(x[:20], x[20:]) > 1.5
        True
    """
    features = torch.cat((synthetic.to(real), real)).cpu().numpy()
    targets = np.r_[np.zeros(len(synthetic)), np.ones(len(real))]
    # scikit-learn's train_test_split
    order = np.random.RandomState(42).permutation(len(features))
    n_test = math.ceil(0.2 * len(features))
    test, train = order[:n_test], order[n_test:]
    if len(np.unique(targets[train])) < 2:
        return math.nan
    coefficients = _fit_as_scikit_learn(features[train], targets[train])
    chance = expit(features[test] @ coefficients[:-1] + coefficients[-1])
    return 2 * (1 - 2 * float(np.abs(chance - targets[test]).mean()))


def _fit_as_scikit_learn(rows: _Floats, targets: _Floats) -> _Floats:
    """Return the coefficients (d + 1,) of scikit-learn's LogisticRegression with its defaults.

    The objective, the start, the solver and its limits are the same, so it stops at the same point,
    short of the optimum. The time that scikit-learn spends around the solver is saved.
    """
    # imported here: it takes long, and only the released protocol needs it
    from scipy.optimize import minimize

    n, d = rows.shape
    targets = targets.astype(rows.dtype)

    def objective(coefficients: _Floats) -> tuple[float, _Floats]:
        slopes = coefficients[:-1]
        logits = rows @ slopes + coefficients[-1]
        loss = (np.logaddexp(0, logits) - targets * logits).mean() + slopes @ slopes / (2 * n)
        residuals = (expit(logits) - targets) / n
        gradient = np.empty_like(coefficients)
        gradient[:-1] = residuals @ rows + slopes / n
        gradient[-1] = residuals.sum()
        return float(loss), gradient

    # the authors' code also stops after 100 iterations, converged or not
    options = {"maxiter": 100, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(np.float64).eps}
    start = np.zeros(d + 1, dtype=rows.dtype)
    result = minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
    coefficients: _Floats = result.x.astype(rows.dtype)
    return coefficients
