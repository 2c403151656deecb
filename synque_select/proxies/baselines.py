"""Baselines that never read the real sample, for comparison with the proxies.

Each is a simple statistic of the candidate alone. More examples, more distinct examples, a larger
vocabulary, higher entropy and longer texts count as better. A ranking that does not beat these has
not made use of the real data. Baselines are never part of a default suite or a consensus.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch

from synque_select.data.duplicates import n_distinct
from synque_select.functional.frechet import moments
from synque_select.functional.ngram import hash_tokens, iter_chunks, ngram_counts, ngram_entropy
from synque_select.proxies.base import BaseProxy, Family, ProxyInput, ProxyScores
from synque_select.proxies.inputs import embeddings_of
from synque_select.types.modality import Modality

__all__ = [
    "BaselineDistinct",
    "BaselineEntropy",
    "BaselineLength",
    "BaselineSize",
    "BaselineSpread",
    "BaselineVocabulary",
]

_SOURCE = "a baseline without the real sample"


class _Baseline(BaseProxy):
    """A statistic of the candidate alone, which a subclass computes."""

    # the orientation is fixed for all, before any result was seen: a sign that is chosen by looking
    # at the performance would make a baseline look better than it is
    higher_is_better: ClassVar[bool] = True
    source: ClassVar[str] = _SOURCE
    family: ClassVar[Family] = "baseline"
    needs_embeddings: ClassVar[bool] = False

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score each candidate; `real`, `seed` and `device` are not used."""
        # at each candidate's own size, unlike the proxies: size is part of what a baseline shows
        values = [self.measure(candidate) for candidate in candidates]
        return ProxyScores(torch.tensor(values, dtype=torch.float64))

    @abstractmethod
    def measure(self, candidate: ProxyInput) -> float:
        """Return the statistic of one candidate.

        Args:
            candidate: The candidate.
        """


class _TextBaseline(_Baseline):
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text",))


class BaselineSize(_Baseline):
    """Number of examples in a candidate; more counts as better.

    Example:
        >>> BaselineSize.key
        'baseline_n'
    """

    key: ClassVar[str] = "baseline_n"
    unit: ClassVar[str] = "examples"

    def measure(self, candidate: ProxyInput) -> float:
        """Return N, the number of examples."""
        return float(candidate.n_all)


class BaselineDistinct(_Baseline):
    """Share of distinct views among a candidate's examples; more counts as better.

    Example:
        >>> BaselineDistinct.key
        'baseline_distinct'
    """

    key: ClassVar[str] = "baseline_distinct"
    unit: ClassVar[str] = "share in 0..1"

    def measure(self, candidate: ProxyInput) -> float:
        """Return the number of distinct views divided by N."""
        return n_distinct(candidate.digests) / len(candidate)


class BaselineVocabulary(_TextBaseline):
    """Number of distinct lower-cased words in a candidate; more counts as better.

    Example:
        >>> BaselineVocabulary.key
        'baseline_vocabulary'
    """

    key: ClassVar[str] = "baseline_vocabulary"
    version: ClassVar[int] = 4  # words as in ngram
    unit: ClassVar[str] = "words"

    def measure(self, candidate: ProxyInput) -> float:
        """Return the number of distinct word hashes."""
        # the union is of 64-bit hashes, which take less memory than the words; among a million
        # words, two share a hash with a probability of 3e-8
        known = np.zeros(0, dtype=np.uint64)
        for chunk in iter_chunks(cast("Sequence[str]", candidate.views)):
            known = np.union1d(known, hash_tokens(chunk)[0])
        return float(len(known))


class BaselineEntropy(_TextBaseline):
    """Entropy of a candidate's hashed words and pairs of words; higher counts as better.

    Example:
        >>> BaselineEntropy.key
        'baseline_entropy'
    """

    key: ClassVar[str] = "baseline_entropy"
    version: ClassVar[int] = 4  # words as in ngram
    unit: ClassVar[str] = "nats per n-gram"

    def measure(self, candidate: ProxyInput) -> float:
        """Return the plug-in entropy over 2^14 buckets; NaN if no text contains a word."""
        # the baseline to beat: on the released text2sql and sentiment data it is level with PAD and
        # MMD. The plug-in estimate is too low for small candidates, which is not corrected,
        # because a baseline may benefit from the size
        if candidate.population is not None and candidate.population.ngrams:
            return float(ngram_entropy(torch.from_numpy(candidate.population.ngrams[0])))
        return float(ngram_entropy(ngram_counts(cast("Sequence[str]", candidate.views))))


class BaselineLength(_TextBaseline):
    """Mean number of words in a candidate's texts; longer counts as better.

    Example:
        >>> BaselineLength.key
        'baseline_length'
    """

    key: ClassVar[str] = "baseline_length"
    version: ClassVar[int] = 4  # words as in ngram
    unit: ClassVar[str] = "words per text"

    def measure(self, candidate: ProxyInput) -> float:
        """Return the number of words divided by the number of texts."""
        chunks = iter_chunks(cast("Sequence[str]", candidate.views))
        return sum(len(hash_tokens(chunk)[0]) for chunk in chunks) / len(candidate)


class BaselineSpread(_Baseline):
    """Minus the Frobenius norm of the covariance of a candidate's embeddings; higher is better.

    Unit vectors all have nearly the same total variance. The norm is small if it is spread over
    many directions, and large if the examples differ in a few.

    Example:
        >>> BaselineSpread.key
        'baseline_spread'
    """

    key: ClassVar[str] = "baseline_spread"
    unit: ClassVar[str] = "-norm of the covariance"
    needs_embeddings: ClassVar[bool] = True

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score each candidate; `real`, `seed` and `device` are not used."""
        scores = super().score(real, candidates, seed=seed, device=device)
        broken = scores.values.isnan().tolist()
        names = [part.name for part, is_broken in zip(candidates, broken, strict=True) if is_broken]
        if not names:
            return scores
        message = f"undefined for {', '.join(names)}: embeddings that are not finite"
        return replace(scores, messages=(message,))

    def measure(self, candidate: ProxyInput) -> float:
        """Return −‖S‖, with S the covariance of the embeddings; NaN if they are not finite."""
        covariance = moments(embeddings_of(candidate), shrink=False).covariance
        return -float(torch.linalg.matrix_norm(covariance))
