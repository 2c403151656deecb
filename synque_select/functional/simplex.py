"""Convex quadratic problems on the capped simplex, for the weights of a mixture."""

from __future__ import annotations

import torch

from synque_select.errors import ConfigError
from synque_select.functional.capped_simplex import project_to_capped_simplex
from synque_select.functional.simplex_descent import descend

__all__ = ["minimize_quadratic_on_simplex", "nearest_psd", "project_to_capped_simplex"]


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


def minimize_quadratic_on_simplex(
    quadratic: torch.Tensor, linear: torch.Tensor, upper: torch.Tensor | None = None
) -> torch.Tensor:
    """Minimize wᵀKw − 2wᵀc over 0 ≤ w ≤ upper, Σ w = 1, for a batch of problems at once.

    By accelerated projected gradient with restarts. As soon as the steps no longer change which
    weights are 0 or capped, the others are solved for directly, and the result is taken if it meets
    the optimality conditions; else the steps go on until none changes a weight by more than 1e-12.
    Where K and c differ between candidates by less than 1e-13 of the largest entry of K, the
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
    step = 1 / (2 * torch.linalg.eigvalsh(quadratic)[..., -1:].clamp(min=1e-300))
    k = shape[-1]
    if quadratic.dim() > 2:
        quadratic = quadratic.expand(*shape, k).reshape(-1, k, k)
    start = project_to_capped_simplex(torch.zeros_like(linear), upper)
    c, caps, first = (part.reshape(-1, k) for part in (linear, upper, start))
    steps = step.expand(*shape[:-1], 1).reshape(-1, 1)
    return descend(quadratic, c, caps, first, steps).reshape(shape)


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
