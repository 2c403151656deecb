"""Lexical proxy on the words of the texts: no encoder, seconds for a million texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar, cast, get_args

import torch

from synque_select.errors import ConfigError
from synque_select.functional.ngram import (
    N_BUCKETS,
    GramOptions,
    HashedNGrams,
    NGramLevel,
    counts_by_hash,
    hash_ngrams,
    hash_sizes,
    iter_chunks,
    mixture_log_probabilities,
    ngram_counts,
    ngram_log_probabilities,
    sum_by_text,
)
from synque_select.functional.segmentation import is_unsplit
from synque_select.proxies.base import BaseProxy, Contributions, Family, ProxyInput, ProxyScores
from synque_select.types.modality import Modality
from synque_select.utils.wording import listed

__all__ = ["NGram"]

# texts of a part that are read to find out whether they have words
_MOST_LOOKED_AT = 1000


class NGram(BaseProxy):
    """Cross-entropy of the real texts under a candidate's hashed n-gram model; lower is closer.

    H = −Σ_g log p(g) / G over the G n-grams (single words and pairs) of the real sample, with
    p(g) = (c_g + α) / (C + α V) from the counts c of the candidate alone. A model trained on more
    examples knows more n-grams, so each candidate's model is that of m examples, m the size of the
    smallest candidate: its expected log-probability over random subsamples, computed without
    drawing any (`expected_log_counts`).

    N-grams that share a bucket count as one, which moves the score of a candidate a little. Two
    further hash functions give the spread of the scores that comes from it: without it, many real
    examples would show a difference between equal candidates.

    In scripts that are written without spaces (Chinese, Japanese, Thai, …) a word is a character,
    and accents may be written in any Unicode form; see
    `synque_select.functional.ngram.hash_tokens`. Version 1 took a whole sentence of such a script
    for a word, version 2 separated marks, such as the vowel signs of Hindi, from their words, and
    version 3 took emoji in a row for one word. Texts in Latin, Greek, Cyrillic and Korean letters
    have the same scores in all versions, except where they hold emoji, marks that cannot be
    composed or characters that are not seen. Where most texts are long runs of letters without a
    space, a message says that their words cannot be counted; if they are those of the real sample,
    a consensus does not use the scores.

    The score of a single example is the mean over its n-grams of log p_real − log p_candidate,
    from smoothed models of all examples: the log importance weight of DSIR per n-gram. Higher is
    more realistic.

    Args:
        level: Kind of token, "word" or "character".
        max_order: Length of the longest n-gram.
        n_buckets: V, the number of hash buckets.
        alpha: α, the smoothing count added to every bucket; positive.

    Raises:
        ConfigError: An option is out of its range.

    Source:
        Xie et al. 2023 (DSIR, arXiv 2302.03169), equations 2 and 3, for the hashed model.

    Example:
        >>> NGram(level="character", max_order=4).options()
        {'level': 'character', 'max_order': 4, 'n_buckets': 16384, 'alpha': 0.1}
    """

    key: ClassVar[str] = "ngram"
    version: ClassVar[int] = 4
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "nats per n-gram"
    source: ClassVar[str] = "Xie et al. 2023, arXiv 2302.03169"
    family: ClassVar[Family] = "lexical"
    needs_embeddings: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text",))

    def __init__(
        self,
        level: NGramLevel = "word",
        max_order: int = 2,
        n_buckets: int = N_BUCKETS,
        alpha: float = 0.1,
    ) -> None:
        if level not in get_args(NGramLevel):
            raise ConfigError(f"level={level!r}: allowed is 'word' or 'character'")
        if max_order < 1:
            raise ConfigError(f"max_order={max_order}: allowed is 1 or more")
        if n_buckets < 2:
            raise ConfigError(f"n_buckets={n_buckets}: allowed is 2 or more")
        # without smoothing, one real n-gram that a candidate lacks would make its score infinite
        if not alpha > 0:
            raise ConfigError(f"alpha={alpha}: allowed is a number above 0")
        self.level = level
        self.max_order = max_order
        self.n_buckets = n_buckets
        self.alpha = alpha

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates on the CPU; nothing is random, so `seed` is not used."""
        sizes = hash_sizes(self.n_buckets)
        by_hash = _by_hash(self._hash(cast("Sequence[str]", real.views), math.prod(sizes)), sizes)
        grams = by_hash[0]
        if len(grams.buckets) == 0:
            nothing = torch.full((len(candidates),), torch.nan, dtype=torch.float64)
            message = f"ngram is undefined: no text of the real sample ({real.name}) holds words"
            return ProxyScores(nothing, messages=(message,), reliable=False)
        # the larger a candidate, the fewer real n-grams are unseen, whatever its quality: all
        # candidates are compared at the size of the smallest
        size = min(map(self._size, candidates))
        counts, columns, further = [], [], []
        for candidate in candidates:
            counted = self._counts(candidate)
            texts = [
                sum_by_text(part, self._model(n, size / self._size(candidate)))
                for part, n in zip(by_hash, counted, strict=True)
            ]
            counts.append(counted[0])
            columns.append(texts[0])
            further.append(torch.stack(texts))
        # such a candidate has a valid score, log V, that of a model which knows nothing
        empty = [c.name for c, n in zip(candidates, counts, strict=True) if not n.any()]
        likelihood = torch.stack(columns, dim=1)
        n_grams = torch.bincount(grams.texts, minlength=grams.n_texts).double()

        def example_scores(position: int) -> torch.Tensor:
            return self._log_ratio(real, candidates[position])

        unsplit = self._unsplit([real, *candidates])
        values = -likelihood.sum(0) / n_grams.sum()
        # a ratio of two sums, both of which change in a resample: texts are drawn whole, with all
        # their n-grams, because the n-grams of one text are not independent
        return ProxyScores(
            values,
            resample=Contributions(-likelihood, counts=n_grams),
            spread=_spread(torch.stack(further, dim=2) / n_grams.sum()),
            example_scores=example_scores,
            messages=_empty_message(empty) + _unsplit_message(unsplit) + self._drawn(candidates),
            # where only candidates have no words, they are unlike the real sample, as scored
            reliable=real.name not in unsplit,
            mixture=self._mixture(grams, candidates, counts.__getitem__),
        )

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return the score of mixtures; see `BaseProxy.mixture_score`."""
        grams = self._hash(cast("Sequence[str]", real.views), self.n_buckets)
        if len(grams.buckets) == 0:
            return None
        counts = cache(lambda k: self._count(candidates[k]))
        return self._mixture(grams, candidates, counts)

    def _mixture(
        self,
        grams: HashedNGrams,
        candidates: Sequence[ProxyInput],
        counts: Callable[[int], torch.Tensor],
    ) -> Callable[[torch.Tensor], float]:
        """Return the score of mixtures, from the n-grams of the real sample and the counts."""
        size = min(map(self._size, candidates))

        def mixture(weights: torch.Tensor) -> float:
            # n-gram counts of a mixture are the sum of its parts' counts, so no text is read again
            used = weights.nonzero().flatten().tolist()
            shares = [float(weights[k]) * size / self._size(candidates[k]) for k in used]
            model = mixture_log_probabilities(
                torch.stack([counts(k) for k in used]),
                torch.tensor(shares, dtype=torch.float64),
                alpha=self.alpha,
            )
            return -float(sum_by_text(grams, model).sum()) / len(grams.buckets)

        return mixture

    def _unsplit(self, parts: Sequence[ProxyInput]) -> list[str]:
        """Return the names of the parts whose words cannot be counted."""
        if self.level == "character":
            return []
        texts = [cast("Sequence[str]", part.views[:_MOST_LOOKED_AT]) for part in parts]
        return [p.name for p, some in zip(parts, texts, strict=True) if is_unsplit(some)]

    def _grams(self) -> GramOptions:
        return {"level": self.level, "max_order": self.max_order, "n_buckets": self.n_buckets}

    def _hash(self, texts: Sequence[str], n_buckets: int) -> HashedNGrams:
        return hash_ngrams(texts, level=self.level, max_order=self.max_order, n_buckets=n_buckets)

    def _counts(self, part: ProxyInput) -> list[torch.Tensor]:
        """Return the counts of the buckets under each hash function, (V,) float64 each."""
        counts = self._exact_counts(part)
        if counts is None:
            counts = counts_by_hash(cast("Sequence[str]", part.views), **self._grams())
        return [count.double() for count in counts]

    def _exact_counts(self, part: ProxyInput) -> list[torch.Tensor] | None:
        """Return the counts over all examples of which `part` was drawn, if these are its model."""
        if part.population is None or not part.population.has_ngrams(**self._grams()):
            return None
        return [torch.from_numpy(counts) for counts in part.population.ngrams]

    def _drawn(self, candidates: Sequence[ProxyInput]) -> tuple[str, ...]:
        """Say where n-grams of other kinds than were counted over all examples are compared."""
        names = [
            part.name
            for part in candidates
            if part.population is not None and self._exact_counts(part) is None
        ]
        if not names:
            return ()
        return (
            f"ngram compares the n-grams of the drawn examples of {listed(names)}: only words and "
            f"pairs of words in {N_BUCKETS:,} buckets, the default, are counted over all",
        )

    def _size(self, part: ProxyInput) -> int:
        """Return the number of examples whose n-grams are counted."""
        return len(part) if self._exact_counts(part) is None else part.n_all

    def _count(self, part: ProxyInput) -> torch.Tensor:
        exact = self._exact_counts(part)
        if exact is not None:
            return exact[0].double()
        return ngram_counts(cast("Sequence[str]", part.views), **self._grams())

    def _model(self, counts: torch.Tensor, share: float) -> torch.Tensor:
        # a few thousand counts of small numbers: on a GPU, starting the work would take longer
        return ngram_log_probabilities(counts, share=share, alpha=self.alpha)

    def _log_ratio(self, real: ProxyInput, candidate: ProxyInput) -> torch.Tensor:
        # share 1 on both sides: examples are compared within one candidate, so its size favors none
        ratio = self._model(self._count(real), 1.0)
        ratio = ratio - self._model(self._count(candidate), 1.0)
        means = []
        for chunk in iter_chunks(cast("Sequence[str]", candidate.views)):
            grams = self._hash(chunk, self.n_buckets)
            # the mean and not the sum, which would rank texts by their length; a text without
            # n-grams gets 0, no evidence either way
            lengths = torch.bincount(grams.texts, minlength=grams.n_texts).clamp_min(1)
            means.append(sum_by_text(grams, ratio) / lengths)
        return torch.cat(means)


def _by_hash(grams: HashedNGrams, sizes: Sequence[int]) -> list[HashedNGrams]:
    return [grams._replace(buckets=grams.buckets % v) for v in sizes]


def _spread(by_hash: torch.Tensor) -> torch.Tensor | None:
    """Return the standard deviation of the scores over hash functions, (K,) float64.

    What moves all candidates alike changes no difference and is left out, and so is what differs
    from text to text, which the real sample's own variation contains. The number of n-grams that
    share a bucket is much the same for all candidates, so they have one deviation.

    Args:
        by_hash: (H, n, K) shares of the real texts in the scores under each hash function.
    """
    n_hashes, n, n_candidates = by_hash.shape
    if min(n_hashes, n, n_candidates) < 2:
        return None
    own = by_hash - by_hash.mean(0)
    own -= own.mean(2, keepdim=True)
    # over pairs of different texts: what a hash function does to one text alone averages out
    common = (own.sum(1).square().sum() - own.square().sum()) * n / (n - 1)
    variance = common.clamp_min(0) / ((n_hashes - 1) * (n_candidates - 1))
    return variance.sqrt().expand(n_candidates).clone()


def _unsplit_message(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"ngram compares words, but most texts of {listed(names, 4)} are runs of more than 24 "
        "letters (of Korean, 8 syllables) without a space, each of which counts as one word: do "
        'not rely on ngram here. In Python, NGram(level="character", max_order=4) compares parts '
        "of words",
    )


def _empty_message(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"ngram: no text holds words, so all n-grams are equally likely: {', '.join(names)}",)
