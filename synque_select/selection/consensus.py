"""The consensus: equal-weight Borda count over one proxy per family, by mid-ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.ranks import tied_ranks
from synque_select.proxies.base import BaseProxy, ProxyScores

__all__ = ["CONSENSUS", "borda", "consensus_members", "may_enter", "midranks"]

CONSENSUS = "consensus"
_LEFT_OUT = ("diversity", "baseline", "labels")
# the share of a typical score up to which a difference is a rounding error
_ROUNDING = 1e-6


def midranks(values: torch.Tensor, *, higher_is_better: bool) -> torch.Tensor:
    """Rank along the last dimension: 1 is best, ties averaged, NaN stays NaN.

    Values are tied if no gap between neighbors among them is above 1e-6 of the median size of the
    values: scores are computed from float32 embeddings, whose rounding error is 6e-8, and the same
    data in another order or beside other candidates can give a score that differs by as much.

    Args:
        values: (..., K) scores.
        higher_is_better: Orientation.

    Returns:
        (..., K) float64.

    Example:
        >>> midranks(torch.tensor([0.2, 0.1, 0.2]), higher_is_better=False).tolist()
        [2.5, 1.0, 2.5]
    """
    array = values.detach().to("cpu", torch.float64).numpy()
    return torch.from_numpy(_ranks(-array if higher_is_better else array))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank along the last axis, ascending; values that are equal up to rounding are tied."""
    unknown = np.isnan(values)
    # of several hundred columns, `nanmedian` takes the rows one at a time
    median = np.nanmedian if unknown.any() else np.median
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all values are NaN
        # the median rather than the largest, which one candidate without bounds could set for all
        tolerance = _ROUNDING * median(np.abs(values), axis=-1, keepdims=True)
        order = np.argsort(values, axis=-1)  # NaN last
        ascending = np.take_along_axis(values, order, axis=-1)
        differs = (np.diff(ascending, axis=-1) > tolerance) | np.isnan(ascending[..., 1:])
    return np.where(unknown, np.nan, tied_ranks(order, differs))


def borda(scores: Mapping[str, torch.Tensor], higher_is_better: Mapping[str, bool]) -> torch.Tensor:
    """Mean of the proxies' mid-ranks; lower is better.

    Equal weights, nothing tuned. Borda depends on which other candidates are present, so read a gap
    between two candidates in the proxies' own scores.

    Args:
        scores: Proxy key to (..., K) scores; all of one shape.
        higher_is_better: Proxy key to orientation.

    Returns:
        (..., K) float64 mean ranks; NaN where any proxy is undefined.

    Example:
        >>> scores = {"pad": torch.tensor([1.0, 1.5]), "mauve": torch.tensor([0.9, 0.2])}
        >>> borda(scores, {"pad": False, "mauve": True}).tolist()
        [1.0, 2.0]
    """
    # ranks, as proxies have no common unit; unweighted, as there is nothing to tune weights on
    ranks = [midranks(v, higher_is_better=higher_is_better[key]) for key, v in scores.items()]
    return torch.stack(ranks).mean(dim=0)


def may_enter(proxy: BaseProxy) -> bool:
    """Whether the proxy's family may be in a consensus at all.

    Diversity alone is maximised by noise, and a baseline never reads the real sample. What reads
    labels is a column of its own: as one of five ranks it would be outvoted by proxies that read
    inputs only, and agreement rewards candidates that share a mistake.
    """
    return proxy.family not in _LEFT_OUT and not proxy.needs_labels


def consensus_members(
    suite: Sequence[BaseProxy], scores: Mapping[str, ProxyScores]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the proxies that enter the consensus: the first of each family that may.

    Diversity, baselines and what reads labels never enter; nor does a proxy that calls itself
    unreliable on this input, or that is undefined for a candidate.

    Returns:
        The keys, and a sentence about each proxy that is left out although its family may enter, if
        there is a consensus.
    """
    # one per family: proxies of a family are nearly copies, and would outvote the others
    members: dict[str, str] = {}
    messages = []
    for proxy in suite:
        if not may_enter(proxy):
            continue
        reason = _why_not(proxy, scores[proxy.key], members)
        if reason:
            messages.append(f"{proxy.key} is shown but not in the consensus: {reason}.")
        else:
            members[proxy.family] = proxy.key
    # without a consensus, nothing is left out of it
    return tuple(members.values()), tuple(messages) if members else ()


def _why_not(proxy: BaseProxy, scores: ProxyScores, members: Mapping[str, str]) -> str | None:
    if not scores.reliable:
        return "it is not reliable on this input"
    if not bool(torch.isfinite(scores.values).all()):
        return "it is undefined for a candidate"
    if proxy.family in members:
        return f"{members[proxy.family]} already represents the family {proxy.family!r}"
    return None
