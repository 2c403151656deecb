"""Shared code of the embedding proxies: usable candidates, common size, random subsamples."""

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
from synque_select.functional.folds import joined_contents, stratified_folds
from synque_select.functional.pairwise import (
    SAFE_FLOAT32,
    largest_entries,
    largest_entry,
    precise,
)
from synque_select.proxies.base import ProxyInput, ProxyScores
from synque_select.utils.wording import counted

__all__ = [
    "Prepared",
    "Protocol",
    "check_choice",
    "check_count",
    "content_order",
    "cross_fit_folds",
    "embeddings_of",
    "example_groups",
    "is_finite",
    "mixture_of_defined",
    "parts_of",
    "real_groups",
    "score_defined",
    "similar_sizes",
    "size_message",
    "sizes_of",
    "undefined_scores",
]

Protocol = Literal["default", "released"]
Choice = TypeVar("Choice", bound=str)

# increment of SplitMix64: 2^64 divided by the golden ratio, an odd number
_MIX = np.uint64(0x9E3779B97F4A7C15)


def check_choice(name: str, value: Choice, allowed: Any) -> Choice:
    """Return the value of an option.

    Args:
        name: Name of the option, for the error message.
        value: Value to check.
        allowed: The `Literal` type that lists the allowed values.

    Raises:
        ConfigError: The value is not one of the allowed values.
    """
    if value not in get_args(allowed):
        raise ConfigError(f"{name}={value!r}: {did_you_mean(str(value), get_args(allowed))}")
    return value


def check_count(name: str, value: int, *, at_least: int) -> int:
    """Return the value of an option that is a whole number.

    Args:
        name: Name of the option, for the error message.
        value: Value to check.
        at_least: Smallest allowed value.

    Raises:
        ConfigError: The value is not a whole number, or it is too small.
    """
    # bool is a subclass of int: `k: true` in a YAML file would silently mean k = 1
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name}={value!r}: allowed is a whole number from {at_least}")
    return value


@dataclass(frozen=True)
class Prepared:
    """The real sample and the candidates that can be scored.

    Args:
        real: Embeddings of the real sample, (n, d) float32, or float64 if values are too large for
            float32 products; on the device to compute on.
        inputs: The candidates with finite embeddings, where they are stored.
        real_input: The real sample as it was given to the proxy.
    """

    real: torch.Tensor
    inputs: tuple[ProxyInput, ...]
    real_input: ProxyInput

    def common_size(self, at_most: int | None = None) -> int:
        """Return the size of the smallest candidate, but no more than `at_most`."""
        smallest = min(len(candidate) for candidate in self.inputs)
        return smallest if at_most is None else min(smallest, at_most)

    def embeddings(self, position: int) -> torch.Tensor:
        """Return a candidate's embeddings as given: on any device, possibly memory-mapped."""
        return embeddings_of(self.inputs[position])

    def rows(self, position: int, chosen: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Return a candidate's embeddings, or chosen rows, with the device and dtype of `real`."""
        embeddings = self.embeddings(position)
        # indexed before it is moved, so that only these rows of a memory map are read
        return (embeddings if chosen is None else self.stored(position, chosen)).to(self.real)

    def stored(self, position: int, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return chosen rows of a candidate where and as they are stored."""
        embeddings = self.embeddings(position)
        return embeddings[torch.from_numpy(chosen).to(embeddings.device)]

    def stacked(
        self, positions: Sequence[int], chosen: Sequence[NDArray[np.int64]]
    ) -> torch.Tensor:
        """Return chosen rows of several candidates, (G, m, d), where and as they are stored.

        Rows of fewer than m are followed by rows of 0.

        Args:
            positions: Positions of G candidates.
            chosen: Row numbers of each of them, (m,) int64 at most.
        """
        return torch.nn.utils.rnn.pad_sequence(
            self.stored_rows(positions, chosen), batch_first=True
        )

    def stored_rows(
        self, positions: Sequence[int], chosen: Sequence[NDArray[np.int64]]
    ) -> list[torch.Tensor]:
        """Return chosen rows of several candidates as they are stored, if all are alike.

        Args:
            positions: Positions of G candidates.
            chosen: Row numbers of each of them.

        Returns:
            G tensors of one dtype and device, those of `real` if the candidates' differ.
        """
        parts = [self.stored(k, rows) for k, rows in zip(positions, chosen, strict=True)]
        alike = len({(part.dtype, part.device) for part in parts}) == 1
        return parts if alike else [part.to(self.real) for part in parts]


def similar_sizes(sizes: Sequence[int]) -> list[list[int]]:
    """Divide positions into groups of similar size, which are stacked with little padding.

    Args:
        sizes: Size of each position.

    Returns:
        Groups of positions, each with sizes of at least 4/5 of its largest.

    Example:
        >>> similar_sizes([100, 10, 90, 9])
        [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    for position in sorted(range(len(sizes)), key=lambda k: (-sizes[k], k)):
        if groups and 5 * sizes[position] >= 4 * sizes[groups[-1][0]]:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def sizes_of(sizes: Sequence[int], device: torch.device) -> torch.Tensor | None:
    """Return the sizes of stacked sets on the device, (G,) int64; None if all are the same.

    Args:
        sizes: Number of rows of each set.
        device: Device of the stack.
    """
    return None if len(set(sizes)) == 1 else torch.tensor(sizes).to(device)


def parts_of(total: int, weights: torch.Tensor) -> list[int]:
    """Divide a number of draws by weights, into whole numbers, by the largest-remainder method.

    Args:
        total: Number of draws.
        weights: (K,) weights that sum to 1.

    Returns:
        Number of draws for each weight; they sum to `total`.

    Example:
        >>> parts_of(10, torch.tensor([0.55, 0.45, 0.0]))
        [6, 4, 0]
    """
    ideal = weights.double() * total
    # rounding each share on its own would not give `total` draws; with a stable sort, equal
    # remainders go to the candidates that come first, on every platform
    counts = ideal.floor()
    order = (counts - ideal).argsort(stable=True)
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def size_message(prepared: Prepared, m: int, how: str) -> tuple[str, ...]:
    """Return a message with the common size, or nothing if no candidate is larger.

    Args:
        prepared: The candidates that were scored.
        m: The common size.
        how: How larger candidates were reduced to it, such as "by a random subsample".
    """
    larger = sum(len(part) > m for part in prepared.inputs)
    if not larger:
        return ()
    return (
        f"scored at a common size of {counted(m, 'example')} {how} "
        f"({counted(larger, 'candidate has', 'candidates have')} more)",
    )


def embeddings_of(part: ProxyInput) -> torch.Tensor:
    """Return the embeddings of the real sample or a candidate.

    Raises:
        ProxyError: It has no embeddings.
    """
    if part.embeddings is None:
        raise ProxyError(f"{part.name}: this proxy needs embeddings, and there are none")
    return part.embeddings


def score_defined(
    real: ProxyInput,
    candidates: Sequence[ProxyInput],
    device: torch.device,
    score: Callable[[Prepared], ProxyScores],
) -> ProxyScores:
    """Score the candidates with finite embeddings; the others get NaN, and a message says so.

    Args:
        real: The real sample.
        candidates: The K candidates.
        device: Device to compute on.
        score: Computes the scores of the usable candidates. It is called without gradients and
            with full float32 precision of matrix products.

    Returns:
        Scores of all K candidates.
    """
    # one NaN in one candidate would otherwise spread through the common bandwidth, pool or mixture
    # to every candidate
    sample, parts = embeddings_of(real), [embeddings_of(candidate) for candidate in candidates]
    of_real, *entries = largest_entries([sample, *parts])
    finite = [math.isfinite(entry) for entry in entries]
    if not math.isfinite(of_real) or not any(finite):
        reason = "the real sample's embeddings" if any(finite) else "all candidates' embeddings"
        return undefined_scores(len(candidates), f"undefined: {reason} are not finite")
    usable = tuple(part for part, good in zip(candidates, finite, strict=True) if good)
    # one dtype for all: rounding errors that differ between candidates would enter their ranking
    largest = max(entry for entry in (of_real, *entries) if math.isfinite(entry))
    is_double = any(part.dtype == torch.float64 for part in (sample, *map(embeddings_of, usable)))
    dtype = torch.float64 if is_double or largest > SAFE_FLOAT32 else torch.float32
    with precise():
        scores = score(Prepared(sample.to(device=device, dtype=dtype), usable, real))
    if all(finite):
        return scores
    names = ", ".join(part.name for part, good in zip(candidates, finite, strict=True) if not good)
    message = f"undefined for {names}: embeddings that are not finite"
    positions = [position for position, good in enumerate(finite) if good]
    return _spread_out(scores, positions, [len(part) for part in candidates], message)


def mixture_of_defined(
    real: ProxyInput,
    candidates: Sequence[ProxyInput],
    device: torch.device,
    mixture: Callable[[Prepared], Callable[[torch.Tensor], float] | None],
) -> Callable[[torch.Tensor], float] | None:
    """Return the score of mixtures, NaN where one contains a candidate that cannot be scored.

    Args:
        real: The real sample.
        candidates: The K candidates.
        device: Device to compute on.
        mixture: Makes the function of the weights of the usable candidates; see `score_defined`.
    """

    def unscored(prepared: Prepared) -> ProxyScores:
        values = torch.full((len(prepared.inputs),), torch.nan, dtype=torch.float64)
        return ProxyScores(values, mixture=mixture(prepared))

    return score_defined(real, candidates, device, unscored).mixture


def is_finite(embeddings: torch.Tensor) -> bool:
    """Whether there is neither NaN nor infinity in the embeddings."""
    # NaN and infinity both show in the largest entry, which is found in blocks: `isfinite` would
    # need a mask as large as the matrix
    return math.isfinite(largest_entry(embeddings))


def undefined_scores(n_candidates: int, message: str) -> ProxyScores:
    """Return NaN for every candidate, with a message that says why.

    Args:
        n_candidates: K, the number of candidates.
        message: Why no candidate can be scored.
    """
    values = torch.full((n_candidates,), torch.nan, dtype=torch.float64)
    return ProxyScores(values, messages=(message,), reliable=False)


def _spread_out(
    scores: ProxyScores, positions: list[int], sizes: Sequence[int], message: str
) -> ProxyScores:
    """Return scores of all candidates: those of the usable ones, and NaN for the others."""

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
            # an undefined candidate has a positive weight: the mixture of the rest, scored in its
            # place, would be another mixture
            return math.nan
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


def real_groups(part: ProxyInput) -> NDArray[np.int64] | None:
    """Return the groups of the real sample; None if its examples are independent.

    Also None if all examples are in one group, which has no others to be compared with.

    Args:
        part: The real sample.

    Returns:
        (n,) int64 from 0 on, at least 2 groups.
    """
    return None if part.groups is None or not part.groups.any() else part.groups


def example_groups(part: ProxyInput) -> NDArray[np.uint64]:
    """Return a number for each example's content, equal for equal views.

    Args:
        part: The real sample or a candidate.

    Returns:
        (n,) uint64.
    """
    return content_numbers(part.digests)


def cross_fit_folds(
    real: ProxyInput, synthetic: NDArray[np.uint64], n_folds: int, seed: int
) -> NDArray[np.int64] | None:
    """Return the folds of the real sample and of synthetic rows for a real-or-synthetic classifier.

    Args:
        real: The real sample.
        synthetic: (N,) uint64 `example_groups` of the synthetic rows.
        n_folds: Number of folds, at most.
        seed: Random seed for the assignment.

    Returns:
        (n + N,) int64, the real rows first; None if a side has fewer than 2 groups.
    """
    # examples that are equal, or of one group of the real sample, share a fold: the held-out loss
    # of an example whose copy or sibling was trained on shows memory, not the difference between
    # the two distributions
    contents = example_groups(real)
    joined = joined_contents(contents, real_groups(real))
    if joined is not contents:
        # a synthetic copy of a real example belongs to the group of that example
        kinds, first = np.unique(contents, return_index=True)
        places = np.searchsorted(kinds, synthetic).clip(max=len(kinds) - 1)
        is_copy = kinds[places] == synthetic
        synthetic = np.where(is_copy, joined[first[places]], synthetic)
    return stratified_folds(joined, synthetic, n_folds, seed=seed)


def content_order(part: ProxyInput, seed: int) -> NDArray[np.int64]:
    """Return a random order of the examples that depends only on their content and the seed.

    The first m positions are a random subsample without replacement, which contains the same
    examples when the rows of a file are rearranged. Copies of an example have independent places.

    Args:
        part: The real sample or a candidate.
        seed: Random seed for the order.

    Returns:
        (n,) int64 positions.
    """
    groups = example_groups(part)
    # copies are numbered 0, 1, 2, …: by content alone they would share one random key and be drawn
    # together, and a subsample would have all copies of an example or none
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    starts = np.r_[True, ranked[1:] != ranked[:-1]]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(ranked)), 0))
    copies = np.empty(len(ranked), dtype=np.uint64)
    copies[order] = np.arange(len(ranked), dtype=np.uint64) - first.astype(np.uint64)
    # the seed is hashed before it is added: otherwise copy 1 under seed 0 would have the key of
    # copy 0 under seed 1. It is an array because NumPy warns when a sum of scalars overflows
    return np.argsort(_mix(groups + _mix(copies + _mix(np.full(1, seed, np.uint64)))))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64 of each value: a bijection that looks random in every bit."""
    # overflow is intended: products are modulo 2^64, so the order is the same on every platform and
    # with every version of NumPy, which does not promise that for its generators
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
