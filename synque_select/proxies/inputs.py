"""What proxies over embeddings share: usable candidates, the common size, draws by content."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.duplicates import content_numbers
from synque_select.errors import ConfigError, ProxyError, did_you_mean
from synque_select.functional.pairwise import largest_entry, precise, working_dtype
from synque_select.proxies.base import ProxyInput, ProxyScores

__all__ = [
    "Prepared",
    "Protocol",
    "check_choice",
    "check_count",
    "content_order",
    "example_groups",
    "parts_of",
    "score_defined",
    "size_message",
    "undefined_scores",
]

Protocol = Literal["default", "released"]
Choice = TypeVar("Choice", bound=str)

_MIX = np.uint64(0x9E3779B97F4A7C15)


def check_choice(name: str, value: Choice, allowed: Any) -> Choice:
    """Return an option's value if it is one of a Literal's, else raise ConfigError."""
    if value not in get_args(allowed):
        raise ConfigError(f"{name}={value!r}: {did_you_mean(str(value), get_args(allowed))}")
    return value


def check_count(name: str, value: int, *, at_least: int) -> int:
    """Return an option's value if it is a whole number large enough, else raise ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name}={value!r}: allowed is a whole number from {at_least} on")
    return value


@dataclass(frozen=True)
class Prepared:
    """The real sample and the candidates that can be scored, on the device to compute on.

    Args:
        real: (n, d) float32, or float64 where values are too large for float32 products.
        inputs: The candidates.
        real_input: The real sample as given.
    """

    real: torch.Tensor
    inputs: tuple[ProxyInput, ...]
    real_input: ProxyInput

    def common_size(self, at_most: int | None = None) -> int:
        """Size of the smallest candidate, or the setting where that is smaller."""
        smallest = min(len(candidate) for candidate in self.inputs)
        return smallest if at_most is None else min(smallest, at_most)

    def embeddings(self, position: int) -> torch.Tensor:
        """Return a candidate's embeddings as they are given (any device, a memory map)."""
        return embeddings_of(self.inputs[position])

    def rows(self, position: int, chosen: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Return a candidate's embeddings (or chosen rows) on the device, in the dtype of real."""
        embeddings = self.embeddings(position)
        if chosen is not None:
            embeddings = embeddings[torch.from_numpy(chosen).to(embeddings.device)]
        return embeddings.to(self.real)


def parts_of(total: int, weights: torch.Tensor) -> list[int]:
    """Return how many of `total` draws fall to each weight: whole numbers by largest remainder.

    Example:
        >>> parts_of(10, torch.tensor([0.55, 0.45, 0.0]))
        [6, 4, 0]
    """
    ideal = weights.double() * total
    counts = ideal.floor()
    order = (counts - ideal).argsort(stable=True)
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def size_message(prepared: Prepared, m: int, how: str) -> tuple[str, ...]:
    """Say at which common size the candidates were scored, where one of them is larger."""
    larger = sum(len(part) > m for part in prepared.inputs)
    if not larger:
        return ()
    return (f"scored at a common size of {m} examples {how} ({larger} candidates have more)",)


def embeddings_of(part: ProxyInput) -> torch.Tensor:
    """Return the embeddings, or say that they are missing."""
    if part.embeddings is None:
        raise ProxyError(f"{part.name}: this proxy needs embeddings, and there are none")
    return part.embeddings


def score_defined(
    real: ProxyInput,
    candidates: Sequence[ProxyInput],
    device: torch.device,
    score: Callable[[Prepared], ProxyScores],
) -> ProxyScores:
    """Score the candidates whose embeddings are finite; the others are undefined, with a message.

    Runs `score` without gradients and with full float32 products.
    """
    finite = [_is_finite(embeddings_of(candidate)) for candidate in candidates]
    sample = embeddings_of(real)
    if not _is_finite(sample) or not any(finite):
        reason = "the real sample's embeddings" if any(finite) else "all candidates' embeddings"
        return undefined_scores(len(candidates), f"undefined: {reason} are not finite")
    usable = tuple(part for part, good in zip(candidates, finite, strict=True) if good)
    dtype = working_dtype(sample, *(embeddings_of(part) for part in usable))
    with precise():
        scores = score(Prepared(sample.to(device=device, dtype=dtype), usable, real))
    if all(finite):
        return scores
    names = ", ".join(part.name for part, good in zip(candidates, finite, strict=True) if not good)
    message = f"undefined for {names}: embeddings that are not finite"
    positions = [position for position, good in enumerate(finite) if good]
    return _spread_out(scores, positions, [len(part) for part in candidates], message)


def _is_finite(embeddings: torch.Tensor) -> bool:
    return math.isfinite(largest_entry(embeddings))


def undefined_scores(n_candidates: int, message: str) -> ProxyScores:
    """Return scores that are all NaN."""
    values = torch.full((n_candidates,), torch.nan, dtype=torch.float64)
    return ProxyScores(values, messages=(message,), reliable=False)


def _spread_out(
    scores: ProxyScores, positions: list[int], sizes: Sequence[int], message: str
) -> ProxyScores:
    """Put the scores of the usable candidates at their positions among all, NaN elsewhere."""

    def widen(values: torch.Tensor) -> torch.Tensor:
        wide = values.new_full((*values.shape[:-1], len(sizes)), torch.nan)
        wide[..., positions] = values
        return wide

    resample, examples = scores.resample, scores.example_scores

    def example_scores(position: int) -> torch.Tensor:
        if examples is None or position not in positions:
            return torch.full((sizes[position],), torch.nan, dtype=torch.float64)
        return examples(positions.index(position))

    def mixture(weights: torch.Tensor) -> float:
        usable = weights[positions]
        if scores.mixture is None or not math.isclose(float(usable.sum()), 1):
            return math.nan  # a part of it is undefined
        return scores.mixture(usable)

    return replace(
        scores,
        values=widen(scores.values),
        spread=None if scores.spread is None else widen(scores.spread),
        p_values=None if scores.p_values is None else widen(scores.p_values),
        resample=None if resample is None else lambda weights: widen(resample(weights)),
        example_scores=None if examples is None else example_scores,
        mixture=None if scores.mixture is None else mixture,
        messages=(*scores.messages, message),
    )


def example_groups(part: ProxyInput) -> NDArray[np.uint64]:
    """Return a number for each example's content, (n,) uint64: equal where the views are equal."""
    return content_numbers(part.digests)


def content_order(part: ProxyInput, seed: int) -> NDArray[np.int64]:
    """Return a random order of the examples that depends on content and seed only.

    The first m of it are a random subsample without replacement which does not change when the
    rows are permuted. Copies of one example are ordered apart from each other.

    Returns:
        (n,) int64 positions.
    """
    groups = example_groups(part)
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    starts = np.r_[True, ranked[1:] != ranked[:-1]]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(ranked)), 0))
    copies = np.empty(len(ranked), dtype=np.uint64)
    copies[order] = np.arange(len(ranked), dtype=np.uint64) - first.astype(np.uint64)
    return np.argsort(_mix(groups + _mix(copies + _mix(np.full(1, seed, np.uint64)))))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: a fixed, well mixing map of 64 bits."""
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
