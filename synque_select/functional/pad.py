"""Proxy A-distance: how well a linear classifier tells real from synthetic examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "CrossFit",
    "assign_folds",
    "cross_fit",
    "fit_logistic_regressions",
    "pad_from_errors",
    "proxy_a_distance",
    "proxy_a_distance_released",
]

_HISTORY = 8
_MAX_ITERATIONS = 200
# how far a logit may be from the optimum's: a gradient of this size times the penalty
_TOLERANCE = 1e-4
# float32 gradients stop falling at about this share of the first one
_FLOAT32_NOISE = 3e-6


def pad_from_errors(real_error: float, synthetic_error: float) -> float:
    """2 (1 − 2ε), ε the mean of the two classes' held-out errors; 0 is chance, 2 is told apart.

    Source: Ben-David et al. 2007.

    Example:
        >>> pad_from_errors(0.5, 0.5), pad_from_errors(0.0, 0.0)
        (0.0, 2.0)
    """
    return 2 * (1 - (real_error + synthetic_error))


@dataclass(frozen=True)
class _Problems:
    """G groups of rows, F weightings each: G × F regressions.

    Args:
        rows: (G, N, D), scaled, the last column of ones.
        targets: (N,) 0 or 1.
        weights: (G, F, N), 0 where a row is held out.
        penalty: (D,) of the scaled coefficients, 0 for the intercept.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    penalty: torch.Tensor

    def gradient(self, coefficients: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        residuals = self.weights * (torch.sigmoid(logits) - self.targets)
        return residuals @ self.rows + self.penalty * coefficients

    def logits(self, coefficients: torch.Tensor) -> torch.Tensor:
        return coefficients @ self.rows.mT

    def to(self, dtype: torch.dtype) -> _Problems:
        return _Problems(*(part.to(dtype) for part in vars(self).values()))


def fit_logistic_regressions(
    features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, l2: float = 1.0
) -> torch.Tensor:
    """Solve many weighted logistic regressions with an L2 penalty as one batched problem.

    Each minimises Σ_n w_n (log(1 + e^{z_n}) − y_n z_n) + l2/2 ‖β‖², z = Xβ + b, the intercept b
    not penalised. L-BFGS in float32, preconditioned by the Cholesky factor of Böhning's bound
    ¼ XᵀWX + l2 I (one a group), with a Newton line search that needs no product with X; what has
    not converged in float32 is finished in float64.

    Args:
        features: (G, N, d) float32 or float64.
        targets: (N,) 0 or 1.
        weights: (G, F, N): F weightings of the rows of each group.
        l2: Strength of the penalty: 1 / C in scikit-learn's terms.

    Returns:
        (G, F, d + 1), the intercept last, dtype of the features; NaN where it did not converge.

    Source: Böhning 1992 (bound); Nocedal 1980 (L-BFGS).

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> beta = fit_logistic_regressions(x, torch.tensor([0.0, 1.0]), torch.ones(1, 1, 2))
        >>> [round(float(b), 3) + 0.0 for b in beta[0, 0]]
        [0.675, 0.0]
    """
    scale = features.double().square().sum(2).mean().sqrt().clamp_min(1e-30).to(features.dtype)
    ones = features.new_ones(*features.shape[:2], 1)
    rows = torch.cat((features / scale, ones), 2)
    penalty = torch.full((rows.shape[2],), l2, dtype=torch.float64, device=rows.device)
    penalty = penalty / scale.double() ** 2
    penalty[-1] = 0
    problems = _Problems(rows, targets.to(rows), weights.to(rows), penalty.to(rows))
    start = rows.new_zeros(*weights.shape[:2], rows.shape[2])
    coefficients, converged = _minimise(problems, start)
    if not bool(converged.all()) and rows.dtype != torch.float64:
        left = (~converged).any(1).nonzero().squeeze(1)
        again = _Problems(rows[left], problems.targets, problems.weights[left], problems.penalty)
        exact, ended = _minimise(again.to(torch.float64), coefficients[left].double())
        coefficients[left], converged[left] = exact.to(rows.dtype), ended
    coefficients[~converged] = torch.nan
    coefficients[..., :-1] /= scale
    return coefficients


def _minimise(problems: _Problems, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Preconditioned L-BFGS on all problems at once: the coefficients, and which converged."""
    factor = _preconditioner(problems)
    coefficients, logits = start, problems.logits(start)
    gradient = problems.gradient(coefficients, logits)
    strict = _TOLERANCE * float(problems.penalty.max())
    first = torch.linalg.vector_norm(gradient, dim=2)
    noise = 0.0 if start.dtype == torch.float64 else _FLOAT32_NOISE
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for _ in range(_MAX_ITERATIONS):
        size = torch.linalg.vector_norm(gradient, dim=2)
        if bool((size <= (noise * first).clamp_min(strict)).all()):
            break
        direction = -_apply_inverse(gradient, history, factor)
        along = problems.logits(direction)
        step = _line_search(problems, coefficients, direction, logits, along)
        coefficients = coefficients + step * direction
        logits = logits + step * along
        before, gradient = gradient, problems.gradient(coefficients, logits)
        change, turn = step * direction, gradient - before
        curvature = (change * turn).sum(2, keepdim=True)
        history = [*history[1 - _HISTORY :], (change, turn, curvature)]
    return coefficients, torch.linalg.vector_norm(gradient, dim=2) <= 10 * strict


def _preconditioner(problems: _Problems) -> torch.Tensor:
    """Cholesky factor of ¼ XᵀWX + penalty, W the mean over the F weightings."""
    rows, weights = problems.rows, problems.weights.mean(1).unsqueeze(2)
    bound = (rows.mT @ (weights * rows)) / 4
    diagonal = bound.diagonal(dim1=1, dim2=2)
    # the ridge only keeps the factor defined where a set has fewer rows than columns; a
    # preconditioner changes the way, not the answer
    ridge = 1e-5 * diagonal.mean(1, keepdim=True)
    diagonal += torch.maximum(problems.penalty.unsqueeze(0), ridge)
    return torch.linalg.cholesky(bound)


def _apply_inverse(
    gradient: torch.Tensor,
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    factor: torch.Tensor,
) -> torch.Tensor:
    """Two-loop recursion of L-BFGS; pairs without curvature (converged problems) are left out."""
    direction, shares = gradient, []
    for change, turn, curvature in reversed(history):
        share = torch.where(
            curvature > 0, (change * direction).sum(2, keepdim=True) / curvature, 0.0
        )
        direction = direction - share * turn
        shares.append(share)
    direction = torch.cholesky_solve(direction.mT, factor).mT
    for (change, turn, curvature), share in zip(history, reversed(shares), strict=True):
        back = torch.where(curvature > 0, (turn * direction).sum(2, keepdim=True) / curvature, 0.0)
        direction = direction + (share - back) * change
    return direction


def _line_search(
    problems: _Problems,
    coefficients: torch.Tensor,
    direction: torch.Tensor,
    logits: torch.Tensor,
    along: torch.Tensor,
) -> torch.Tensor:
    """Minimise each convex problem along its direction: Newton steps kept inside a bracket."""
    penalised = problems.penalty * direction
    linear = (penalised * coefficients).sum(2, keepdim=True)
    quadratic = (penalised * direction).sum(2, keepdim=True)
    step = torch.ones_like(linear)
    low, high = torch.zeros_like(step), torch.full_like(step, torch.inf)
    weighted = problems.weights * along
    for _ in range(4):
        chance = torch.sigmoid(logits + step * along)
        slope = (weighted * (chance - problems.targets)).sum(2, keepdim=True)
        slope = slope + linear + step * quadratic
        bend = (weighted * along * chance * (1 - chance)).sum(2, keepdim=True) + quadratic
        low, high = torch.where(slope < 0, step, low), torch.where(slope > 0, step, high)
        newton = step - slope / bend
        middle = torch.where(high.isinf(), 2 * step, (low + high) / 2)
        inside = (newton > low) & (newton < high)
        step = torch.where(slope == 0, step, torch.where(inside, newton, middle))
    return step


@dataclass(frozen=True)
class CrossFit:
    """Held-out probabilities of being real, and the classifiers they came from.

    Args:
        probabilities: (G, N) float64, each by the classifier that did not see the row.
        coefficients: (G, F, d + 1), the intercept last.
    """

    probabilities: torch.Tensor
    coefficients: torch.Tensor


def cross_fit(
    features: torch.Tensor, is_real: torch.Tensor, folds: torch.Tensor, *, l2: float = 1.0
) -> CrossFit:
    """Fit each group's classifier without each fold, and predict the fold.

    Classes are weighted to balance within each training part.

    Args:
        features: (G, N, d): each group's rows.
        is_real: (N,) bool, the same in every group.
        folds: (G, N) int64, the fold of each row, 0 to F − 1; each holds out rows of both classes
            and leaves rows of both.
        l2: Strength of the penalty.
    """
    n_folds = int(folds.max()) + 1
    numbers = torch.arange(n_folds, device=folds.device).view(1, -1, 1)
    trained = (folds.unsqueeze(1) != numbers).to(features.dtype)
    n_real = (trained * is_real).sum(2, keepdim=True)
    n_synthetic = (trained * ~is_real).sum(2, keepdim=True)
    balanced = torch.where(is_real, 1 / n_real, 1 / n_synthetic) * (n_real + n_synthetic) / 2
    coefficients = fit_logistic_regressions(
        features, is_real.to(features.dtype), trained * balanced, l2=l2
    )
    logits = coefficients[..., :-1] @ features.mT + coefficients[..., -1:]
    held_out = logits.gather(1, folds.unsqueeze(1)).squeeze(1)
    return CrossFit(torch.sigmoid(held_out.double()), coefficients)


def assign_folds(
    groups: NDArray[np.int64],
    n_folds: int,
    *,
    seed: int,
    fixed: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Deal groups of equal examples to folds of nearly equal size.

    Args:
        groups: (N,) number of the group of each row: rows of a group stay together.
        n_folds: How many folds.
        seed: Of the order in which groups of one size are dealt.
        fixed: (number of groups,) fold of groups that have one already, −1 for the others.

    Returns:
        (N,) fold of each row.

    Example:
        >>> assign_folds(np.array([0, 1, 0, 2]), 2, seed=0).tolist()
        [0, 1, 0, 1]
    """
    sizes = np.bincount(groups)
    fold_of = np.full(len(sizes), -1) if fixed is None else fixed.copy()
    loads = np.bincount(fold_of[fold_of >= 0], sizes[fold_of >= 0], n_folds)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[(fold_of[order] < 0) & (sizes[order] > 0)]
    for group in order[sizes[order] > 1][
        np.argsort(-sizes[order][sizes[order] > 1], kind="stable")
    ]:
        fold_of[group] = int(loads.argmin())
        loads[fold_of[group]] += sizes[group]
    single = order[sizes[order] == 1]
    fold_of[single] = _fill_evenly(loads.astype(np.int64), len(single))
    return fold_of[groups]


def _fill_evenly(loads: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Folds of n single rows such that the loads end as even as they can."""
    target = np.sort(loads)
    wanted = np.zeros_like(loads)
    level = int(target[0])
    # raise the water until n rows fit under it
    low, high = level, int(target[-1]) + n + 1
    while low < high:
        level = (low + high) // 2
        if np.maximum(level - loads, 0).sum() >= n:
            high = level
        else:
            low = level + 1
    wanted = np.maximum(low - loads, 0)
    surplus = int(wanted.sum()) - n
    for fold in np.flatnonzero(wanted)[::-1][:surplus]:
        wanted[fold] -= 1
    return np.repeat(np.arange(len(loads)), wanted)


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
    groups = features.unique(dim=0, return_inverse=True)[1].cpu().numpy()
    folds = stratified_folds(groups[: len(real)], groups[len(real) :], n_folds, seed=seed)
    if folds is None:
        return math.nan
    is_real = torch.arange(len(features), device=real.device) < len(real)
    fit = cross_fit(
        features.unsqueeze(0), is_real, torch.from_numpy(folds).to(real.device).unsqueeze(0)
    )
    chance = fit.probabilities[0]
    return pad_from_errors(float(1 - chance[: len(real)].mean()), float(chance[len(real) :].mean()))


def stratified_folds(
    real_groups: NDArray[np.int64], synthetic_groups: NDArray[np.int64], n_folds: int, *, seed: int
) -> NDArray[np.int64] | None:
    """Folds of the real rows, then of the synthetic ones; a group shared by both is in one fold.

    The real rows' folds do not depend on the synthetic ones, apart from their number.

    Returns:
        (n + N,), or None where a class has fewer than 2 groups.
    """
    kinds = [np.unique(groups) for groups in (real_groups, synthetic_groups)]
    n_folds = min(n_folds, *(len(kind) for kind in kinds))
    if n_folds < 2:
        return None
    real_numbers, synthetic_numbers = (
        np.searchsorted(kind, groups)
        for kind, groups in zip(kinds, (real_groups, synthetic_groups), strict=True)
    )
    real_folds = assign_folds(real_numbers, n_folds, seed=seed)
    fixed = np.full(len(kinds[1]), -1)
    shared, at_real, at_synthetic = np.intersect1d(*kinds, return_indices=True)
    fold_of = np.zeros(len(kinds[0]), dtype=np.int64)
    fold_of[real_numbers] = real_folds
    fixed[at_synthetic] = fold_of[at_real]
    return np.concatenate(
        (real_folds, assign_folds(synthetic_numbers, n_folds, seed=seed + 1, fixed=fixed))
    )


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
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    features = torch.cat((synthetic.to(real), real)).cpu().numpy()
    targets = np.r_[np.zeros(len(synthetic)), np.ones(len(real))]
    split = train_test_split(features, targets, test_size=0.2, random_state=42)
    train, test, train_targets, test_targets = split
    if len(np.unique(train_targets)) < 2:
        return math.nan
    chance = LogisticRegression().fit(train, train_targets).predict_proba(test)[:, 1]
    return 2 * (1 - 2 * float(np.abs(chance - test_targets).mean()))
