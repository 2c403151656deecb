"""Fréchet distance between Gaussians fitted to two sets, with shrunk covariances."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Moments", "frechet_distance", "frechet_of_moments", "moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a set, in float64.

    Args:
        mean: (d,) float64.
        covariance: (d, d) float64, symmetric.
        shrinkage: Weight of the scaled identity in the covariance, 0 to 1.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    shrinkage: float


def moments(points: torch.Tensor, *, shrink: bool = True) -> Moments:
    """Return mean and covariance of the rows, shrunk towards a multiple of the identity.

    (1 − ρ) S + ρ tr(S)/d I with the ρ of Ledoit and Wolf. S is the covariance with divisor n, or
    n − 1 without shrinkage.

    Args:
        points: (n, d) float32 or float64, n ≥ 2.
        shrink: Whether to shrink. Without shrinkage, fewer rows than columns give a singular
            covariance.

    Source: Ledoit and Wolf 2004, Journal of Multivariate Analysis 88, lemma 3.3.

    Example:
        >>> moments(torch.tensor([[0.0], [2.0]]), shrink=False).covariance
        tensor([[2.]], dtype=torch.float64)
    """
    n, d = points.shape
    # the Fréchet distance is a small difference of large traces: in float32, the rounding error
    # of a thousand columns is of the size of the difference between two good candidates
    mean = points.double().mean(0)
    # centered before the product: E[xxᵀ] − μμᵀ would cancel where the mean is far from 0
    centered = points.double() - mean
    scatter = centered.T @ centered
    if not shrink:
        return Moments(mean, scatter / (n - 1), 0.0)
    # why shrink: a real sample of a few hundred rows in 768 dimensions has a singular sample
    # covariance whose spectrum is far too spread out, and the distance would mostly measure that.
    # Ledoit and Wolf's ρ minimizes the expected squared error without a parameter to tune; their
    # estimate is defined for the divisor n
    covariance = scatter / n
    size = float(covariance.trace()) / d
    # ‖S − μI‖² and the mean over the rows of ‖xxᵀ − S‖², both expanded so that they need squared
    # norms only: no d × d matrix per row
    distance = float(covariance.square().sum()) - d * size**2
    noise = float(centered.square().sum(1).square().sum()) / n - float(covariance.square().sum())
    # a covariance that is already a multiple of the identity (or one point repeated) makes the
    # ratio 0/0; elsewhere rounding may leave it just outside 0..1
    shrinkage = min(1.0, max(0.0, noise / n / distance)) if distance > 0 else 0.0
    covariance = covariance * (1 - shrinkage)
    covariance.diagonal().add_(shrinkage * size)
    return Moments(mean, covariance, shrinkage)


def frechet_of_moments(real: Moments, synthetic: Moments) -> float:
    """Squared Fréchet distance from the moments of both sets; lower is closer.

    ‖μ_r − μ_s‖² + tr(Σ_r + Σ_s − 2 (Σ_r Σ_s)^½).

    Args:
        real: Moments of the real sample.
        synthetic: Moments of the candidate.

    Returns:
        Squared distance, 0 for equal moments, up to rounding.

    Example:
        >>> wide = moments(torch.tensor([[0.0], [4.0]]), shrink=False)
        >>> narrow = moments(torch.tensor([[1.0], [3.0]]), shrink=False)
        >>> round(frechet_of_moments(wide, narrow), 6)  # (√8 − √2)²
        2.0
    """
    # Σ_r Σ_s is not symmetric, and a general matrix root (scipy's sqrtm, as in the reference FID
    # code) returns complex numbers for singular covariances. Σ_r^½ Σ_s Σ_r^½ has the same
    # eigenvalues and is symmetric, so two real eigenvalue problems give the trace of the root
    values, vectors = torch.linalg.eigh(real.covariance)
    # eigenvalues that are 0 in exact arithmetic may round below it, and their root would be NaN
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inner = root @ synthetic.covariance @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    means = (real.mean - synthetic.mean).square().sum()
    return float(means + real.covariance.trace() + synthetic.covariance.trace() - 2 * cross)


def frechet_distance(real: torch.Tensor, synthetic: torch.Tensor, *, shrink: bool = True) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets, as in FID; lower is closer.

    ‖μ_r − μ_s‖² + tr(Σ_r + Σ_s − 2 (Σ_r Σ_s)^½).

    Args:
        real: (n, d) float32 or float64, n ≥ 2.
        synthetic: (N, d) float32 or float64, same device, N ≥ 2.
        shrink: Whether to shrink both covariances (Ledoit-Wolf).

    Returns:
        Squared distance, in squared units of the embeddings.

    Source: Dowson and Landau 1982; Heusel et al. 2017 (FID).

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3, shrink=False)
        9.0
    """
    return frechet_of_moments(moments(real, shrink=shrink), moments(synthetic, shrink=shrink))
