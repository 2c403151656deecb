"""Convex quadratic problems on the capped simplex, for the weights of a mixture."""

from __future__ import annotations

import torch

from synque_select.errors import ConfigError

__all__ = ["minimize_quadratic_on_simplex", "nearest_psd", "project_to_capped_simplex"]

_MAX_STEPS = 20_000
_TOLERANCE = 1e-12


def nearest_psd(matrix: torch.Tensor) -> torch.Tensor:
    """Return the nearest positive semi-definite matrix in Frobenius norm.

    Args:
        matrix: (..., K, K), any float dtype; its symmetric part is used.

    Returns:
        (..., K, K) float64, with eigenvalues below 0 replaced by 0.

    Source: Higham 1988, "Computing a nearest symmetric positive semidefinite matrix".

    Example:
        >>> nearest_psd(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]], dtype=torch.float64)
    """
    # eigh reads one triangle only: without averaging, entries that differ in their last digits
    # across the diagonal would make the result depend on which
    symmetric = (matrix + matrix.mT).double() / 2
    values, vectors = torch.linalg.eigh(symmetric)
    projected: torch.Tensor = (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT
    return projected


def project_to_capped_simplex(point: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Return the nearest point w with 0 ≤ w ≤ upper and Σ w = 1.

    w = clip(point − τ, 0, upper), with τ such that the weights sum to 1.

    Args:
        point: (..., K), any float dtype.
        upper: (..., K) caps on the weights, with a sum of at least 1.

    Returns:
        (..., K) float64.

    Source: Wang and Lu 2015 (arXiv 1503.01002), projection onto the capped simplex by sorting.

    Example:
        >>> project_to_capped_simplex(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.6, 1.0, 1.0]))
        tensor([0.6000, 0.2000, 0.2000], dtype=torch.float64)
    """
    point = point.double()
    upper = upper.double().expand_as(point)
    k = point.shape[-1]
    # Σ clip(point − τ, 0, upper) is Σ upper ≥ 1 below the lowest break, falls linearly between
    # breaks, and is 0 above the highest
    breaks, order = torch.cat([point - upper, point], dim=-1).sort(dim=-1)
    slopes = torch.where(order < k, -1.0, 1.0).to(breaks).cumsum(dim=-1)
    falls = (slopes[..., :-1] * breaks.diff(dim=-1)).cumsum(dim=-1)
    n_above = (upper.sum(dim=-1, keepdim=True) + falls >= 1).sum(dim=-1, keepdim=True)
    low = breaks.gather(-1, n_above.clamp(max=2 * k - 2))
    high = breaks.gather(-1, (n_above + 1).clamp(max=2 * k - 1))
    # solved anew from the weights that are free there: the running sums are only good enough to
    # find the two breaks
    middle = (low + high) / 2
    capped, free = point - upper >= middle, (point - upper < middle) & (middle < point)
    fixed = torch.where(capped, upper, 0.0).sum(dim=-1, keepdim=True)
    of_free = torch.where(free, point, 0.0).sum(dim=-1, keepdim=True)
    n_free = free.sum(dim=-1, keepdim=True)
    threshold = torch.where(n_free > 0, (of_free + fixed - 1) / n_free.clamp(min=1), middle)
    return (point - threshold).clamp(min=0).minimum(upper)


def minimize_quadratic_on_simplex(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor | None = None
) -> torch.Tensor:
    """Minimize wᵀKw − 2wᵀc over 0 ≤ w ≤ upper, Σ w = 1, for a batch of problems at once.

    By accelerated projected gradient with restarts, until a step changes no weight by more than
    1e-12. Where K and c differ between candidates by less than 1e-13 of the largest entry of K, the
    differences are rounding, and the weights are as equal as the caps permit.

    Args:
        quadratic: (..., K, K) symmetric and positive semi-definite (see `nearest_psd`).
        linear: (..., K) the vectors c; one quadratic part may serve many of them.
        upper: (..., K) caps on the weights; None for 1.

    Returns:
        (..., K) float64 weights.

    Raises:
        ConfigError: The caps sum to less than 1.

    Source:
        Huang et al. 2006, kernel mean matching, here over datasets instead of examples; Beck and
        Teboulle 2009 (FISTA).

    Example:
        >>> identity = torch.eye(2)
        >>> minimize_quadratic_on_simplex(identity, torch.tensor([0.75, 0.25]))
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    quadratic, linear = quadratic.double(), linear.double()
    shape = linear.shape
    upper = torch.ones(shape, dtype=torch.float64) if upper is None else upper.double()
    upper = upper.to(linear.device).expand(shape)
    if bool((upper.clamp(max=1).sum(dim=-1) < 1 - 1e-12).any()):
        raise ConfigError(
            "the caps on the weights of a mixture sum to less than 1: no weights can satisfy them; "
            "raise the caps or add candidates"
        )
    quadratic, linear = _centered(quadratic, linear)
    # 1/L with L the largest eigenvalue of the Hessian 2K, the longest step that always descends
    step = 1 / (2 * torch.linalg.matrix_norm(quadratic, ord=2).clamp(min=1e-300))
    return _accelerated(quadratic, linear, upper, step[..., None])


def _centered(quadratic: torch.Tensor, linear: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return K and c of the same problem without what is equal for all weights that sum to 1.

    With m = 1/n for each of n weights and P the projection onto vectors of sum 0, the objective is
    wᵀPKPw − 2wᵀP(c − Km) plus a constant. Similar candidates have nearly equal entries in K, so
    that the steps for K itself are shorter than those for PKP by orders of magnitude.
    """
    largest = quadratic.abs().amax(dim=(-2, -1), keepdim=True)
    rows = quadratic.mean(dim=-1, keepdim=True)
    linear = linear - rows.squeeze(-1)
    linear = linear - linear.mean(dim=-1, keepdim=True)
    quadratic = quadratic - rows - rows.mT + rows.mean(dim=-2, keepdim=True)
    rounding = 1e-13 * largest
    flat = quadratic.abs().amax(dim=(-2, -1), keepdim=True) <= rounding
    linear_flat = linear.abs().amax(dim=-1, keepdim=True) <= rounding.squeeze(-1)
    return torch.where(flat, 0.0, quadratic), torch.where(linear_flat, 0.0, linear)


def _products(quadratic: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return the products of symmetric matrices with (..., K) vectors, in the same shape."""
    if quadratic.dim() == 2 and vectors.dim() > 1:
        return vectors @ quadratic  # for all at once: one by one, each would read the matrix
    return (quadratic @ vectors.unsqueeze(-1)).squeeze(-1)


def _accelerated(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor, step: torch.Tensor
) -> torch.Tensor:
    weights = project_to_capped_simplex(torch.zeros_like(linear), upper)
    ahead, momentum = weights, torch.ones_like(linear[..., :1])
    for _ in range(_MAX_STEPS):
        gradient = 2 * (_products(quadratic, ahead) - linear)
        new = project_to_capped_simplex(ahead - step * gradient, upper)
        moved = new - weights
        # K is often nearly singular (similar candidates), where plain gradient steps crawl and
        # momentum alone oscillates: restart it wherever it points uphill (O'Donoghue and Candès
        # 2015)
        uphill = ((ahead - new) * moved).sum(dim=-1, keepdim=True) > 0
        following = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        factor = torch.where(uphill, 0.0, (momentum - 1) / following)
        momentum = torch.where(uphill, 1.0, following)
        ahead, weights = new + factor * moved, new
        if float(moved.abs().max()) < _TOLERANCE:
            break
    return weights
