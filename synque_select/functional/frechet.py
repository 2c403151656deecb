"""Fréchet distance between Gaussians fitted to two sets, with shrunk covariances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

__all__ = ["Moments", "frechet_distance", "frechet_distances", "frechet_of_moments", "moments"]


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

    @cached_property
    def root(self) -> torch.Tensor:
        """(d, d) float64 symmetric root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        # eigenvalues that are 0 in exact arithmetic may round below it, and their root would be NaN
        root: torch.Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        return root


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
    mean, covariance, shrinkage = _moments(points[None], shrink=shrink)
    return Moments(mean[0], covariance[0], float(shrinkage[0]))


def _moments(
    points: torch.Tensor, *, shrink: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means (G, d), covariances (G, d, d) and shrinkages (G,) of stacked sets (G, n, d)."""
    _, n, d = points.shape
    # the Fréchet distance is a small difference of large traces: in float32, the rounding error
    # of a thousand columns is of the size of the difference between two good candidates
    mean = points.double().mean(1, keepdim=True)
    # centered before the product: E[xxᵀ] − μμᵀ would cancel where the mean is far from 0
    centered = points.double() - mean
    scatter, mean = centered.mT @ centered, mean.squeeze(1)
    if not shrink:
        return mean, scatter / (n - 1), mean.new_zeros(len(points))
    # why shrink: a real sample of a few hundred rows in 768 dimensions has a singular sample
    # covariance whose spectrum is far too spread out, and the distance would mostly measure that.
    # Ledoit and Wolf's ρ minimizes the expected squared error without a parameter to tune; their
    # estimate is defined for the divisor n
    covariance = scatter / n
    size, square = _traces(covariance) / d, covariance.square().sum((1, 2))
    # ‖S − μI‖² and the mean over the rows of ‖xxᵀ − S‖², both expanded so that they need squared
    # norms only: no d × d matrix per row
    distance = square - d * size.square()
    noise = centered.square().sum(2).square().sum(1) / n - square
    # a covariance that is already a multiple of the identity (or one point repeated) makes the
    # ratio 0/0; elsewhere rounding may leave it just outside 0..1
    shrinkage = torch.where(distance > 0, (noise / n / distance).clamp(0, 1), 0.0)
    covariance = covariance * (1 - shrinkage).view(-1, 1, 1)
    covariance.diagonal(dim1=1, dim2=2).add_((shrinkage * size).unsqueeze(1))
    return mean, covariance, shrinkage


def _traces(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


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
    return float(_distances(real, synthetic.mean[None], synthetic.covariance[None])[0])


def frechet_distances(real: Moments, stacked: torch.Tensor, *, shrink: bool = True) -> torch.Tensor:
    """Return the `frechet_distance` of several sets of one size from the real sample.

    Args:
        real: Moments of the real sample.
        stacked: (G, N, d) float32 or float64 rows of G sets, same device, N ≥ 2.
        shrink: Whether to shrink the covariances of the sets (Ledoit-Wolf).

    Returns:
        (G,) float64 squared distances.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distances(moments(x), torch.stack((x, x + 3))).tolist()
        [0.0, 9.0]
    """
    mean, covariance, _ = _moments(stacked, shrink=shrink)
    return _distances(real, mean, covariance)


def _distances(real: Moments, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """(G,) squared distances from means (G, d) and covariances (G, d, d)."""
    # Σ_r Σ_s is not symmetric, and a general matrix root (scipy's sqrtm, as in the reference FID
    # code) returns complex numbers for singular covariances. Σ_r^½ Σ_s Σ_r^½ has the same
    # eigenvalues and is symmetric, so real eigenvalue problems give the trace of the root
    root = real.root
    inner = root @ covariance @ root
    cross = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp_min(0).sqrt().sum(1)
    means = (real.mean - mean).square().sum(1)
    distances: torch.Tensor = means + real.covariance.trace() + _traces(covariance) - 2 * cross
    return distances


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
    sample = moments(real, shrink=shrink)
    return float(frechet_distances(sample, synthetic[None], shrink=shrink)[0])
