"""The draw of a surrogate validation set: which examples of the candidates it consists of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.duplicates import content_numbers
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, DataError
from synque_select.functional.importance import fit_importance_weights, kish_size
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.inputs import cross_fit_folds
from synque_select.utils.process_state import preserved_state
from synque_select.utils.wording import counted

__all__ = ["SurrogateDraw", "check_held_out", "draw_surrogate", "held_out"]

MIN_HELD_OUT = 5  # distinct examples of a candidate: an importance weight is relative to others
_POOL = 4  # held-out examples that are encoded per example drawn
_N_FOLDS = 5
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64


@dataclass(frozen=True, eq=False)
class SurrogateDraw:
    """The examples of a surrogate validation set, by position.

    Args:
        owners: (n,) int64 position of each example's candidate.
        positions: (n,) int64 position of each example in its candidate. An example with a large
            importance weight occurs several times.
        effective_sizes: (K,) float64 (Σw)²/Σw² of the importance weights of each candidate's
            held-out examples.
        messages: Sentences about the set for the user.
    """

    owners: NDArray[np.int64]
    positions: NDArray[np.int64]
    effective_sizes: NDArray[np.float64]
    messages: tuple[str, ...]


def held_out(candidate: Candidate, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Return which examples of a candidate are held out of training, (N,) bool.

    By content: equal views are all held out or all kept, in every candidate, so a copy of a
    validation example is never trained on.

    Args:
        candidate: The candidate.
        share: Expected share of the distinct views, 0 to 1.
        seed: Random seed.

    Example:
        >>> a = Candidate("a", [{"text": f"{i % 500}"} for i in range(1000)])
        >>> chosen = held_out(a, 0.2, seed=0)
        >>> bool((chosen[:500] == chosen[500:]).all()), bool(0.15 < chosen.mean() < 0.25)
        (True, True)
    """
    return _uniform(candidate, seed) < share


def check_held_out(candidate: Candidate, share: float, *, seed: int) -> None:
    """Check, without an encoder, that enough distinct examples would be held out of a candidate.

    Args:
        candidate: The candidate.
        share: Share of the distinct examples to hold out.
        seed: Random seed.

    Raises:
        DataError: There are fewer than 5.

    Example:
        >>> check_held_out(Candidate("a", [f"text {i}" for i in range(100)]), 0.2, seed=0)
    """
    _pool(candidate, share, MIN_HELD_OUT, seed)


def _uniform(candidate: Candidate, seed: int) -> NDArray[np.float64]:
    """(N,) numbers in [0, 1) that depend on content and seed: SplitMix64 of the content hash."""
    first, second, third = (np.uint64(number) for number in _MULTIPLIERS)
    with np.errstate(over="ignore"):
        x = content_numbers(candidate.digests) + np.uint64(seed + 1) * first
        x = (x ^ (x >> np.uint64(30))) * second
        x = (x ^ (x >> np.uint64(27))) * third
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def draw_surrogate(
    candidates: Sequence[Candidate],
    real: RealSample,
    families: Sequence[str],
    *,
    size: int,
    share: float,
    encoder: str | BaseEncoder | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> SurrogateDraw:
    """Draw a surrogate validation set from the held-out examples of all candidates.

    Every family gets the same number of examples, and every candidate the same number within its
    family. Within candidate c, held-out example i is drawn n_c·w_i/Σw times, rounded up or down
    (systematic resampling), where w_i is its importance weight p_real/p_synthetic from a domain
    classifier that is cross-fitted on the embeddings, clipped. The mean of a loss over c's part
    therefore estimates the importance-weighted mean over c. Parts are interleaved, so that any
    first m examples are nearly balanced, too.

    Args:
        candidates: The candidates.
        real: The real sample; its labels are not read.
        families: (K,) family of each candidate; at least two differ.
        size: Number of examples in all, rounded up to the same number per candidate of a family.
        share: Share of the distinct examples of each candidate that is held out.
        encoder: A model id or an encoder; None for the default of the modality.
        seed: Random seed of the held-out split, the folds and the draw.
        device: Device for encoding; None for a GPU if there is one.
        cache_dir: Directory of cached embeddings; None for the default cache.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: Candidates or families are fewer than two.
        DataError: A candidate has too few distinct examples.

    Source: importance-weighted validation, Sugiyama et al. 2007 (JMLR 8).
    """
    numbers = _numbers_per_candidate(families, size)
    pools = [
        _pool(candidate, share, _POOL * n, seed)
        for candidate, n in zip(candidates, numbers, strict=True)
    ]
    parts = [_part(candidate, pool) for candidate, pool in zip(candidates, pools, strict=True)]
    chosen = get_encoder(encoder, real.modality, device=device)
    try:
        rows = [
            embed(chosen, part, cache_dir=cache_dir, progress=progress).embeddings
            for part in (real, *parts)
        ]
    finally:
        chosen.close()
    sample = ProxyInput(
        real.name, real.views, real.modality, real.digests, rows[0], groups=real.groups
    )
    contents = [
        content_numbers(candidate.digests[pool])
        for candidate, pool in zip(candidates, pools, strict=True)
    ]
    with preserved_state():
        weights = _importance_weights(sample, rows[1:], contents, numbers, seed=seed)
    owners, positions, orders = [], [], []
    for k, (pool, weight, n) in enumerate(zip(pools, weights, numbers, strict=True)):
        rng = np.random.default_rng([seed, k])
        drawn = rng.permutation(_systematic(weight, n, rng))
        positions.append(pool[drawn])
        owners.append(np.full(n, k, dtype=np.int64))
        orders.append((np.arange(n) + 0.5) / n)
    interleaved = np.lexsort((np.concatenate(owners), np.concatenate(orders)))
    effective = np.array([float(kish_size(torch.from_numpy(weight))) for weight in weights])
    return SurrogateDraw(
        owners=np.concatenate(owners)[interleaved],
        positions=np.concatenate(positions)[interleaved],
        effective_sizes=effective,
        messages=_messages(candidates, families, numbers, [len(pool) for pool in pools], effective),
    )


def _numbers_per_candidate(families: Sequence[str], size: int) -> list[int]:
    names = set(families)
    if len(names) < 2:
        what = f"{len(families)} candidate" if len(families) < 2 else "candidates of one family"
        raise ConfigError(
            f"a surrogate validation set: found {what}; each candidate is measured on the "
            "examples of other families, so at least two are needed"
        )
    members = Counter(families)
    return [math.ceil(size / len(names) / members[name]) for name in families]


def _pool(candidate: Candidate, share: float, most: int, seed: int) -> NDArray[np.int64]:
    """Return the distinct held-out examples that may be drawn, at most `most` of them."""
    uniform = _uniform(candidate, seed)
    _, first = np.unique(content_numbers(candidate.digests), return_index=True)
    chosen = first[uniform[first] < share]
    if len(chosen) < MIN_HELD_OUT:
        raise DataError(
            f"{candidate.where}: {len(chosen)} of its {counted(len(first), 'distinct example')} "
            "are held out for the surrogate validation set; at least "
            f"{MIN_HELD_OUT} are needed: give a larger "
            "held_out, or leave the candidate out"
        )
    return chosen[np.argsort(uniform[chosen], kind="stable")][:most]


def _part(candidate: Candidate, positions: NDArray[np.int64]) -> Candidate:
    part: Subset[object] = Subset(candidate.dataset, positions.tolist())  # type: ignore[arg-type]
    return Candidate(candidate.name, part, candidate.selector, source=candidate.source)


def _systematic(
    weights: NDArray[np.float64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return n positions; i occurs ⌊n·w_i/Σw⌋ or ⌈n·w_i/Σw⌉ times, with mean n·w_i/Σw."""
    ends = np.cumsum(weights) / weights.sum()
    places = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(ends, places, side="right"), len(weights) - 1)


def _importance_weights(
    real: ProxyInput,
    parts: Sequence[torch.Tensor],
    contents: Sequence[NDArray[np.uint64]],
    numbers: Sequence[int],
    *,
    seed: int,
) -> list[NDArray[np.float64]]:
    """Return the weight of each row in its part: its clipped p_real / p_synthetic, scaled.

    The synthetic density is that of the set without weights, in which each candidate has its share
    however many of its examples are held out.

    Args:
        real: The real sample with its embeddings.
        parts: K tensors (m_k, d), the embeddings of held-out examples.
        contents: K arrays (m_k,), equal for equal examples.
        numbers: Number of examples that will be drawn from each part.
        seed: Random seed for the folds.

    Raises:
        DataError: The real sample or the parts have too few different examples.
    """
    folds = cross_fit_folds(real, np.concatenate(contents), _N_FOLDS, seed)
    if folds is None or real.embeddings is None:
        raise DataError(
            "a surrogate validation set: the real sample and the held-out examples each need two "
            "different examples, for a domain classifier that is trained on one and tested on the "
            "other"
        )
    sizes = [len(part) for part in parts]
    shares = np.repeat(np.divide(numbers, sizes), sizes)
    fitted = fit_importance_weights(
        real.embeddings.float(),
        torch.cat([part.float() for part in parts]),
        torch.from_numpy(shares)[None],
        torch.from_numpy(folds),
    )
    return np.split(fitted.weights[0].numpy(), np.cumsum(sizes)[:-1])


def _messages(
    candidates: Sequence[Candidate],
    families: Sequence[str],
    numbers: Sequence[int],
    n_held_out: Sequence[int],
    effective: NDArray[np.float64],
) -> tuple[str, ...]:
    n = sum(numbers)
    shares = np.array(numbers) / n
    # the variance of a mean with these shares, each part's mean over its effective number
    total = 1 / float((shares**2 / effective).sum())
    least = int(effective.argmin())
    n_families = len(set(families))
    grouped = (
        "" if n_families == len(candidates) else f" in {counted(n_families, 'family', 'families')}"
    )
    messages = [
        f"surrogate validation: {counted(n, 'example')} of "
        f"{counted(len(candidates), 'candidate')}{grouped}, no "
        f"labeled real example; drawn from {sum(n_held_out):,} held-out ones, whose effective "
        f"number by importance weights is {total:,.0f} (least: {effective[least]:,.1f} of "
        f"{n_held_out[least]} in {candidates[least].name})"
    ]
    few = [c.name for c, e in zip(candidates, effective, strict=True) if e < MIN_HELD_OUT]
    if few:
        messages.append(
            f"surrogate validation: hardly any held-out example of {_listed(few)} is like the real "
            "sample: what is measured on them depends on a few examples"
        )
    return tuple(messages)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
