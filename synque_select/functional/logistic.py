"""Many penalised logistic regressions at once, and how they answer to a change of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["fit_logistic_regressions", "inverse_curvature_root", "inverse_hessian_products"]

_MAX_ITERATIONS = 200
_LINE_STEPS = 8
_MAX_PRODUCTS = 50
_GROUPS_IN_ROOT = 4
# how far a logit may be from the optimum's: a gradient of this size times the penalty. A chance is
# off by a quarter of that at most, and PAD, a mean of chances, has a standard error of about 0.01
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
# the last of Newton's steps may change a logit by this much: what is left is its square
_NEWTON_STEP = 1e-3
# gradients stop falling at about this share of the first one, in units of rounding
_NOISE = 30
_TINY = torch.finfo(torch.float32).tiny


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

    def residuals(self, chance: torch.Tensor) -> torch.Tensor:
        return (chance - self.targets).mul_(self.weights)

    def gradient(self, coefficients: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        slopes = (residuals @ self.rows).div_(self.scale)
        return torch.cat((slopes, residuals.sum(2, keepdim=True)), 2) + self.penalty * coefficients

    def least_curvature(self) -> float:
        """A lower bound of the Hessian, for rows of norm 1 and an intercept not too far out."""
        return min(float(self.penalty.max()), float(self.weights.sum(2).mean()) / 16)

    def scaled(self, root: torch.Tensor) -> torch.Tensor:
        """The root of `inverse_curvature_root` in the units of the scaled coefficients."""
        root = root.to(self.rows).clone()
        root[:, :-1] *= self.scale
        return root

    def part(self, groups: torch.Tensor, dtype: torch.dtype) -> _Problems:
        """Some of the groups, in another dtype."""
        return _Problems(
            self.rows[groups].to(dtype),
            self.targets.to(dtype),
            self.weights[groups].to(dtype),
            self.penalty.to(dtype),
            self.scale,
        )


def inverse_curvature_root(
    features: torch.Tensor,
    weights: torch.Tensor,
    *,
    logits: torch.Tensor | None = None,
    l2: float = 1.0,
) -> torch.Tensor:
    """R with RᵀR the inverse of Xᵀ diag(w p (1 − p)) X + l2 I, one for all, from a few groups.

    One for each group would save a few iterations, and cost more than they do.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) of the fits.
        logits: (G, F, N) where p stands; None for Böhning's bound, p (1 − p) ≤ ¼.
        l2: Of the fits.

    Returns:
        (d + 1, d + 1), lower triangular, the intercept last, in the units of the features.
    """
    # whole groups: what they share, as the real sample's rows, is then in it whole
    chosen = slice(None, None, -(-len(features) // _GROUPS_IN_ROOT))
    rows, curvatures = features[chosen].flatten(0, 1), weights[chosen].to(features) / 4
    if logits is not None:
        chance = torch.sigmoid(logits[chosen]).nan_to_num_(0.5)  # not converged: the bound
        curvatures = 4 * curvatures * chance * (1 - chance)
    shares = curvatures.mean(1).flatten() / len(curvatures)
    weighted = shares.unsqueeze(1) * rows
    bound = rows.new_empty(rows.shape[1] + 1, rows.shape[1] + 1)
    torch.mm(weighted.T, rows, out=bound[:-1, :-1])
    bound[-1, :-1] = bound[:-1, -1] = weighted.sum(0)
    bound[-1, -1] = shares.sum()
    diagonal = bound.diagonal()
    # the ridge only keeps the root defined where there are fewer rows than columns; a
    # preconditioner changes the way, not the answer
    diagonal[:-1] += max(l2, 1e-5 * float(diagonal[:-1].mean()))
    diagonal[-1] += 1e-5 * float(diagonal[-1])
    one = torch.eye(len(bound), dtype=bound.dtype, device=bound.device)
    root: torch.Tensor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(bound), one, upper=False
    )
    return root


def fit_logistic_regressions(
    features: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    l2: float = 1.0,
    root: torch.Tensor | None = None,
) -> torch.Tensor:
    """Solve many weighted logistic regressions with an L2 penalty as one batched problem.

    Each minimises Σ_n w_n (log(1 + e^{z_n}) − y_n z_n) + l2/2 ‖β‖², z = Xβ + b, the intercept b
    not penalised. Conjugate gradients, preconditioned by `inverse_curvature_root`, with a line
    search that needs no product with X; a group that does not converge that way (rows so long that
    the penalty hardly counts) is finished by Newton's method in float64.

    Args:
        features: (G, N, d) float32 or float64.
        targets: (N,) 0 or 1.
        weights: (G, F, N): F weightings of the rows of each group.
        l2: Strength of the penalty: 1 / C in scikit-learn's terms.
        root: Of `inverse_curvature_root`, that of like features will do; None for these ones'. It
            changes how long it takes, not what is found.

    Returns:
        (G, F, d + 1), the intercept last, dtype of the features; NaN where it did not converge. No
        logit is farther than about 10⁻³ from the optimum's in float32, 10⁻⁶ in float64.

    Source: Böhning 1992 (bound); Polak and Ribière 1969 (conjugate gradients).

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> beta = fit_logistic_regressions(x, torch.tensor([0.0, 1.0]), torch.ones(1, 1, 2))
        >>> [round(float(b), 3) + 0.0 for b in beta[0, 0]]
        [0.675, 0.0]
    """
    problems = _Problems.make(features, targets, weights, l2)
    if root is None:
        root = inverse_curvature_root(features, weights, l2=l2)
    coefficients, converged = _minimise(problems, problems.scaled(root))
    for group in (~converged).any(1).nonzero():
        alone = problems.part(group, torch.float64)
        exact, converged[group] = _newton(alone, coefficients[group].double())
        coefficients[group] = exact.to(features.dtype)
    coefficients[~converged] = torch.nan
    coefficients[..., :-1] /= problems.scale
    return coefficients


def _minimise(problems: _Problems, root: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Preconditioned conjugate gradients from 0: the coefficients, and which converged."""
    logits = torch.zeros_like(problems.weights)
    coefficients = logits.new_zeros(*logits.shape[:2], len(root))
    chance = torch.sigmoid(logits)
    gradient = problems.gradient(coefficients, problems.residuals(chance))
    strict = _TOLERANCE[logits.dtype] * problems.least_curvature()
    # where the gradient is rounding there is nothing left to gain; float64 goes on from there
    noise = _NOISE * torch.finfo(logits.dtype).eps
    enough = (noise * _norms(gradient)).clamp_min(strict)
    direction = before = torch.zeros_like(gradient)
    size = torch.ones_like(enough)
    for _ in range(_MAX_ITERATIONS):
        going = _norms(gradient) > enough
        if not bool(going.any()):
            break
        solved = _solve(root, gradient)
        turned = _dots(gradient, solved - before).clamp_min_(0) / size
        before, size = solved, _dots(gradient, solved).clamp_min_(_TINY)
        direction = turned * direction - solved
        line = _Line.make(problems, coefficients, logits, direction)
        step, chance = line.search(chance, _dots(gradient, direction), going)
        coefficients = torch.addcmul(coefficients, step, direction)
        logits = torch.addcmul(logits, step, line.along)
        gradient = problems.gradient(coefficients, problems.residuals(chance))
    return coefficients, _norms(gradient).squeeze(2) <= 10 * strict


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
        gradient = problems.gradient(coefficients, problems.residuals(chance))
        curvatures = (problems.weights * chance * (1 - chance)).unsqueeze(3)
        hessian = rows.mT.unsqueeze(1) @ (curvatures * rows.unsqueeze(1))
        diagonal = hessian.diagonal(dim1=2, dim2=3)
        # where every row is told apart for certain, the intercept has no curvature left
        diagonal += problems.penalty + 1e-12 * diagonal.mean(2, keepdim=True) + 1e-300
        direction = -torch.linalg.solve(hessian, gradient.unsqueeze(3)).squeeze(3)
        line = _Line.make(problems, coefficients, logits, direction)
        done = line.along.abs().amax(2, keepdim=True) <= _NEWTON_STEP
        if bool(done.all()):
            coefficients = coefficients + direction
            break
        step, _ = line.search(chance, _dots(gradient, direction), ~done)
        coefficients = coefficients + step * direction
    return coefficients, done.squeeze(2)


def _solve(root: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The preconditioner: RᵀR u for each of the vectors (G, F, d + 1)."""
    return (vectors.flatten(0, 1) @ root.T @ root).view_as(vectors)


def _dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left * right).sum(2, keepdim=True)


def _norms(vectors: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    return norms


@dataclass(frozen=True)
class _Line:
    """Each problem along its direction: convex in the step, and cheap, as logits are linear.

    Args:
        problems: The problems.
        logits: (G, F, N) at step 0.
        along: (G, F, N) change of the logits a unit of step.
        weighted: The same times the weights.
        linear: (G, F, 1) slope of the penalty at step 0.
        quadratic: (G, F, 1) curvature of the penalty.
    """

    problems: _Problems
    logits: torch.Tensor
    along: torch.Tensor
    weighted: torch.Tensor
    linear: torch.Tensor
    quadratic: torch.Tensor

    @classmethod
    def make(
        cls,
        problems: _Problems,
        coefficients: torch.Tensor,
        logits: torch.Tensor,
        direction: torch.Tensor,
    ) -> _Line:
        along, penalised = problems.logits(direction), problems.penalty * direction
        linear, quadratic = _dots(penalised, coefficients), _dots(penalised, direction)
        return cls(problems, logits, along, along * problems.weights, linear, quadratic)

    def search(
        self, chance: torch.Tensor, first: torch.Tensor, going: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Newton steps inside a bracket until the slope is under 0.3 of the first.

        Args:
            chance: (G, F, N) at step 0.
            first: (G, F, 1) slope there.
            going: (G, F, 1) which problems are to move.

        Returns:
            (G, F, 1) step, 0 for the other problems, and (G, F, N) chances there.
        """
        step, slope, fine = torch.zeros_like(first), first, ~going
        low, high = step, torch.full_like(step, torch.inf)
        for _ in range(_LINE_STEPS):
            newton = step - slope / self._bend(chance)
            middle = torch.where(high.isinf(), (2 * step).clamp_min(1), (low + high) / 2)
            moved = torch.where((newton > low) & (newton < high), newton, middle)
            step = torch.where(fine, step, moved)
            chance = torch.sigmoid(torch.addcmul(self.logits, step, self.along))
            slope = _dots(chance - self.problems.targets, self.weighted)
            slope = slope + self.linear + step * self.quadratic
            fine = fine | (slope.abs() <= 0.3 * first.abs())
            if bool(fine.all()):
                break
            low, high = torch.where(slope < 0, step, low), torch.where(slope > 0, step, high)
        return step, chance

    def _bend(self, chance: torch.Tensor) -> torch.Tensor:
        return _dots((chance * (1 - chance)).mul_(self.along), self.weighted) + self.quadratic


def inverse_hessian_products(
    features: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    vectors: torch.Tensor,
    *,
    l2: float = 1.0,
    root: torch.Tensor | None = None,
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
        root: As for the fit.

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
    if root is None:
        root = inverse_curvature_root(features, weights, l2=l2)
    root = problems.scaled(root)
    # scaled coefficients are those of rows / scale: u and the result change units on the way
    units = features.new_full((features.shape[2] + 1,), problems.scale)
    units[-1] = 1
    residual = vectors / units
    enough = (1e-3 * _norms(residual)).clamp_min(1e-30)
    solution = torch.zeros_like(residual)
    direction = solved = _solve(root, residual)
    size = _dots(residual, solved)
    for _ in range(_MAX_PRODUCTS):
        going = _norms(residual) > enough
        if not bool(going.any()):
            break
        image = problems.gradient(direction, curvatures * problems.logits(direction))
        step = torch.where(going, size / _dots(direction, image), 0.0)
        solution, residual = solution + step * direction, residual - step * image
        solved = _solve(root, residual)
        before, size = size, _dots(residual, solved)
        direction = solved + torch.where(going, size / before, 0.0) * direction
    return solution / units
