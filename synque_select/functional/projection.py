"""Random projection of long vectors, such as gradients, to a few dimensions."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from synque_select.utils.validation import check_int

__all__ = ["random_projection"]

_MAX_ENTRIES = 1 << 24  # entries of the random matrix in memory at a time: 64 MiB of float32


def random_projection(vectors: torch.Tensor, n_dims: int, *, seed: int = 0) -> torch.Tensor:
    r"""Project vectors to fewer dimensions so that inner products are preserved in expectation.

    Row x becomes :math:`Rx`, where the entries of R, of shape (n_dims, d), are
    :math:`\pm 1/\sqrt{\text{n\_dims}}` with equal probability. For all x and y

    .. math:: E\,\langle Rx, Ry\rangle = \langle x, y\rangle, \qquad
        \operatorname{Var}\langle Rx, Ry\rangle \le
        \frac{\lVert x\rVert^2 \lVert y\rVert^2 + \langle x, y\rangle^2}{\text{n\_dims}}.

    R depends only on the seed and its shape, not on the device, and is made in blocks of columns
    of at most 64 MiB, so that memory does not grow with d. Vectors that are not longer than
    `n_dims` are returned as they are.

    Args:
        vectors: (n, d) vectors.
        n_dims: Number of dimensions of the result.
        seed: Random seed of R.

    Returns:
        (n, n_dims) float32, or `vectors` in float32 if d ≤ n_dims.

    Raises:
        ConfigError: `n_dims` is not positive, or the seed is negative.

    Source:
        Johnson and Lindenstrauss 1984; signs instead of normal entries: Achlioptas 2003 (JCSS 66).
        For gradients: TRAK (arXiv 2303.14186).

    Example:
        >>> x = torch.ones(1, 1000)
        >>> round((random_projection(x, 400) @ random_projection(x, 400).T).item() / 1000)
        1
    """
    check_int("n_dims", n_dims, 1)
    check_int("seed", seed, 0)
    vectors = vectors.float()
    length = vectors.shape[1]
    if length <= n_dims:
        return vectors
    width = max(1, _MAX_ENTRIES // n_dims)
    total = vectors.new_zeros(len(vectors), n_dims)
    for number, start in enumerate(range(0, length, width)):
        part = vectors[:, start : start + width]
        signs = _signs(part.shape[1], n_dims, seed, number)
        total += part @ signs.to(vectors.device)
    return total / math.sqrt(n_dims)


@lru_cache(maxsize=1)  # vectors of one block or fewer meet the same signs in each batch
def _signs(n_rows: int, n_dims: int, seed: int, block: int) -> torch.Tensor:
    """Return (n_rows, n_dims) random signs of a block of columns of R, transposed."""
    generator = torch.Generator().manual_seed((seed << 24) + block)
    signs = torch.empty(n_rows, n_dims)
    return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
