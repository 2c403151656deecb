"""How hard an example is for models that were trained on the other candidates."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.transfer import Heads

__all__ = ["LARGEST_LOSS", "surrogate_loss"]

_LEAST_CHANCE = 1e-6
LARGEST_LOSS = -math.log(_LEAST_CHANCE)
_ROWS_AT_ONCE = 8192


def surrogate_loss(
    heads: Heads,
    features: torch.Tensor,
    labels: NDArray[np.int64],
    *,
    families: NDArray[np.int64],
    own: int,
) -> NDArray[np.float64]:
    r"""Return the cross-entropy of each label of a candidate under the heads of other families.

    .. math:: \ell_i = -\log \max\left(10^{-6}, \frac{1}{|F_i|} \sum_{f \in F_i}
        p_f(y_i \mid x_i)\right)

    where F_i are the other families that know the class of example i, and p_f is the mean over the
    candidates of the family, each of which is the mean over its heads. So each family has the same
    weight, however many candidates it has. A head knows a class if its training rows contain it and
    at least one other class. If no other family knows the class, the loss is the largest,
    −log 10⁻⁶ ≈ 13.8: a model that was trained on the others has never seen it.

    Args:
        heads: Heads of K candidates, with exclusive classes.
        features: (n, d) examples of one candidate, on the device of the heads.
        labels: (n,) int64, the class of each example.
        families: (K,) int64 family of each candidate that has heads, not negative.
        own: The family of the examples, whose heads do not count.

    Returns:
        (n,) float64, from 0 to `LARGEST_LOSS`; higher is harder.

    Example:
        >>> from synque_select.functional.transfer import fit_heads
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> y, one_hot = torch.tensor([0, 0, 1, 1]), torch.nn.functional.one_hot
        >>> heads = fit_heads([x, x], [one_hot(y).bool()] * 2)
        >>> swapped = np.array([1, 0, 1, 1])
        >>> surrogate_loss(heads, x, swapped, families=np.arange(2), own=0).round(2).tolist()
        [2.14, 0.31, 0.31, 0.13]
    """
    losses = np.full(len(labels), LARGEST_LOSS)
    of_heads = torch.from_numpy(families).to(heads.owners.device)[heads.owners]
    judges = _part(heads, torch.nonzero(of_heads != own).flatten())
    for first in range(0, len(labels) if len(judges) else 0, _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        chances, known = _chances(judges, features[rows], torch.from_numpy(labels[rows]))
        chances, known = _means(chances, known, judges.owners.cpu())
        chances, known = _means(chances, known, torch.from_numpy(families[: len(chances)]))
        chances, known = _means(chances, known, torch.zeros(len(chances), dtype=torch.int64))
        losses[rows] = -chances[0].clamp(_LEAST_CHANCE, 1.0).log().numpy()
    return losses


def _part(heads: Heads, at: torch.Tensor) -> Heads:
    return Heads(heads.coefficients[at], heads.known[at], heads.owners[at], heads.exclusive)


def _chances(heads: Heads, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each head's probability of the labels, (H, n) float64, and which classes it knows."""
    place = y.to(x.device).view(1, -1, 1)
    parts = []
    for part in heads.batches(len(x)):
        chances = part.probabilities(x)
        parts.append(chances.gather(2, place.expand(len(part), -1, -1))[..., 0].double().cpu())
    known = heads.known.cpu()
    return torch.cat(parts), known[:, y] & (known.sum(1, keepdim=True) > 1)


def _means(
    values: torch.Tensor, known: torch.Tensor, groups: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of the known values of each group, 0 without any, and which are known.

    Args:
        values: (G, n).
        known: (G, n) bool.
        groups: (G,) int64 group of each row.

    Returns:
        Two tensors (number of groups, n).
    """
    n_groups = int(groups.max()) + 1
    sums = values.new_zeros(n_groups, values.shape[1]).index_add_(0, groups, values * known)
    counts = values.new_zeros(n_groups, values.shape[1]).index_add_(0, groups, known.to(values))
    return sums / counts.clamp_min(1), counts > 0
