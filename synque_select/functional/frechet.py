"""Fréchet distance between two sets: Gaussians of their means and (shrunk) covariances."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Moments", "frechet_distance", "frechet_of_moments", "moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a set, kept as float64.

    Args:
        mean: (d,).
        covariance: (d, d).
        shrinkage: Share of the scaled identity in the covariance, 0 to 1.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    shrinkage: float


def moments(points: torch.Tensor, *, shrink: bool = True) -> Moments:
    """Mean and covariance of the rows, shrunk towards a multiple of the identity.

    (1 − ρ) S + ρ tr(S)/d I with the ρ of Ledoit and Wolf; S divides by n, or without shrinkage
    by n − 1.

    Args:
        points: (n, d) float32 or float64, n ≥ 2.
        shrink: Whether to shrink; without, fewer rows than columns give a singular covariance.

    Source: Ledoit and Wolf 2004, lemma 3.3.

    Example:
        >>> moments(torch.tensor([[0.0], [2.0]]), shrink=False).covariance
        tensor([[2.]], dtype=torch.float64)
    """
    n, d = points.shape
    mean = points.double().mean(0)
    centred = points.double() - mean
    scatter = centred.T @ centred
    if not shrink:
        return Moments(mean, scatter / (n - 1), 0.0)
    covariance = scatter / n
    size = float(covariance.trace()) / d
    # ‖S − μI‖² and the mean over rows of ‖x xᵀ − S‖² / n, from squared norms alone
    distance = float(covariance.square().sum()) - d * size**2
    noise = float(centred.square().sum(1).square().sum()) / n - float(covariance.square().sum())
    # a covariance that is a multiple of the identity already (or one point repeated) needs none
    shrinkage = min(1.0, max(0.0, noise / n / distance)) if distance > 0 else 0.0
    covariance = covariance * (1 - shrinkage)
    covariance.diagonal().add_(shrinkage * size)
    return Moments(mean, covariance, shrinkage)


def frechet_of_moments(real: Moments, synthetic: Moments) -> float:
    """‖μ_r − μ_s‖² + tr(Σ_r + Σ_s − 2 (Σ_r Σ_s)^½).

    The trace of the root is the sum of the roots of the eigenvalues of Σ_r^½ Σ_s Σ_r^½, clamped
    at 0: symmetric, so no complex numbers appear.
    """
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inner = root @ synthetic.covariance @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    means = (real.mean - synthetic.mean).square().sum()
    return float(means + real.covariance.trace() + synthetic.covariance.trace() - 2 * cross)


def frechet_distance(real: torch.Tensor, synthetic: torch.Tensor, *, shrink: bool = True) -> float:
    """Squared Fréchet distance of the two Gaussians (as in FID); lower is closer.

    ‖μ_r − μ_s‖² + tr(Σ_r + Σ_s − 2 (Σ_r Σ_s)^½).

    Args:
        real: (n, d) float32 or float64, n ≥ 2.
        synthetic: (N, d), N ≥ 2.
        shrink: Ledoit-Wolf shrinkage of both covariances.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (FID).

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3, shrink=False)
        9.0
    """
    return frechet_of_moments(moments(real, shrink=shrink), moments(synthetic, shrink=shrink))
