"""Whether more real examples would change the selection, from disjoint halves of the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.errors import ConfigError, ProxyError
from synque_select.functional.ranks import mean_ranks
from synque_select.selection.ranking import border_gap, judged_order, redrawn_order
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import n_units
from synque_select.types import SampleSizeAgreement, SampleSizeAnalysis
from synque_select.types.decision import LEAST_REAL

__all__ = ["sample_size_analysis"]

_LARGER = (2, 4, 8)
# error times √m may differ by this factor between the measured sizes: with 200 pairs, that of a
# mean differs by up to 1.2
_STEADY = 1.3


def sample_size_analysis(
    scoring: Scoring,
    *,
    top_k: int | None = None,
    rank_by: str | None = None,
    sizes: Sequence[int] | None = None,
    n_pairs: int = 200,
) -> SampleSizeAnalysis:
    """Compare the selections by disjoint subsets of the real sample, at sizes up to n/2.

    Subsets that share examples agree by construction, so only disjoint ones are compared. For the
    same reason, an order by a proxy whose judges are the other candidates is refused: all subsets
    share the judges, and more real examples do not reduce the error that comes from them. The error
    of the gap at the border of the top k is that of a score, or of the sum over the proxies of the
    consensus of differences in units of their errors. It is extrapolated as 1/√n only if the
    measured errors fall that way.

    Args:
        scoring: The result of `score`; nothing is encoded or fitted again.
        top_k: How many candidates are selected; None for the better half, rounded up.
        rank_by: As in `rank`.
        sizes: Sizes of the subsets; None for n/2, n/4 and n/8, as far as they are 5 or more.
        n_pairs: Number of random pairs per size.

    Raises:
        ConfigError: top_k is not in 1..K−1, or a size is not in 2..n/2.
        ProxyError: What ranks has no contribution of each real example or depends on judges, or
            there are fewer than 20 real examples (groups of them, where they are in groups).
    """
    n, n_candidates = len(scoring.real), len(scoring.candidates)
    top_k = (n_candidates + 1) // 2 if top_k is None else top_k
    if not 1 <= top_k < n_candidates:
        raise ConfigError(f"top_k={top_k}: allowed is 1 to {n_candidates - 1}")
    sizes = _sizes(n) if sizes is None else sorted(set(sizes))
    if not sizes or not all(2 <= m <= n // 2 for m in sizes):
        raise ConfigError(f"sizes={list(sizes)}: allowed is 2 to {n // 2}, half the real sample")
    units = n_units(n, scoring.groups)
    if units < LEAST_REAL:
        what = "real examples" if scoring.groups is None else "groups of real examples"
        raise ProxyError(
            f"a sample-size analysis takes at least {LEAST_REAL} {what}, as halves of fewer say "
            f"nothing of chance; found {units}"
        )
    judged = judged_order(scoring, rank_by)
    if judged is not None:
        raise ProxyError(
            f"a sample-size analysis is not possible for an order by {judged}: the candidates "
            "judge each other there, and more real examples do not make them better judges; rank "
            "by another proxy, such as mmd or pad"
        )
    whole = _values(scoring, rank_by, torch.full((1, n), 1 / n, dtype=torch.float64))[0]
    order = whole.argsort(stable=True).tolist()
    # a smooth function of the real sample: mean ranks are not, and their error does not fall as
    # 1/√n
    gap = border_gap(scoring, rank_by, order[top_k - 1], order[top_k])
    generator = np.random.default_rng(scoring.seed)
    measured = tuple(_agreement(scoring, rank_by, m, n_pairs, top_k, gap, generator) for m in sizes)
    reason = _not_falling(measured)
    last = measured[-1]
    extrapolated = {
        size: last.border_error * (last.m / size) ** 0.5
        for size in (n, *(f * n for f in _LARGER))
        if reason is None
    }
    return SampleSizeAnalysis(
        measured,
        extrapolated,
        float(gap(torch.full((1, n), 1 / n, dtype=torch.float64))[0]),
        top_k / n_candidates,
        top_k,
        unit=gap.unit,
        no_extrapolation=reason,
    )


def _not_falling(measured: Sequence[SampleSizeAgreement]) -> str | None:
    """Return why errors must not be extrapolated, or None."""
    scaled = [row.border_error * row.m**0.5 for row in measured]
    if not all(np.isfinite(scaled)) or min(scaled) <= 0:
        return "not extrapolated: the error of the gap could not be measured"
    if len(measured) < 2:
        return "not extrapolated: with one size, it cannot be seen whether the error falls as 1/√n"
    if max(scaled) > _STEADY * min(scaled):
        errors = ", ".join(f"{row.border_error:.2g} at {row.m}" for row in measured)
        return f"not extrapolated: the measured errors do not fall as 1/√n ({errors})"
    return None


def _sizes(n: int) -> list[int]:
    sizes = sorted({m for m in (n // 8, n // 4, n // 2) if m >= 5})
    return sizes or [n // 2]


def _values(scoring: Scoring, rank_by: str | None, weights: torch.Tensor) -> torch.Tensor:
    """Return (B, K) values under these weights, lower is better."""
    values = redrawn_order(scoring, rank_by, weights)
    if values is None:
        raise ProxyError(
            "a sample-size analysis needs a proxy that can be scored on parts of the real sample: "
            "the one that ranks gives no contribution of each real example; rank by another one, "
            "such as mmd or pad"
        )
    return values


def _agreement(
    scoring: Scoring,
    rank_by: str | None,
    m: int,
    n_pairs: int,
    top_k: int,
    gap: Callable[[torch.Tensor], torch.Tensor],
    generator: np.random.Generator,
) -> SampleSizeAgreement:
    n = len(scoring.real)
    units = n_units(n, scoring.groups)
    # with groups, as large a share of the groups as m is of the examples
    size = max(1, m * units // n)
    orders = generator.permuted(np.tile(np.arange(units), (n_pairs, 1)), axis=1)
    weights = [
        _subset_weights(part, units, scoring.groups)
        for part in (orders[:, :size], orders[:, size : 2 * size])
    ]
    first, second = (_values(scoring, rank_by, part) for part in weights)
    gaps = [gap(part) for part in weights]
    return SampleSizeAgreement(
        m=m,
        n_pairs=n_pairs,
        overlap=float(
            (_top(first, top_k) & _top(second, top_k)).double().sum(dim=1).mean() / top_k
        ),
        spearman=_mean_spearman(first, second),
        # two independent estimates of one gap: half the mean squared difference is its variance
        border_error=float(((gaps[0] - gaps[1]) ** 2).mean() / 2) ** 0.5,
    )


def _subset_weights(
    chosen: NDArray[np.int64], units: int, groups: NDArray[np.int64] | None
) -> torch.Tensor:
    """Return (B, n) equal weights of the examples in the chosen units, (B, m)."""
    inside = torch.zeros(len(chosen), units, dtype=torch.float64)
    inside.scatter_(1, torch.from_numpy(chosen), 1.0)
    if groups is not None:
        inside = inside[:, torch.from_numpy(groups)]
    return inside / inside.sum(dim=1, keepdim=True)


def _top(values: torch.Tensor, k: int) -> torch.Tensor:
    chosen = torch.zeros_like(values, dtype=torch.bool)
    return chosen.scatter_(1, values.argsort(dim=1, stable=True)[:, :k], value=True)


def _mean_spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = (mean_ranks(values.numpy()) for values in (first, second))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    defined = scale > 0
    return (
        float(((a * b).sum(axis=1)[defined] / scale[defined]).mean()) if defined.any() else np.nan
    )
