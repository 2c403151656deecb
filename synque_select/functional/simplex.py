"""Convex quadratic problems on the capped simplex: the weights of a mixture."""

from __future__ import annotations

import torch

from synque_select.errors import ConfigError

__all__ = ["minimize_quadratic_on_simplex", "nearest_psd", "project_to_capped_simplex"]

_MAX_STEPS = 20_000
_TOLERANCE = 1e-12


def nearest_psd(matrix: torch.Tensor) -> torch.Tensor:
    """Project a symmetric matrix to the positive semi-definite ones, in Frobenius norm.

    Args:
        matrix: (K, K).

    Returns:
        (K, K) float64: the eigenvalues below 0 set to 0.

    Example:
        >>> nearest_psd(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]], dtype=torch.float64)
    """
    symmetric = (matrix + matrix.mT).double() / 2
    values, vectors = torch.linalg.eigh(symmetric)
    projected: torch.Tensor = (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT
    return projected


def project_to_capped_simplex(point: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Nearest point w with 0 ≤ w ≤ upper and Σ w = 1: clip(point − τ), τ found by bisection.

    Args:
        point: (..., K).
        upper: (..., K) caps whose sum is at least 1.

    Returns:
        (..., K) float64.

    Example:
        >>> project_to_capped_simplex(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.6, 1.0, 1.0]))
        tensor([0.6000, 0.2000, 0.2000], dtype=torch.float64)
    """
    point, upper = point.double(), upper.double()
    low = point.amin(dim=-1, keepdim=True) - 1 - upper.amax(dim=-1, keepdim=True)
    high = point.amax(dim=-1, keepdim=True)
    for _ in range(70):  # halves the bracket to below float64's resolution
        middle = (low + high) / 2
        total = (point - middle).clamp(min=0).minimum(upper).sum(dim=-1, keepdim=True)
        low, high = torch.where(total > 1, middle, low), torch.where(total > 1, high, middle)
    return (point - (low + high) / 2).clamp(min=0).minimum(upper)


def minimize_quadratic_on_simplex(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor | None = None
) -> torch.Tensor:
    """Minimise wᵀKw − 2wᵀc over 0 ≤ w ≤ upper, Σ w = 1, for a batch of problems at once.

    Accelerated projected gradient with restarts, until a step moves no weight by more than 1e-12.

    Args:
        quadratic: (..., K, K) symmetric and positive semi-definite (`nearest_psd`).
        linear: (..., K), the c above; one quadratic part may serve many of them.
        upper: (..., K) caps; None for 1.

    Returns:
        (..., K) float64 weights.

    Raises:
        ConfigError: The caps sum to less than 1.

    Source:
        Huang et al. 2006, kernel mean matching, here over datasets instead of examples.

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
        raise ConfigError("the caps on a mixture's weights sum to less than 1")
    step = 1 / (2 * torch.linalg.matrix_norm(quadratic, ord=2).clamp(min=1e-300))
    return _accelerated(quadratic, linear, upper, step[..., None])


def _accelerated(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor, step: torch.Tensor
) -> torch.Tensor:
    weights = project_to_capped_simplex(torch.zeros_like(linear), upper)
    ahead, momentum = weights, torch.ones_like(linear[..., :1])
    for _ in range(_MAX_STEPS):
        gradient = 2 * ((quadratic @ ahead.unsqueeze(-1)).squeeze(-1) - linear)
        new = project_to_capped_simplex(ahead - step * gradient, upper)
        moved = new - weights
        # restart where the momentum points uphill (O'Donoghue and Candes 2015)
        uphill = ((ahead - new) * moved).sum(dim=-1, keepdim=True) > 0
        following = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        factor = torch.where(uphill, 0.0, (momentum - 1) / following)
        momentum = torch.where(uphill, 1.0, following)
        ahead, weights = new + factor * moved, new
        if float(moved.abs().max()) < _TOLERANCE:
            break
    return weights
