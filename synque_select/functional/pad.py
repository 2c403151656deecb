"""Proxy A-distance: how well a linear classifier tells real from synthetic examples."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from synque_select.functional.folds import stratified_folds
from synque_select.functional.logistic import (
    fit_logistic_regressions,
    inverse_curvature_root,
    inverse_hessian_products,
)

__all__ = [
    "CrossFit",
    "cross_fit",
    "pad_from_errors",
    "proxy_a_distance",
    "proxy_a_distance_released",
    "real_contributions",
]


def pad_from_errors(real_error: float, synthetic_error: float) -> float:
    """2 (1 − 2ε), ε the mean of the two classes' held-out errors; 0 is chance, 2 is told apart.

    Source: Ben-David et al. 2007.

    Example:
        >>> pad_from_errors(0.5, 0.5), pad_from_errors(0.0, 0.0)
        (0.0, 2.0)
    """
    return 2 * (1 - (real_error + synthetic_error))


@dataclass(frozen=True)
class CrossFit:
    """Held-out probabilities of being real, and the classifiers they came from.

    Args:
        probabilities: (G, N) float64, each by the classifier that did not see the row.
        coefficients: (G, F, d + 1), the intercept last.
        root: Of `inverse_curvature_root`, at the curvature of the first groups that were fitted;
            it serves further groups of like features.
    """

    probabilities: torch.Tensor
    coefficients: torch.Tensor
    root: torch.Tensor

    def of_group(self, group: int) -> CrossFit:
        """The same for one group, G = 1."""
        chosen = slice(group, group + 1)
        return CrossFit(self.probabilities[chosen], self.coefficients[chosen], self.root)


def cross_fit(
    features: torch.Tensor,
    is_real: torch.Tensor,
    folds: torch.Tensor,
    *,
    l2: float = 1.0,
    root: torch.Tensor | None = None,
) -> CrossFit:
    """Fit each group's classifier without each fold, and predict the fold.

    Classes are weighted to balance within each training part.

    Args:
        features: (G, N, d): each group's rows.
        is_real: (N,) bool, the same in every group.
        folds: (G, N) int64, the fold of each row, 0 to F − 1; each holds out rows of both classes
            and leaves rows of both.
        l2: Strength of the penalty.
        root: That of an earlier fit of like features, which saves making one; None for none.
    """
    weights = _training_weights(is_real, folds).to(features)
    targets = is_real.to(features)
    coefficients = fit_logistic_regressions(features, targets, weights, l2=l2, root=root)
    logits = _logits(features, coefficients)
    if root is None:
        root = inverse_curvature_root(features, weights, logits=logits, l2=l2)
    held_out = logits.gather(1, folds.unsqueeze(1)).squeeze(1)
    return CrossFit(torch.sigmoid(held_out.double()), coefficients, root)


def _logits(features: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    return coefficients[..., :-1] @ features.mT + coefficients[..., -1:]


def _training_weights(is_real: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
    """(G, F, N) float64: 0 for the fold that is held out, else such that classes balance."""
    numbers = torch.arange(int(folds.max()) + 1, device=folds.device).view(1, -1, 1)
    trained = (folds.unsqueeze(1) != numbers).double()
    n_real = (trained * is_real).sum(2, keepdim=True)
    n_synthetic = (trained * ~is_real).sum(2, keepdim=True)
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
    """What each real example contributes to the sum of the two classes' held-out errors.

    Its own held-out loss, and what it does to all other held-out losses through the classifiers
    that were trained on it, to first order (the infinitesimal jackknife): nothing is refitted.
    Their mean over the real examples is the real class's error; weighted by a resample's weights,
    they are how the sum of both errors answers to it.

    Args:
        features: As given to `cross_fit`.
        is_real: Likewise.
        folds: Likewise.
        fit: What it returned.
        l2: As given to `cross_fit`.

    Returns:
        (G, n_real) float64.

    Source: Giordano et al. 2019 (infinitesimal jackknife of cross-validation).
    """
    weights, logits = _training_weights(is_real, folds), _logits(features, fit.coefficients)
    chance = torch.sigmoid(logits.double())
    n_real, n_folds = int(is_real.sum()), logits.shape[1]
    held_out = folds.unsqueeze(1) == torch.arange(n_folds, device=folds.device).view(1, -1, 1)
    # slope of the sum of both held-out errors in each classifier's logits, then coefficients
    signs = torch.where(is_real, -1 / n_real, 1 / (len(is_real) - n_real)).double()
    slopes = (held_out * signs * chance * (1 - chance)).to(features)
    vectors = torch.cat((slopes @ features, slopes.sum(2, keepdim=True)), 2)
    solved = inverse_hessian_products(features, weights, logits, vectors, l2=l2, root=fit.root)
    # of a real example's weight: how far it moves its classifiers, times that slope
    moved = (weights * (1 - chance) * _logits(features, solved).double())[..., is_real]
    trained = (~held_out[..., is_real]).double()
    # weights of the training part are balanced again: only what is above its mean counts
    moved = moved - trained * moved.sum(2, keepdim=True) / trained.sum(2, keepdim=True)
    return 1 - fit.probabilities[:, is_real] + n_real * moved.sum(1)


def proxy_a_distance(
    real: torch.Tensor, synthetic: torch.Tensor, *, n_folds: int = 5, seed: int = 0
) -> float:
    """Proxy A-distance by a class-balanced, cross-fitted logistic regression; lower is closer.

    2 (1 − 2ε) with ε the mean of the two classes' held-out soft errors |p − y|; L2 with C = 1,
    no standardising, stratified folds. Rows that are equal stay in one fold.

    Args:
        real: (n, d) float32 or float64, at least 2 distinct rows.
        synthetic: (N, d), at least 2 distinct rows.
        n_folds: At most; never more than the distinct rows of a class.
        seed: Of the folds.

    Returns:
        −2 to 2; 0 is chance. NaN where a class has fewer than 2 distinct rows.

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
    """Proxy A-distance as the authors of SynQuE computed it.

    Rows stacked synthetic then real (real = 1), one 80/20 split with seed 42, not stratified, an
    unweighted logistic regression with scikit-learn's defaults, ε the mean |p − y| held out.

    Args:
        real: (n, d).
        synthetic: (N, d).

    Returns:
        NaN where the training part holds one class only.

    Source: the repository r2llab/SynQuE.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    features = torch.cat((synthetic.to(real), real)).cpu().numpy()
    targets = np.r_[np.zeros(len(synthetic)), np.ones(len(real))]
    split = train_test_split(features, targets, test_size=0.2, random_state=42)
    train, test, train_targets, test_targets = split
    if len(np.unique(train_targets)) < 2:
        return math.nan
    with warnings.catch_warnings():
        # the authors stop after 100 iterations too
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression().fit(train, train_targets)
    chance = model.predict_proba(test)[:, 1]
    return 2 * (1 - 2 * float(np.abs(chance - test_targets).mean()))
