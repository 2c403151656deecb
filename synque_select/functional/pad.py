"""Proxy A-distance: how well a linear classifier tells real from synthetic examples."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

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
_LINE_STEPS = 8
_GROUPS_IN_FACTOR = 4
# how far a logit may be from the optimum's: a gradient of this size times the penalty
_TOLERANCE = 3e-4
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

    Coefficients are those of rows / scale, so that the penalty and the bound have one size
    whatever the unit of the features is.

    Args:
        rows: (G, N, d).
        targets: (N,) 0 or 1.
        weights: (G, F, N), 0 where a row is held out.
        penalty: (d + 1,) of the scaled coefficients, 0 for the intercept, which is last.
        scale: Root mean square norm of the rows.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    penalty: torch.Tensor
    scale: float

    def logits(self, coefficients: torch.Tensor) -> torch.Tensor:
        scaled = coefficients[..., :-1] / self.scale
        return (scaled @ self.rows.mT).add_(coefficients[..., -1:])

    def residuals(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits).sub_(self.targets).mul_(self.weights)

    def gradient(self, coefficients: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        slopes = (residuals @ self.rows).div_(self.scale)
        return torch.cat((slopes, residuals.sum(2, keepdim=True)), 2) + self.penalty * coefficients

    def least_curvature(self) -> float:
        """A lower bound of the Hessian, for rows of norm 1 and an intercept not too far out."""
        return min(float(self.penalty.max()), float(self.weights.sum(2).mean()) / 16)

    def part(self, groups: torch.Tensor, dtype: torch.dtype) -> _Problems:
        """Some of the groups, in another dtype."""
        return _Problems(
            self.rows[groups].to(dtype),
            self.targets.to(dtype),
            self.weights[groups].to(dtype),
            self.penalty.to(dtype),
            self.scale,
        )


def fit_logistic_regressions(
    features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, l2: float = 1.0
) -> torch.Tensor:
    """Solve many weighted logistic regressions with an L2 penalty as one batched problem.

    Each minimises Σ_n w_n (log(1 + e^{z_n}) − y_n z_n) + l2/2 ‖β‖², z = Xβ + b, the intercept b
    not penalised. L-BFGS, preconditioned by the Cholesky factor of Böhning's bound ¼ XᵀWX + l2 I,
    with a line search that needs no product with X; a group that does not converge that way (rows
    so long that the penalty hardly counts) is finished by Newton's method in float64.

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
    norms = torch.linalg.vector_norm(features, dim=2).double()
    scale = float(norms.square().mean().sqrt()) or 1.0
    penalty = features.new_full((features.shape[2] + 1,), l2 / scale**2)
    penalty[-1] = 0
    problems = _Problems(features, targets.to(features), weights.to(features), penalty, scale)
    start = features.new_zeros(*weights.shape[:2], len(penalty))
    coefficients, converged = _minimise(problems, start)
    for group in (~converged).any(1).nonzero():
        alone = problems.part(group, torch.float64)
        exact, converged[group] = _newton(alone, coefficients[group].double())
        coefficients[group] = exact.to(features.dtype)
    coefficients[~converged] = torch.nan
    coefficients[..., :-1] /= scale
    return coefficients


def _minimise(problems: _Problems, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Preconditioned L-BFGS on all problems at once: the coefficients, and which converged."""
    factor = _preconditioner(problems)
    coefficients, logits = start, problems.logits(start)
    gradient = problems.gradient(coefficients, problems.residuals(logits))
    strict = _TOLERANCE * problems.least_curvature()
    # where the gradient is rounding there is nothing left to gain; float64 goes on from there
    enough = (_FLOAT32_NOISE * torch.linalg.vector_norm(gradient, dim=2)).clamp_min(strict)
    history: list[_Pair] = []
    for _ in range(_MAX_ITERATIONS):
        done = torch.linalg.vector_norm(gradient, dim=2) <= enough
        if bool(done.all()):
            break
        direction = -_apply_inverse(gradient, history, factor)
        line = _Line.make(problems, coefficients, logits, direction, gradient)
        step, residuals = line.search(done.unsqueeze(2))
        change = step * direction
        coefficients, logits = coefficients + change, logits + step * line.along
        before, gradient = gradient, problems.gradient(coefficients, residuals)
        history = [*history[1 - _HISTORY :], _Pair.make(change, gradient - before)]
    return coefficients, torch.linalg.vector_norm(gradient, dim=2) <= 10 * strict


def _newton(problems: _Problems, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Newton's method with a line search, for one group: the coefficients, and which converged.

    Converged means that a Newton step no longer changes a logit: that does not depend on units.
    """
    ones = problems.rows.new_ones(*problems.rows.shape[:2], 1)
    rows = torch.cat((problems.rows / problems.scale, ones), 2)
    coefficients, done = start, torch.zeros_like(start[..., :1], dtype=torch.bool)
    for _ in range(_MAX_ITERATIONS):
        logits = problems.logits(coefficients)
        chance = torch.sigmoid(logits)
        gradient = problems.gradient(coefficients, problems.residuals(logits))
        curvatures = (problems.weights * chance * (1 - chance)).unsqueeze(3)
        hessian = rows.mT.unsqueeze(1) @ (curvatures * rows.unsqueeze(1))
        diagonal = hessian.diagonal(dim1=2, dim2=3)
        # where every row is told apart for certain, the intercept has no curvature left
        diagonal += problems.penalty + 1e-12 * diagonal.mean(2, keepdim=True) + 1e-300
        direction = -torch.linalg.solve(hessian, gradient.unsqueeze(3)).squeeze(3)
        line = _Line.make(problems, coefficients, logits, direction, gradient)
        done = line.along.abs().amax(2, keepdim=True) <= _TOLERANCE
        if bool(done.all()):
            break
        coefficients = coefficients + line.search(done)[0] * direction
    return coefficients, done.squeeze(2)


def _preconditioner(problems: _Problems) -> torch.Tensor:
    """Cholesky factor of ¼ XᵀWX + penalty, one for all groups, from every few rows.

    A factor for each group would save a few iterations, and cost more than they do.

    Returns:
        (d + 1, d + 1).
    """
    n_groups, _, n_columns = problems.rows.shape
    step = -(-n_groups // _GROUPS_IN_FACTOR)
    rows = problems.rows.reshape(-1, n_columns)[::step] / problems.scale
    weights = problems.weights.mean(1).reshape(-1)[::step] * (step / n_groups / 4)
    weighted = weights.unsqueeze(1) * rows
    bound = rows.new_empty(n_columns + 1, n_columns + 1)
    torch.mm(weighted.T, rows, out=bound[:-1, :-1])
    bound[-1, :-1] = bound[:-1, -1] = weighted.sum(0)
    bound[-1, -1] = weights.sum()
    diagonal = bound.diagonal()
    # the ridge only keeps the factor defined where there are fewer rows than columns; a
    # preconditioner changes the way, not the answer
    diagonal += problems.penalty.clamp_min(1e-5 * float(diagonal.mean()))
    factor: torch.Tensor = torch.linalg.cholesky(bound)
    return factor


@dataclass(frozen=True)
class _Pair:
    """A step of L-BFGS, the change of the gradient along it, and 1 / their product.

    The inverse is 0 where there was no curvature (a converged problem): the pair is left out.
    """

    change: torch.Tensor
    turn: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def make(cls, change: torch.Tensor, turn: torch.Tensor) -> _Pair:
        curvature = (change * turn).sum(2, keepdim=True)
        return cls(change, turn, torch.where(curvature > 0, 1 / curvature, 0.0))


def _apply_inverse(
    gradient: torch.Tensor, history: list[_Pair], factor: torch.Tensor
) -> torch.Tensor:
    """Two-loop recursion of L-BFGS."""
    direction, shares = gradient, []
    for pair in reversed(history):
        shares.append((pair.change * direction).sum(2, keepdim=True) * pair.inverse)
        direction = direction - shares[-1] * pair.turn
    flat = direction.reshape(-1, direction.shape[2])
    direction = torch.cholesky_solve(flat.T, factor).T.reshape(direction.shape)
    for pair, share in zip(history, reversed(shares), strict=True):
        back = (pair.turn * direction).sum(2, keepdim=True) * pair.inverse
        direction = direction + (share - back) * pair.change
    return direction


@dataclass(frozen=True)
class _Line:
    """Each problem along its direction: convex in the step, and cheap, as logits are linear.

    Args:
        problems: The problems.
        logits: (G, F, N) at step 0.
        along: (G, F, N) change of the logits a unit of step.
        first: (G, F, 1) slope at step 0.
        linear: (G, F, 1) slope of the penalty at step 0.
        quadratic: (G, F, 1) curvature of the penalty.
    """

    problems: _Problems
    logits: torch.Tensor
    along: torch.Tensor
    first: torch.Tensor
    linear: torch.Tensor
    quadratic: torch.Tensor

    @classmethod
    def make(
        cls,
        problems: _Problems,
        coefficients: torch.Tensor,
        logits: torch.Tensor,
        direction: torch.Tensor,
        gradient: torch.Tensor,
    ) -> _Line:
        penalised = problems.penalty * direction
        return cls(
            problems,
            logits,
            problems.logits(direction),
            (gradient * direction).sum(2, keepdim=True),
            (penalised * coefficients).sum(2, keepdim=True),
            (penalised * direction).sum(2, keepdim=True),
        )

    def search(self, done: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Newton steps inside a bracket until the slope is under 0.3 of the first.

        Returns:
            (G, F, 1) step and (G, F, N) residuals there; problems that are done take step 1.
        """
        step = torch.ones_like(self.first)
        low, high = torch.zeros_like(step), torch.full_like(step, torch.inf)
        for _ in range(_LINE_STEPS):
            residuals = self.problems.residuals(self.logits + step * self.along)
            slope = (residuals * self.along).sum(2, keepdim=True)
            slope = slope + self.linear + step * self.quadratic
            fine = done | (slope.abs() <= 0.3 * self.first.abs())
            if bool(fine.all()):
                break
            low, high = torch.where(slope < 0, step, low), torch.where(slope > 0, step, high)
            newton = step - slope / self._bend(step)
            middle = torch.where(high.isinf(), 2 * step, (low + high) / 2)
            moved = torch.where((newton > low) & (newton < high), newton, middle)
            step = torch.where(fine, step, moved)
        else:
            residuals = self.problems.residuals(self.logits + step * self.along)
        return step, residuals

    def _bend(self, step: torch.Tensor) -> torch.Tensor:
        chance = torch.sigmoid(self.logits + step * self.along)
        bend = (chance * (1 - chance)).mul_(self.problems.weights).mul_(self.along.square())
        return bend.sum(2, keepdim=True) + self.quadratic


@dataclass(frozen=True)
class CrossFit:
    """Held-out probabilities of being real, and the classifiers they came from.

    Args:
        probabilities: (G, N) float64, each by the classifier that did not see the row.
        coefficients: (G, F, d + 1), the intercept last.
    """

    probabilities: torch.Tensor
    coefficients: torch.Tensor

    def of_group(self, group: int) -> CrossFit:
        """The same for one group, G = 1."""
        chosen = slice(group, group + 1)
        return CrossFit(self.probabilities[chosen], self.coefficients[chosen])


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


def stratified_folds(
    real_groups: NDArray[Any], synthetic_groups: NDArray[Any], n_folds: int, *, seed: int
) -> NDArray[np.int64] | None:
    """Folds of the real rows, then of the synthetic ones; a group shared by both is in one fold.

    The real rows' folds do not depend on the synthetic ones, apart from their number.

    Returns:
        (n + N,), or None where a class has fewer than 2 groups.
    """
    real_kinds, real_numbers = np.unique(real_groups, return_inverse=True)
    kinds, numbers = np.unique(synthetic_groups, return_inverse=True)
    n_folds = min(n_folds, len(real_kinds), len(kinds))
    if n_folds < 2:
        return None
    real_folds = assign_folds(real_numbers, n_folds, seed=seed)
    fold_of = np.zeros(len(real_kinds), dtype=np.int64)
    fold_of[real_numbers] = real_folds
    places = np.searchsorted(real_kinds, kinds).clip(max=len(real_kinds) - 1)
    fixed = np.where(real_kinds[places] == kinds, fold_of[places], -1)
    synthetic_folds = assign_folds(numbers, n_folds, seed=seed + 1, fixed=fixed)
    return np.concatenate((real_folds, synthetic_folds))


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
