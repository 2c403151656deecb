"""How often the example nearest to a real one is synthetic, with as many of either kind."""

from __future__ import annotations

import torch

from synque_select.functional.coverage import order_weights
from synque_select.functional.pairwise import count_nearer, sq_distances

__all__ = ["nearest_is_synthetic"]


def nearest_is_synthetic(real: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    """Chance that the example nearest to each real one is synthetic rather than real.

    Of m random synthetic and m random other real examples, with m the size of the smaller side:
    P(min_m d(x_i, synthetic) < min_m d(x_i, real)), exactly, over draws without replacement. The
    mean is ½ if both come from one distribution, 0 if all real examples are nearer, and 1 for
    copies. It compares distances at the same size and in the same place, so that neither the
    number of examples nor the variety of the real ones moves it.

    Args:
        real: (n, d) float32 or float64.
        synthetic: (N, d) any float dtype; read in blocks.

    Returns:
        (n,) float64, 0 to 1; NaN if there is only one real example.

    Source: the nearest-neighbor test of two samples (Schilling 1986, JASA 81; Henze 1988), here
        for the real examples alone.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [3.0]])
        >>> near, far = torch.tensor([[0.1], [1.2], [2.9]]), torch.tensor([[50.0]])
        >>> nearest_is_synthetic(real, near).mean() > 0.5
        tensor(True)
        >>> nearest_is_synthetic(real, far).tolist()
        [0.0, 0.0, 0.0]
    """
    n_others = len(real) - 1
    m = min(n_others, len(synthetic))
    if m == 0:
        return torch.full((len(real),), torch.nan, dtype=torch.float64, device=real.device)
    # the chance that none of the j nearest is drawn, for j = 0, 1, …
    drawn = order_weights(len(synthetic), m).to(real.device)
    missed = torch.cat((drawn.new_ones(1), (1 - drawn.cumsum(0)).clamp_min(0)))
    distances = sq_distances(real, real).double().clamp(min=0).sqrt()
    weights = order_weights(n_others, m).to(real.device)
    nearest = distances.fill_diagonal_(torch.inf).sort(dim=1).values[:, : len(weights)].contiguous()
    closer, ties = (
        counts.clamp(max=len(drawn)) for counts in count_nearer(real, synthetic, nearest)
    )
    # a tie of a real and a synthetic example counts half
    chance = 1 - (missed[closer] + missed[ties]) / 2
    return chance @ weights
