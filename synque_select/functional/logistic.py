"""Batches of penalized logistic regressions, and how their solutions respond to weights.

A ranking with intervals fits thousands of small regressions (candidates x folds x redraws). One
batched solver replaces a loop over scikit-learn, whose cost is mostly overhead at this size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from synque_select.utils.device import batch_bytes

__all__ = [
    "LeftOut",
    "fit_logistic_regressions",
    "inverse_curvature_root",
    "inverse_hessian_products",
    "leave_groups_out",
    "leverages",
]

_MAX_ITERATIONS = 200
# step lengths tried per line search
_LINE_STEPS = 8
# on a GPU, the host learns whether all is done each so many iterations only, as it waits for that,
# and a line search has a fixed number of steps. What is done stands still
_ITERATIONS_PER_LOOK = 8
_LINE_STEPS_ON_GPU = 3
_MAX_PRODUCTS = 50
# groups whose rows make up the preconditioner: more cost more than they save
_GROUPS_IN_ROOT = 4
# how far a logit may be from the optimum: a gradient of this size times the penalty. A probability
# is then off by a quarter of that at most (the slope of the sigmoid), while PAD, a mean of
# probabilities, has a standard error of about 0.01
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
# the last Newton step may change a logit by this much; convergence is quadratic, so the error that
# remains is of the order of its square
_NEWTON_STEP = 1e-3
# gradients stop falling at about this multiple of the rounding error of the first one
_NOISE = 30
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class _Problems:
    """G groups of rows with F weightings each: G × F regressions.

    Coefficients are those of rows / scale: tolerances and the curvature bound then hold whatever
    the unit of the features is.

    Args:
        rows: (G, N, d).
        targets: (N,) or (G, F, N), 0 or 1.
        weights: (G, F, N), 0 for a row that is held out.
        penalty: (d + 1,) of the scaled coefficients, 0 for the intercept, which is last.
        scale: Root mean square norm of the rows, a float64 scalar.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    penalty: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def make(
        cls, features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, l2: float
    ) -> _Problems:
        norms = torch.linalg.vector_norm(features, dim=2).double()
        scale = norms.square().mean().sqrt()
        scale = torch.where(scale == 0, 1.0, scale)
        # dividing rows by s multiplies coefficients by s and so divides their penalty by s²
        penalty = features.new_ones(features.shape[2] + 1) * (l2 / scale.square()).to(features)
        penalty[-1] = 0
        return cls(features, targets.to(features), weights.to(features), penalty, scale)

    def logits(self, coefficients: torch.Tensor) -> torch.Tensor:
        scaled = coefficients[..., :-1] / self.scale
        # on a CPU 1.7 times as fast as scaled @ rows.mT, which has a few long rows
        products = (self.rows @ scaled.mT).mT.contiguous()
        return products.add_(coefficients[..., -1:])

    def residuals(self, chance: torch.Tensor) -> torch.Tensor:
        return (chance - self.targets).mul_(self.weights)

    def gradient(self, coefficients: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        slopes = (residuals @ self.rows).div_(self.scale)
        return torch.cat((slopes, residuals.sum(2, keepdim=True)), 2) + self.penalty * coefficients

    def least_curvature(self) -> torch.Tensor:
        """A lower bound of the Hessian, for rows of norm 1 and a moderate intercept."""
        # slopes have the penalty's curvature at least; the intercept has none, but its own
        # curvature Σ w p(1 − p), with p(1 − p) ≥ 1/16 for p between 0.07 and 0.93
        return torch.minimum(self.penalty.max(), self.weights.sum(2).mean() / 16)

    def scaled(self, root: torch.Tensor) -> torch.Tensor:
        """Convert the result of `inverse_curvature_root` to the scaled coefficients."""
        root = root.to(self.rows).clone()
        root[:, :-1] *= self.scale
        return root

    def part(self, groups: torch.Tensor, fits: torch.Tensor, dtype: torch.dtype) -> _Problems:
        """Return some of the weightings of some of the groups, in another dtype."""
        at = groups.unsqueeze(1), fits
        return _Problems(
            self.rows[groups].to(dtype),
            (self.targets[at] if self.targets.dim() == 3 else self.targets).to(dtype),
            self.weights[at].to(dtype),
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
    """Return R with RᵀR ≈ (Xᵀ diag(w p (1 − p)) X + l2 I)⁻¹, a preconditioner for all groups.

    It is the mean of up to 4 groups. One per group would save a few iterations and cost more than
    they do.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) weights of the rows in the fits.
        logits: (G, F, N) at which p is evaluated; None for Böhning's bound, p (1 − p) ≤ ¼.
        l2: Strength of the penalty in the fits.

    Returns:
        (d + 1, d + 1), dtype of the features, lower triangular, the intercept last, in the units
        of the features.

    Source: Böhning 1992, Annals of the Institute of Statistical Mathematics 44 (the bound).

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> root = inverse_curvature_root(x, torch.ones(1, 1, 2))
        >>> (root.T @ root).diagonal()  # 1 / (½ + 1) and 1 / ½
        tensor([0.6667, 2.0000])
    """
    # evenly spaced whole groups, not random rows: the rows that groups share, such as those of the
    # real sample, are then all in the estimate
    chosen = slice(None, None, -(-len(features) // _GROUPS_IN_ROOT))
    rows, curvatures = features[chosen].flatten(0, 1), weights[chosen].to(features) / 4
    if logits is not None:
        # a fit that did not converge has NaN logits: p = ½ gives the bound there
        chance = torch.sigmoid(logits[chosen]).nan_to_num_(0.5)
        curvatures = 4 * curvatures * chance * (1 - chance)
    shares = curvatures.mean(1).flatten() / len(curvatures)
    weighted = shares.unsqueeze(1) * rows
    # assembled in blocks: appending a column of ones to the rows would copy all of them
    bound = rows.new_empty(rows.shape[1] + 1, rows.shape[1] + 1)
    torch.mm(weighted.T, rows, out=bound[:-1, :-1])
    bound[-1, :-1] = bound[:-1, -1] = weighted.sum(0)
    bound[-1, -1] = shares.sum()
    diagonal = bound.diagonal()
    # with fewer rows than columns the matrix is singular up to the penalty, and a ridge keeps the
    # Cholesky factor defined. A preconditioner changes the path, not the solution
    diagonal[:-1] += (1e-5 * diagonal[:-1].mean()).clamp_min(l2)
    diagonal[-1] += 1e-5 * diagonal[-1].clone()
    one = torch.eye(len(bound), dtype=bound.dtype, device=bound.device)
    root: torch.Tensor = torch.linalg.solve_triangular(_cholesky(bound), one, upper=False)
    return root


def _cholesky(matrices: torch.Tensor) -> torch.Tensor:
    """Return the lower Cholesky factors; on a GPU, NaN and not an error where there is none."""
    # whether it failed is known on the device only, and the host would wait for that. What is
    # computed from NaN does not converge
    if not matrices.is_cuda:
        factors: torch.Tensor = torch.linalg.cholesky(matrices)
        return factors
    result = torch.linalg.cholesky_ex(matrices)
    failed = result.info.ne(0).unsqueeze(-1).unsqueeze(-1)
    return torch.where(failed, torch.nan, result.L)


def fit_logistic_regressions(
    features: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    l2: float = 1.0,
    root: torch.Tensor | None = None,
) -> torch.Tensor:
    """Solve many weighted logistic regressions with an L2 penalty as one batched problem.

    Each minimizes Σ_n w_n (log(1 + e^{z_n}) − y_n z_n) + l2/2 ‖β‖², z = Xβ + b; the intercept b is
    not penalized. The method is conjugate gradients, preconditioned by `inverse_curvature_root`,
    with a line search that needs no product with X. Groups that do not converge that way (rows so
    long that the penalty hardly matters) are finished by Newton's method in float64.

    Args:
        features: (G, N, d) float32 or float64.
        targets: (N,) 0 or 1 for all regressions, or (G, F, N) for each its own.
        weights: (G, F, N) non-negative: F weightings of the rows of each group.
        l2: Strength of the penalty: 1 / C in scikit-learn's terms.
        root: Result of `inverse_curvature_root` for these or similar features; None to compute it
            here. It affects the running time, not the solution.

    Returns:
        (G, F, d + 1) in the dtype of the features, the intercept last; NaN for fits that did not
        converge. Logits are within about 10⁻³ of the optimum in float32, 10⁻⁶ in float64.

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
    # few groups at a time: the Hessians of all of them, (G, F, d, d) in float64, would not fit
    _, n_fits, d = coefficients.shape
    n_bytes = 8 * n_fits * (3 * d**2 + 2 * d * features.shape[1])
    at_once = max(1, batch_bytes(features) // n_bytes) if features.is_cuda else 1
    failed = (~converged).any(1).nonzero().flatten()
    for groups in torch.split(failed, at_once) if len(failed) else ():
        fits = (~converged[groups]).any(0).nonzero().flatten()
        at = groups.unsqueeze(1), fits
        alone = problems.part(groups, fits, torch.float64)
        exact, converged[at] = _newton(alone, coefficients[at].double())
        coefficients[at] = exact.to(features.dtype)
    # NaN and not the last iterate: a proxy must report "undefined", not a number that depends on
    # where the solver stopped
    coefficients.masked_fill_(~converged.unsqueeze(2), torch.nan)
    coefficients[..., :-1] /= problems.scale
    return coefficients


def _minimise(problems: _Problems, root: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Preconditioned conjugate gradients from 0; return coefficients and which fits converged."""
    logits = torch.zeros_like(problems.weights)
    coefficients = logits.new_zeros(*logits.shape[:2], len(root))
    chance = torch.sigmoid(logits)
    gradient = problems.gradient(coefficients, problems.residuals(chance))
    strict = _TOLERANCE[logits.dtype] * problems.least_curvature()
    # below its rounding error the gradient has no direction left; what is not converged by then
    # continues in float64
    noise = _NOISE * torch.finfo(logits.dtype).eps
    enough = (noise * _norms(gradient)).clamp_min(strict)
    direction = before = torch.zeros_like(gradient)
    size = torch.ones_like(enough)
    for i in range(_MAX_ITERATIONS):
        going = _norms(gradient) > enough
        if _looks(i, going) and not bool(going.any()):
            break
        solved = _solve(root, gradient)
        # Polak and Ribière's β, clamped at 0: a restart along the gradient whenever conjugacy is
        # lost, which makes it globally convergent on a function that is not quadratic
        turned = _dots(gradient, solved - before).clamp_min_(0) / size
        # problems that are done have a gradient of 0: the next division must not be 0/0
        before, size = solved, _dots(gradient, solved).clamp_min_(_TINY)
        direction = turned * direction - solved
        line = _Line.make(problems, coefficients, logits, direction)
        step, chance = line.search(chance, _dots(gradient, direction), going)
        coefficients = torch.addcmul(coefficients, step, direction)
        # logits are linear in the step: updating them saves the second product with X
        logits = torch.addcmul(logits, step, line.along)
        gradient = problems.gradient(coefficients, problems.residuals(chance))
    # a margin of 10: the bound on the curvature is pessimistic, and a restart in float64 costs
    # more than the last digit is worth
    return coefficients, _norms(gradient).squeeze(2) <= 10 * strict


def _newton(problems: _Problems, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Newton's method with a line search; return coefficients and convergence.

    A fit has converged if a Newton step no longer changes a logit: unlike a bound on the gradient,
    this does not depend on the units of the features.
    """
    ones = problems.rows.new_ones(*problems.rows.shape[:2], 1)
    rows = torch.cat((problems.rows / problems.scale, ones), 2)
    coefficients, done = start, torch.zeros_like(start[..., :1], dtype=torch.bool)
    for i in range(_MAX_ITERATIONS):
        logits = problems.logits(coefficients)
        chance = torch.sigmoid(logits)
        gradient = problems.gradient(coefficients, problems.residuals(chance))
        curvatures = (problems.weights * chance * (1 - chance)).unsqueeze(3)
        hessian = rows.mT.unsqueeze(1) @ (curvatures * rows.unsqueeze(1))
        diagonal = hessian.diagonal(dim1=2, dim2=3)
        # if every row is classified with certainty, p (1 − p) underflows and the intercept has no
        # curvature left: a relative ridge of 1e-12 keeps the system solvable
        diagonal += problems.penalty + 1e-12 * diagonal.mean(2, keepdim=True) + 1e-300
        direction = -_solved(hessian, gradient.unsqueeze(3)).squeeze(3)
        line = _Line.make(problems, coefficients, logits, direction)
        done = line.along.abs().amax(2, keepdim=True) <= _NEWTON_STEP
        if _looks(i, done) and bool(done.all()):
            coefficients = coefficients + direction
            break
        step, _ = line.search(chance, _dots(gradient, direction), ~done)
        coefficients = coefficients + step * direction
    return coefficients, done.squeeze(2)


def _solved(matrices: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Solve positive definite systems; NaN where a matrix is not, which does not converge."""
    # not `torch.linalg.solve`: its LU of a batch fails in MKL with several threads on some CPUs
    factors, info = torch.linalg.cholesky_ex(matrices)
    failed = info.ne(0).unsqueeze(-1).unsqueeze(-1)
    return torch.where(failed, torch.nan, torch.cholesky_solve(vectors, factors))


def _looks(iteration: int, flags: torch.Tensor) -> bool:
    """Whether the host reads flags in this iteration."""
    return not flags.is_cuda or iteration % _ITERATIONS_PER_LOOK == _ITERATIONS_PER_LOOK - 1


def _solve(root: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Apply the preconditioner: RᵀR u for each of the vectors (G, F, d + 1)."""
    return (vectors.flatten(0, 1) @ root.T @ root).view_as(vectors)


def _dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left * right).sum(2, keepdim=True)


def _norms(vectors: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    return norms


@dataclass(frozen=True)
class _Line:
    """Each problem along its direction: convex in the step, and cheap because logits are linear.

    Args:
        problems: The problems.
        logits: (G, F, N) logits at step 0.
        along: (G, F, N) change of the logits per unit of step.
        weighted: (G, F, N) `along` times the weights.
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
        """Take Newton steps inside a bracket until the slope is below 0.3 of the first one.

        Args:
            chance: (G, F, N) probabilities at step 0.
            first: (G, F, 1) slope at step 0.
            going: (G, F, 1) bool, which problems may move.

        Returns:
            (G, F, 1) step, 0 for the other problems, and (G, F, N) probabilities after it.
        """
        # a loose search (the strong Wolfe condition with 0.3): conjugate gradients need a descent
        # direction next time, and an exact minimum along this one would not save an iteration
        step, slope, fine = torch.zeros_like(first), first, ~going
        low, high = step, torch.full_like(step, torch.inf)
        on_gpu = first.is_cuda
        for _ in range(_LINE_STEPS_ON_GPU if on_gpu else _LINE_STEPS):
            newton = step - slope / self._curvature(chance)
            # a Newton step may overshoot where the sigmoid is flat; outside the bracket, bisect
            # it, or double the step while the bracket has no upper end
            middle = torch.where(high.isinf(), (2 * step).clamp_min(1), (low + high) / 2)
            moved = torch.where((newton > low) & (newton < high), newton, middle)
            step = torch.where(fine, step, moved)
            chance = torch.sigmoid(torch.addcmul(self.logits, step, self.along))
            slope = _dots(chance - self.problems.targets, self.weighted)
            slope = slope + self.linear + step * self.quadratic
            fine = fine | (slope.abs() <= 0.3 * first.abs())
            if not on_gpu and bool(fine.all()):
                break
            low, high = torch.where(slope < 0, step, low), torch.where(slope > 0, step, high)
        return step, chance

    def _curvature(self, chance: torch.Tensor) -> torch.Tensor:
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
    """Return H⁻¹ u for the Hessian H = Xᵀ diag(w p (1 − p)) X + l2 I of each fitted regression.

    By preconditioned conjugate gradients, to a relative residual of 10⁻³ or 50 steps: enough for a
    standard error.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) weights of the fit.
        logits: (G, F, N) logits of the fit, for all rows.
        vectors: (G, F, d + 1) the vectors u, the intercept last.
        l2: Strength of the penalty of the fit.
        root: Result of `inverse_curvature_root`; None to compute it here.

    Returns:
        (G, F, d + 1), in the units of the coefficients.

    Example:
        >>> x = torch.tensor([[[-1.0], [1.0]]])
        >>> zeros, ones = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
        >>> inverse_hessian_products(x, ones, zeros, ones)
        tensor([[[0.6667, 2.0000]]])
    """
    # the targets do not enter the Hessian
    problems = _Problems.make(features, features.new_zeros(features.shape[1]), weights, l2)
    chance = torch.sigmoid(logits)
    curvatures = problems.weights * chance * (1 - chance)
    if root is None:
        root = inverse_curvature_root(features, weights, l2=l2)
    root = problems.scaled(root)
    # the problem is solved for rows / scale: u is converted on the way in, the result on the way
    # out. H itself is never formed: (G, F, d, d) would not fit into memory
    units = features.new_ones(features.shape[2] + 1)
    units[:-1] *= problems.scale
    residual = vectors / units
    enough = (1e-3 * _norms(residual)).clamp_min(1e-30)
    solution = torch.zeros_like(residual)
    direction = solved = _solve(root, residual)
    size = _dots(residual, solved)
    for i in range(_MAX_PRODUCTS):
        going = _norms(residual) > enough
        if _looks(i, going) and not bool(going.any()):
            break
        image = problems.gradient(direction, curvatures * problems.logits(direction))
        # problems that are done stand still; their quotient may be 0/0
        step = torch.where(going, size / _dots(direction, image), 0.0)
        solution, residual = solution + step * direction, residual - step * image
        solved = _solve(root, residual)
        before, size = size, _dots(residual, solved)
        direction = solved + torch.where(going, size / before, 0.0) * direction
    return solution / units


def leverages(
    features: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    rows: torch.Tensor,
    *,
    l2: float = 1.0,
) -> torch.Tensor:
    """Return how much some rows pull each fitted regression towards themselves.

    h_i = w_i p_i (1 − p_i) x_iᵀ H⁻¹ x_i, with H the Hessian at the fit: 0 for a row without
    influence, near 1 for one that the fit follows wherever it goes. If row i is left out, the
    coefficients move by H⁻¹ x_i w_i (y_i − p_i) / (1 − h_i) in one Newton step.

    Args:
        features: (G, N, d) float32 or float64.
        weights: (G, F, N) weights of the fit.
        logits: (G, F, N) logits of the fit, for all rows.
        rows: (R,) int64 positions of the rows, all different.
        l2: Strength of the penalty of the fit.

    Returns:
        (G, F, R) float64, 0 to below 1; 0 for rows of weight 0.

    Source: Pregibon 1981, Annals of Statistics 9 (logistic regression diagnostics).

    Example:
        >>> x = torch.tensor([[[-1.0], [0.0], [1.0], [50.0]]])
        >>> h = leverages(x, torch.ones(1, 1, 4), torch.zeros(1, 1, 4), torch.arange(4))
        >>> [round(value, 1) for value in h[0, 0].tolist()]
        [0.3, 0.3, 0.3, 1.0]
    """
    if features.shape[1] <= features.shape[2] and not features.is_cuda:
        return _leverages_by_rows(features, _curvatures(weights, logits), rows, l2)
    parts = [part.square().sum(1) for part in _half_solved(features, weights, logits, rows, l2)]
    return torch.cat(parts).view(*logits.shape[:2], len(rows))


def _leverages_by_rows(
    features: torch.Tensor, curvatures: torch.Tensor, rows: torch.Tensor, l2: float
) -> torch.Tensor:
    """Leverages from the (N, N) inner products of the rows, which all fits of a group share.

    With v = w p (1 − p), Z the rows less their mean under v, and K = V^½ Z Zᵀ V^½,
    h_i = v_i / Σ v + 1 − l2 [(K + l2 I)⁻¹]_ii.

    Args:
        features: (G, N, d), with fewer rows than columns.
        curvatures: (G, F, N) float64, v of each fit.
        rows: (R,) int64 positions of the rows, all different.
        l2: Strength of the penalty.
    """
    n = features.shape[1]
    result = torch.zeros(*curvatures.shape[:2], len(rows), dtype=torch.float64)
    is_wanted = torch.zeros(n, dtype=torch.bool)
    is_wanted[rows] = True
    # last: the diagonal of an inverse is there that of a small triangle's
    order = torch.cat((torch.nonzero(~is_wanted)[:, 0], rows))
    for g, group in enumerate(features):
        x = group.double()[order]
        x = x - x.mean(0)  # far from 0, the subtraction below would lose digits
        products = x @ x.T
        for f, every in enumerate(curvatures[g][:, order]):
            used = torch.nonzero(every)[:, 0]  # the others, which were held out, change nothing
            v, last = every[used], used >= n - len(rows)
            own = products[used][:, used]
            total = v.sum() + 1e-9  # the trace of a penalty, as in `_half_solved`
            along = own @ v / total  # of each row with the mean
            own.sub_(along).sub_((along - along @ v / total).unsqueeze(1))
            root = v.sqrt()
            kernel = own.mul_(root).mul_(root.unsqueeze(1))
            kernel.diagonal().add_(l2)
            n_last = int(last.sum())
            triangle = _cholesky(kernel)[len(v) - n_last :, len(v) - n_last :]
            solved = torch.linalg.solve_triangular(
                triangle, torch.eye(n_last).double(), upper=False
            )
            leverage = v[last] / total + 1 - l2 * solved.square().sum(0)
            result[g, f, used[last] - (n - len(rows))] = leverage
    return result


@dataclass(frozen=True)
class LeftOut:
    """Turns residuals of fitted rows into those that one Newton step without their group needs.

    Args:
        rows: For each size of group, (B, m) int64 rows of the B groups of m rows.
        factors: For each size of group, (F, B, m, m) float64.
    """

    rows: tuple[torch.Tensor, ...]
    factors: tuple[torch.Tensor, ...]

    def __call__(self, residuals: torch.Tensor) -> torch.Tensor:
        """Return the residuals, (..., F, R) float64, each group by its factor."""
        result = torch.empty_like(residuals)
        for rows, factors in zip(self.rows, self.factors, strict=True):
            # (..., F, B, m): the groups of one size at once
            result[..., rows] = (factors @ residuals[..., rows].unsqueeze(-1)).squeeze(-1)
        return result


def leave_groups_out(
    features: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    groups: torch.Tensor,
    *,
    least_free: float,
    l2: float = 1.0,
) -> LeftOut:
    """Return what turns residuals into those of leaving out whole groups of rows.

    Without group g, the coefficients move by H⁻¹ X_gᵀ (I − V_g X_g H⁻¹ X_gᵀ)⁻¹ r_g in one Newton
    step, with V = diag(w p (1 − p)) and r the residuals w (y − p). For a group of one row this
    divides by 1 less its leverage, as `leverages` says; the rows of a group that are alike pull the
    fit together, which their own leverages do not show.

    Args:
        features: (N, d) float32 or float64; the rows in groups are the first R.
        weights: (F, N) weights of the fits.
        logits: (F, N) logits of the fits.
        groups: (R,) int64 group of each of the first R rows, from 0 on.
        least_free: Smallest eigenvalue of I − V_g X_g H⁻¹ X_gᵀ to use: below it, the linear
            approximation has nothing left to say.
        l2: Strength of the penalty of the fits.

    Source: Preisser and Qaqish 1996, Biometrika 83 (deletion of clusters); Bell and McCaffrey
        2002, Survey Methodology 28 (the same as a correction of variances, "CR3").

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [1.0], [0.0]])
        >>> fit = torch.ones(1, 4), torch.zeros(1, 4)
        >>> left_out = leave_groups_out(x, *fit, torch.tensor([0, 1, 1]), least_free=0.1)
        >>> [round(value, 2) for value in left_out(torch.ones(1, 3).double())[0].tolist()]
        [1.93, 3.0, 3.0]
    """
    rows = torch.arange(len(groups), device=features.device)
    solved = torch.cat(list(_half_solved(features[None], weights[None], logits[None], rows, l2))).mT
    curvatures = _curvatures(weights, logits)[:, : len(groups)]
    # on the CPU, where positions are found without waiting for a device
    numbers = groups.cpu()
    order, sizes = numbers.argsort(stable=True), torch.bincount(numbers)
    starts = sizes.cumsum(0) - sizes
    members, factors = [], []
    for size in sorted(set(sizes.tolist())):
        first = starts[sizes == size].unsqueeze(1)
        chosen = order[first + torch.arange(size)].to(features.device)
        blocks = solved[:, chosen] @ solved[:, chosen].mT
        values, vectors = torch.linalg.eigh(blocks)
        free = (1 - values).clamp_min(least_free)
        inverse = (vectors / free.unsqueeze(2)) @ vectors.mT
        # the eigenvalues are those of V^½ X H⁻¹ Xᵀ V^½, which is symmetric
        scale = curvatures[:, chosen].sqrt()
        back = torch.where(scale > 0, 1 / scale, 0.0)
        members.append(chosen)
        factors.append(scale.unsqueeze(3) * inverse * back.unsqueeze(2))
    return LeftOut(tuple(members), tuple(factors))


def _curvatures(weights: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return w p (1 − p) in float64."""
    return weights.double() * torch.sigmoid(logits.double()) * torch.sigmoid(-logits.double())


def _half_solved(
    features: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    rows: torch.Tensor,
    l2: float,
) -> Iterator[torch.Tensor]:
    """Yield L⁻¹ Xᵀ V^½ of some rows, (B, d + 1, R) float64 with L Lᵀ = H, of B fits at a time."""
    (n_groups, n_fits, n), d = logits.shape, features.shape[2] + 1
    curvatures = _curvatures(weights, logits)
    penalty = torch.full((d,), l2, dtype=torch.float64, device=features.device)
    # the intercept is not penalized; a trace keeps the factorization from failing
    penalty[-1] = 1e-9
    if not features.is_cuda:
        # one Hessian at a time: all of them would not fit into memory
        for g in range(n_groups):
            x = _with_ones(features[g])
            for f in range(n_fits):
                yield _half_solved_of(x, curvatures[g, f], rows, penalty).unsqueeze(0)
        return
    n_bytes = 8 * (3 * n * d + 3 * d**2 + 3 * d * len(rows))
    at_once = max(1, batch_bytes(features) // (2 * n_bytes))
    for fits in torch.split(torch.arange(n_groups * n_fits, device=features.device), at_once):
        x = _with_ones(features[fits // n_fits])
        yield _half_solved_of(x, curvatures.flatten(0, 1)[fits], rows, penalty)


def _with_ones(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (..., N, d) in float64 with a column of ones behind them."""
    return torch.cat((rows.double(), rows.new_ones(*rows.shape[:-1], 1, dtype=torch.float64)), -1)


def _half_solved_of(
    x: torch.Tensor, curvatures: torch.Tensor, rows: torch.Tensor, penalty: torch.Tensor
) -> torch.Tensor:
    """(..., d + 1, R) of fits of x (..., N, d + 1) with curvatures (..., N)."""
    hessians = (x.mT * curvatures.unsqueeze(-2)) @ x + torch.diag(penalty)
    scaled = (x[..., rows, :] * curvatures[..., rows].sqrt().unsqueeze(-1)).mT
    solved: torch.Tensor = torch.linalg.solve_triangular(_cholesky(hessians), scaled, upper=False)
    return solved
