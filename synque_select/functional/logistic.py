"""Many penalised logistic regressions at once, and how they answer to a change of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["curvature_factor", "fit_logistic_regressions", "inverse_hessian_products"]

_HISTORY = 8
_MAX_ITERATIONS = 200
_LINE_STEPS = 8
_MAX_PRODUCTS = 50
_GROUPS_IN_FACTOR = 4
# how far a logit may be from the optimum's: a gradient of this size times the penalty
_TOLERANCE = 3e-4
# float32 gradients stop falling at about this share of the first one
_FLOAT32_NOISE = 3e-6


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

    @classmethod
    def make(
        cls, features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, l2: float
    ) -> _Problems:
        norms = torch.linalg.vector_norm(features, dim=2).double()
        scale = float(norms.square().mean().sqrt()) or 1.0
        penalty = features.new_full((features.shape[2] + 1,), l2 / scale**2)
        penalty[-1] = 0
        return cls(features, targets.to(features), weights.to(features), penalty, scale)

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

    def scaled(self, factor: torch.Tensor) -> torch.Tensor:
        """The factor of `curvature_factor` in the units of the scaled coefficients."""
        factor = factor.to(self.rows).clone()
        factor[:-1] /= self.scale
        return factor

    def part(self, groups: torch.Tensor, dtype: torch.dtype) -> _Problems:
        """Some of the groups, in another dtype."""
        return _Problems(
            self.rows[groups].to(dtype),
            self.targets.to(dtype),
            self.weights[groups].to(dtype),
            self.penalty.to(dtype),
            self.scale,
        )


def curvature_factor(
    features: torch.Tensor,
    weights: torch.Tensor,
    *,
    logits: torch.Tensor | None = None,
    l2: float = 1.0,
) -> torch.Tensor:
    """Cholesky factor of Xᵀ diag(w p (1 − p)) X + l2 I, one for all groups, from every few rows.

    A factor for each group would save a few iterations, and cost more than they do.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) of the fits.
        logits: (G, F, N) where p stands; None for Böhning's bound, p (1 − p) ≤ ¼.
        l2: Of the fits.

    Returns:
        (d + 1, d + 1), the intercept last, in the units of the features.
    """
    n_groups, _, n_columns = features.shape
    step = -(-n_groups // _GROUPS_IN_FACTOR)
    rows = features.reshape(-1, n_columns)[::step]
    curvatures = weights.to(features) / 4
    if logits is not None:
        chance = torch.sigmoid(logits).nan_to_num_(0.5)  # what did not converge takes the bound
        curvatures = 4 * curvatures * chance * (1 - chance)
    shares = curvatures.mean(1).reshape(-1)[::step] * (step / n_groups)
    weighted = shares.unsqueeze(1) * rows
    bound = rows.new_empty(n_columns + 1, n_columns + 1)
    torch.mm(weighted.T, rows, out=bound[:-1, :-1])
    bound[-1, :-1] = bound[:-1, -1] = weighted.sum(0)
    bound[-1, -1] = shares.sum()
    diagonal = bound.diagonal()
    # the ridge only keeps the factor defined where there are fewer rows than columns; a
    # preconditioner changes the way, not the answer
    diagonal[:-1] += max(l2, 1e-5 * float(diagonal[:-1].mean()))
    diagonal[-1] += 1e-5 * float(diagonal[-1])
    factor: torch.Tensor = torch.linalg.cholesky(bound)
    return factor


def fit_logistic_regressions(
    features: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    l2: float = 1.0,
    factor: torch.Tensor | None = None,
) -> torch.Tensor:
    """Solve many weighted logistic regressions with an L2 penalty as one batched problem.

    Each minimises Σ_n w_n (log(1 + e^{z_n}) − y_n z_n) + l2/2 ‖β‖², z = Xβ + b, the intercept b
    not penalised. L-BFGS, preconditioned by `curvature_factor`,
    with a line search that needs no product with X; a group that does not converge that way (rows
    so long that the penalty hardly counts) is finished by Newton's method in float64.

    Args:
        features: (G, N, d) float32 or float64.
        targets: (N,) 0 or 1.
        weights: (G, F, N): F weightings of the rows of each group.
        l2: Strength of the penalty: 1 / C in scikit-learn's terms.
        factor: Of `curvature_factor`, that of like features will do; None for these ones'. It
            changes how long it takes, not what is found.

    Returns:
        (G, F, d + 1), the intercept last, dtype of the features; NaN where it did not converge.

    Source: Böhning 1992 (bound); Nocedal 1980 (L-BFGS).

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> beta = fit_logistic_regressions(x, torch.tensor([0.0, 1.0]), torch.ones(1, 1, 2))
        >>> [round(float(b), 3) + 0.0 for b in beta[0, 0]]
        [0.675, 0.0]
    """
    problems = _Problems.make(features, targets, weights, l2)
    if factor is None:
        factor = curvature_factor(features, weights, l2=l2)
    start = features.new_zeros(*weights.shape[:2], len(problems.penalty))
    coefficients, converged = _minimise(problems, start, problems.scaled(factor))
    for group in (~converged).any(1).nonzero():
        alone = problems.part(group, torch.float64)
        exact, converged[group] = _newton(alone, coefficients[group].double())
        coefficients[group] = exact.to(features.dtype)
    coefficients[~converged] = torch.nan
    coefficients[..., :-1] /= problems.scale
    return coefficients


def _minimise(
    problems: _Problems, start: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Preconditioned L-BFGS on all problems at once: the coefficients, and which converged."""
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


def inverse_hessian_products(
    features: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    vectors: torch.Tensor,
    *,
    l2: float = 1.0,
    factor: torch.Tensor | None = None,
) -> torch.Tensor:
    """H⁻¹ u for the Hessian H = Xᵀ diag(w p (1 − p)) X + l2 I of each fitted regression.

    Preconditioned conjugate gradients, to a relative residual of 10⁻³ or 50 steps: enough for a
    standard error.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) of the fit.
        logits: (G, F, N) of the fit, for all rows.
        vectors: (G, F, d + 1), the intercept last.
        l2: Of the fit.
        factor: As for the fit.

    Returns:
        (G, F, d + 1), in the units of the coefficients.

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> zeros, ones = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
        >>> inverse_hessian_products(x, ones, zeros, ones)
        tensor([[[0.6667, 2.0000]]])
    """
    problems = _Problems.make(features, features.new_zeros(features.shape[1]), weights, l2)
    chance = torch.sigmoid(logits)
    curvatures = problems.weights * chance * (1 - chance)
    if factor is None:
        factor = curvature_factor(features, weights, l2=l2)
    factor = problems.scaled(factor)
    # scaled coefficients are those of rows / scale: u and the result change units on the way
    units = features.new_full((features.shape[2] + 1,), problems.scale)
    units[-1] = 1
    residual = vectors / units
    enough = (1e-3 * torch.linalg.vector_norm(residual, dim=2, keepdim=True)).clamp_min(1e-30)
    solution = torch.zeros_like(residual)
    solved = _apply_inverse(residual, [], factor)
    direction, size = solved, (residual * solved).sum(2, keepdim=True)
    for _ in range(_MAX_PRODUCTS):
        going = torch.linalg.vector_norm(residual, dim=2, keepdim=True) > enough
        if not bool(going.any()):
            break
        image = problems.gradient(direction, curvatures * problems.logits(direction))
        step = torch.where(going, size / (direction * image).sum(2, keepdim=True), 0.0)
        solution, residual = solution + step * direction, residual - step * image
        solved = _apply_inverse(residual, [], factor)
        before, size = size, (residual * solved).sum(2, keepdim=True)
        direction = solved + torch.where(going, size / before, 0.0) * direction
    return solution / units
