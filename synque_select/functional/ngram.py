"""Hashed n-gram models of texts: counts, log-probabilities, cross-entropy, entropy.

An n-gram is hashed from the code points of its tokens by arithmetic modulo 2^64, which is the same
on every platform and in every process (Python's `hash` of a string is not). NumPy hashes whole
chunks of texts at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.segmentation import EMOJI, UNSPACED_SCRIPTS, composed_text, is_mark

__all__ = [
    "N_BUCKETS",
    "GramOptions",
    "HashedNGrams",
    "NGramLevel",
    "counts_by_hash",
    "expected_log_counts",
    "hash_ngrams",
    "hash_sizes",
    "hash_tokens",
    "iter_chunks",
    "mixture_log_probabilities",
    "ngram_counts",
    "ngram_cross_entropy",
    "ngram_entropy",
    "ngram_log_probabilities",
    "sum_by_text",
]

NGramLevel = Literal["word", "character"]
N_BUCKETS = 2**14

# what is added to V for further hash functions: a remainder by a number without a common divisor
# puts other n-grams into one bucket
_FURTHER_HASHES = (1, 3)
# above this V the three remainders do not fit into 63 bits, and few n-grams share a bucket
_MOST_BUCKETS = 2**20
_CHUNK_TEXTS = 4096
_CHUNK_BUCKETS = 4096
# trapezoid rule of the expected logarithm: its step, and the size of the integrand below which
# the tails are cut; together exact to 1e-9
_STEP, _VANISHED = 0.1, 1e-14
# code points hashed at once: their hashes and powers take a few times 8 MB
_CHUNK_CODES = 2**20
_N_CODE_POINTS = 0x110000
# odd 64-bit constants: that of the golden ratio, and those of splitmix64's finalizer. An odd
# number has an inverse modulo 2^64, which the hash of runs needs
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_PRIME_INVERSE = np.uint64(pow(int(_PRIME), -1, 2**64))
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SPACE, _WORD, _OTHER, _UNSPACED, _MARK, _NOT_SEEN = 0, 1, 2, 3, 4, 5
# above this expected count the second-order expansion is correct to 3 decimals
_EXACT_UP_TO = 50.0


class GramOptions(TypedDict):
    """Which n-grams are counted; see `hash_ngrams`."""

    level: NGramLevel
    max_order: int
    n_buckets: int


class HashedNGrams(NamedTuple):
    """The n-grams of some texts.

    Attributes:
        buckets: (g,) int64 bucket of each n-gram, 0 to n_buckets − 1.
        texts: (g,) int64 position of the text that contains it.
        n_texts: Number of texts, including those without an n-gram.
    """

    buckets: torch.Tensor
    texts: torch.Tensor
    n_texts: int


def hash_ngrams(
    texts: Sequence[str],
    *,
    level: NGramLevel = "word",
    max_order: int = 2,
    n_buckets: int = N_BUCKETS,
) -> HashedNGrams:
    """Return the hashed n-grams of all orders up to `max_order`.

    No n-gram spans two texts.

    Args:
        texts: n texts.
        level: Kind of token, "word" or "character"; see `hash_tokens`.
        max_order: Length of the longest n-gram; 2 gives single tokens and pairs.
        n_buckets: Number of hash buckets.

    Returns:
        The n-grams, all of order 1 first, then those of order 2, and so on.

    Source:
        Xie et al. 2023 (DSIR, arXiv 2302.03169), section 4: hashed unigrams and bigrams.

    Example:
        >>> ngrams = hash_ngrams(["How many?", "how many"])
        >>> ngrams.texts.tolist()
        [0, 0, 0, 1, 1, 0, 0, 1]
        >>> bool(ngrams.buckets[0] == ngrams.buckets[3])
        True
    """
    tokens, owners = hash_tokens(texts, level=level)
    grams, starts = [tokens], [owners]
    longer = tokens
    for order in range(2, max_order + 1):
        # an n-gram lies in one text if its first and last token do
        inside = owners[order - 1 :] == owners[: len(owners) - order + 1]
        # the n-gram that starts at each token, one order shorter, is extended by one token. Mixed
        # before it is extended again: a polynomial alone would give "a b" and "b a" related hashes
        longer = _mix(longer[: len(inside)] * _PRIME + tokens[order - 1 :])
        grams.append(longer[inside])
        starts.append(owners[: len(inside)][inside])
    buckets = (_mix(np.concatenate(grams)) % np.uint64(n_buckets)).astype(np.int64)
    return HashedNGrams(
        torch.from_numpy(buckets), torch.from_numpy(np.concatenate(starts)), len(texts)
    )


def hash_tokens(
    texts: Sequence[str], *, level: NGramLevel = "word"
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return a 64-bit hash of every token, and the position of the text that contains it.

    Texts are lower-cased, and words are compared in one Unicode form, without characters that are
    not seen (`composed_text`). A "word" is a run of letters, digits and underscores, or a run of
    other characters that are not white space, each with its marks, such as accents and vowel
    signs; of a script that is written without spaces (`UNSPACED_SCRIPTS`: Chinese, Japanese, Thai,
    …), every letter or vowel sign is a word, so that pairs of words are pairs of characters, and
    so is every emoji. A "character" is any code point.

    Args:
        texts: n texts.
        level: Kind of token, "word" or "character".

    Returns:
        (g,) uint64 hashes and (g,) int64 positions, in the order of the texts.

    Example:
        >>> hashes, owners = hash_tokens(["To be, or not to be"])
        >>> len(hashes), len(set(hashes.tolist())), owners.tolist()
        (7, 5, [0, 0, 0, 0, 0, 0, 0])
    """
    lowered = [composed_text(text).lower() for text in texts]
    # one code point is one uint32 of UTF-32. Lone surrogates, as in broken JSON, are kept: a
    # single bad text must not stop a ranking
    joined = "\n".join(lowered).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype="<u4").astype(np.int64)
    lengths = np.fromiter(map(len, lowered), dtype=np.int64, count=len(lowered))
    begins = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]) if lowered else lengths
    if level == "character":
        inside = np.ones(len(codes), dtype=bool)
        # the line breaks that join the texts are not part of any
        inside[begins[1:] - 1] = False
        return _mix(codes[inside].astype(np.uint64)), np.repeat(np.arange(len(lowered)), lengths)
    own_kinds = _kinds_of(codes)
    kinds = _with_marks(own_kinds)
    # a token starts where the kind of character changes; the joining line break separates texts
    changed = np.ones(len(codes), dtype=bool)
    is_new = (kinds[1:] == _UNSPACED) & (own_kinds[1:] != _MARK)
    changed[1:] = (kinds[1:] != kinds[:-1]) | is_new
    starts = np.flatnonzero(changed & (kinds != _SPACE))
    owners = np.searchsorted(begins, starts, side="right") - 1
    return _hash_runs(codes, kinds != _SPACE, starts), owners


def _with_marks(kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give each mark the kind of the character that it belongs to; after a space, it is other."""
    is_base = kinds != _MARK
    if is_base.all():
        return kinds
    base = np.maximum.accumulate(np.where(is_base, np.arange(len(kinds)), 0))
    attached = kinds[base]
    attached[~is_base & ((attached == _SPACE) | (attached == _MARK))] = _OTHER
    return attached


def _hash_runs(
    codes: NDArray[np.int64], in_token: NDArray[np.bool_], starts: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Polynomial hash of the code points of each run; white space counts as 0."""
    if len(starts) == 0:
        return np.zeros(0, dtype=np.uint64)
    # lengths are rounded up to powers of 2, so that few tables are computed and cached
    powers, inverses = _powers(max(_CHUNK_CODES, 1 << (len(codes) - 1).bit_length()))
    # + 1, so that a code point of 0 counts
    terms = (codes + 1).astype(np.uint64) * powers[: len(codes)]
    terms[~in_token] = 0
    # exponents run on over the whole chunk, and the inverse power moves each run back to exponent
    # 0: equal tokens then have equal hashes wherever they are, without a loop over tokens
    return _mix(np.add.reduceat(terms, starts) * inverses[starts])


@functools.lru_cache(maxsize=2)
def _powers(n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return tuple(  # type: ignore[return-value]
        np.cumprod(np.concatenate([[np.uint64(1)], np.full(n - 1, base)]), dtype=np.uint64)
        for base in (_PRIME, _PRIME_INVERSE)
    )


def _kinds_of(codes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Kind of each code point: white space, part of a word, a word of its own, a mark, or other."""
    table = _kinds()
    kinds = table[codes]
    is_new = kinds == _NOT_SEEN
    if is_new.any():
        new = np.unique(codes[is_new])
        table[new] = [_kind(int(code)) for code in new]
        kinds = table[codes]
    return kinds


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    # filled in by what occurs: all 1.1 million code points would take seconds in each process
    return np.full(_N_CODE_POINTS, _NOT_SEEN, dtype=np.uint8)


def _kind(code: int) -> int:
    if any(first <= code <= last for first, last in (*UNSPACED_SCRIPTS, *EMOJI)):
        return _UNSPACED
    character = chr(code)
    if character.isalnum() or character == "_":
        return _WORD
    if character.isspace():
        return _SPACE
    return _MARK if is_mark(character) else _OTHER


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of splitmix64: a bijection in which every input bit affects every output bit."""
    # without it, buckets would be the low bits of a polynomial, which depend on the low bits of
    # the code points alone (Steele, Lea and Flood 2014)
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return np.asarray(values ^ (values >> np.uint64(31)))


def iter_chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of bounded size.

    A list has at most 4,096 texts and about a million code points, unless a single text is longer.

    Args:
        texts: Texts to divide.

    Example:
        >>> [len(chunk) for chunk in iter_chunks(["a" * 700_000, "b" * 700_000, "c"])]
        [1, 2]
    """
    for begin in range(0, len(texts), _CHUNK_TEXTS):
        chunk: list[str] = []
        size = 0
        for text in texts[begin : begin + _CHUNK_TEXTS]:
            if chunk and size + len(text) > _CHUNK_CODES:
                yield chunk
                chunk, size = [], 0
            chunk.append(text)
            size += len(text) + 1
        yield chunk


def ngram_counts(
    texts: Sequence[str],
    *,
    level: NGramLevel = "word",
    max_order: int = 2,
    n_buckets: int = N_BUCKETS,
) -> torch.Tensor:
    """Count the hashed n-grams of all texts.

    Texts are read in chunks, so memory does not grow with their number.

    Args:
        texts: Texts to count.
        level: Kind of token, "word" or "character"; see `hash_tokens`.
        max_order: Length of the longest n-gram.
        n_buckets: Number of hash buckets.

    Returns:
        (n_buckets,) float64 counts.

    Example:
        >>> ngram_counts(["how many", "how many apps"]).sum()
        tensor(8., dtype=torch.float64)
    """
    counts = torch.zeros(n_buckets, dtype=torch.int64)
    for chunk in iter_chunks(texts):
        ngrams = hash_ngrams(chunk, level=level, max_order=max_order, n_buckets=n_buckets)
        counts += torch.bincount(ngrams.buckets, minlength=n_buckets)
    return counts.double()


def hash_sizes(n_buckets: int) -> tuple[int, ...]:
    """Return the number of buckets of each hash function of `counts_by_hash`, the given one first.

    Further functions show how much a score depends on which n-grams share a bucket.

    Args:
        n_buckets: V, the number of buckets of the first function.

    Example:
        >>> hash_sizes(16)
        (16, 17, 19)
    """
    further = _FURTHER_HASHES if n_buckets <= _MOST_BUCKETS else ()
    return (n_buckets, *(n_buckets + step for step in further))


def counts_by_hash(
    texts: Sequence[str],
    *,
    level: NGramLevel = "word",
    max_order: int = 2,
    n_buckets: int = N_BUCKETS,
) -> list[torch.Tensor]:
    """Count the n-grams of all texts under each hash function of `hash_sizes`, reading them once.

    Args:
        texts: Texts to count; they are read in chunks.
        level: As for `hash_ngrams`.
        max_order: As for `hash_ngrams`.
        n_buckets: As for `hash_ngrams`.

    Returns:
        (V,) int64 counts for each V of `hash_sizes`; those of two sets of texts may be added.

    Example:
        >>> [int(counts.sum()) for counts in counts_by_hash(["how many", "how many apps"])]
        [8, 8, 8]
    """
    sizes = hash_sizes(n_buckets)
    totals = [torch.zeros(v, dtype=torch.int64) for v in sizes]
    for chunk in iter_chunks(texts):
        # hashed once: the remainder of a remainder by a multiple is the same
        grams = hash_ngrams(chunk, level=level, max_order=max_order, n_buckets=math.prod(sizes))
        for total, v in zip(totals, sizes, strict=True):
            total += torch.bincount(grams.buckets % v, minlength=v)
    return totals


def ngram_log_probabilities(
    counts: torch.Tensor, *, share: float = 1.0, alpha: float = 0.1
) -> torch.Tensor:
    """Return the smoothed log-probability of every bucket under a model of some n-grams.

    log p_b = log(c_b + α) − log(Σ c + α V). With share = m/N < 1, the model is that of m of N
    examples: log(c_b + α) is replaced by its expectation (`expected_log_counts`) and Σ c by
    Σ c · m/N, so that candidates of different size are compared at a common one.

    Args:
        counts: (V,) counts of the buckets.
        share: m/N in (0, 1].
        alpha: Smoothing, added to every bucket; positive.

    Returns:
        (V,) float64, nats.

    Example:
        >>> ngram_log_probabilities(torch.tensor([3.0, 1.0]), alpha=1.0).exp()
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    counts = counts.double()
    # at the full size a larger candidate has more n-grams at all, and so a lower cross-entropy by
    # its size alone
    total = counts.sum() * share + alpha * len(counts)
    return expected_log_counts(counts, share=share, alpha=alpha) - total.log()


def mixture_log_probabilities(
    counts: torch.Tensor, shares: torch.Tensor, *, alpha: float = 0.1
) -> torch.Tensor:
    """Return the smoothed log-probability of every bucket under a model of a mixture's n-grams.

    Of part a, a random share s_a of the n-grams is kept. A bucket's count C is then a sum of
    binomials with different probabilities, and log(C + α) is replaced by its expectation, as in
    `ngram_log_probabilities`. It is exact to 1e-9:
    E log(C + α) = ∫ (e^(−t) − e^(−αt) Π_a (1 − s_a + s_a e^(−t))^(c_a)) dt / t.

    Args:
        counts: (A, V) counts of the buckets in each part.
        shares: (A,) share of each part's n-grams that is kept, in (0, 1].
        alpha: Smoothing, added to every bucket; positive.

    Returns:
        (V,) float64, nats.

    Example:
        >>> counts = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
        >>> mixture_log_probabilities(counts, torch.ones(2), alpha=1.0).exp()  # (3, 3) + 1 over 8
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    counts, shares = counts.double(), shares.to(counts.device).double()
    total = float((shares @ counts).sum()) + alpha * counts.shape[1]
    # most buckets share their counts with others, in particular 0: each is integrated once
    buckets, place = torch.unique(counts, dim=1, return_inverse=True)
    # from Frullani's integral log x = ∫ (e^(−t) − e^(−xt)) dt / t and the binomials' generating
    # function. With t = e^u the integrand is smooth and vanishes at both ends, where the
    # trapezoid rule converges exponentially (Trefethen and Weideman 2014)
    lowest = math.log(_VANISHED / (float((shares @ buckets).max()) + alpha + 1))
    highest = math.log(-math.log(_VANISHED) / min(alpha, 1.0))
    u = torch.arange(lowest, highest + _STEP, _STEP, dtype=torch.float64, device=counts.device)
    t = u.exp()
    # log(1 − s + s e^(−t)); with s = 1 the first term is −∞, which logaddexp handles
    kept = torch.logaddexp(torch.log1p(-shares)[:, None], shares.log()[:, None] - t)
    expected = torch.empty(buckets.shape[1], dtype=torch.float64, device=counts.device)
    for start in range(0, buckets.shape[1], _CHUNK_BUCKETS):
        part = slice(start, start + _CHUNK_BUCKETS)
        logs = buckets[:, part].T @ kept - alpha * t
        # a difference of two numbers near 1 for small t: by expm1, or every digit cancels
        expected[part] = (torch.expm1(-t) - torch.expm1(logs)).sum(1) * _STEP
    return expected[place] - math.log(total)


def expected_log_counts(counts: torch.Tensor, *, share: float, alpha: float) -> torch.Tensor:
    """Return E[log(C + α)] with C binomial: the counts are the trials, `share` the probability.

    This is the expected log of a smoothed count if a random share of the n-grams is kept. It is
    exact for expected counts up to 50; above, it is the second-order expansion
    log(μ + α) − σ² / (2 (μ + α)²), correct to 3 decimals. N-grams are treated as kept
    independently, although those of one example are kept or dropped together.

    Args:
        counts: (V,) whole numbers, any dtype.
        share: Probability that an n-gram is kept, in (0, 1].
        alpha: Smoothing, added to every count; positive.

    Returns:
        (V,) float64, nats.

    Example:
        >>> expected_log_counts(torch.tensor([1.0]), share=0.5, alpha=1.0)  # (log 1 + log 2) / 2
        tensor([0.3466], dtype=torch.float64)
    """
    counts = counts.double()
    if share == 1:
        return (counts + alpha).log()
    # 16,384 buckets have a few hundred distinct counts
    values, place = torch.unique(counts, return_inverse=True)
    mean = values * share
    expected: torch.Tensor = (mean + alpha).log() - mean * (1 - share) / (
        2 * (mean + alpha).square()
    )
    small = mean <= _EXACT_UP_TO
    if bool(small.any()):
        expected[small] = _exact_log_counts(values[small], share, alpha)
    return expected[place]


def _exact_log_counts(trials: torch.Tensor, share: float, alpha: float) -> torch.Tensor:
    # 12 standard deviations above the largest mean, probabilities are below 1e-15
    last = min(float(trials.max()), _EXACT_UP_TO + 12 * _EXACT_UP_TO**0.5)
    kept = torch.arange(int(last) + 1, dtype=torch.float64, device=trials.device)
    n = trials[:, None]
    left = n - kept
    possible = left >= 0
    # by logarithms of the gamma function: binomial coefficients overflow from about 1,000 trials;
    # impossible terms (more kept than there are) are clamped here and zeroed below
    log_choose = torch.lgamma(n + 1) - torch.lgamma(kept + 1) - torch.lgamma(left.clamp(0) + 1)
    log_share = torch.log(torch.tensor([share, 1 - share], dtype=torch.float64)).to(trials.device)
    log_p = log_choose + kept * log_share[0] + left * log_share[1]
    terms: torch.Tensor = log_p.exp() * possible * (kept + alpha).log()
    return terms.sum(1)


def sum_by_text(ngrams: HashedNGrams, log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each text: the sum over its n-grams.

    Args:
        ngrams: The n-grams of n texts.
        log_probabilities: (V,) log-probability of each bucket, nats.

    Returns:
        (n,) float64, nats; 0 for a text without an n-gram.

    Example:
        >>> sum_by_text(hash_ngrams(["a b", "a"]), torch.full((2**14,), -2.0))
        tensor([-6., -2.], dtype=torch.float64)
    """
    device = log_probabilities.device
    values = log_probabilities.double()[ngrams.buckets.to(device)]
    sums = torch.zeros(ngrams.n_texts, dtype=torch.float64, device=device)
    return sums.index_add_(0, ngrams.texts.to(device), values)


def ngram_cross_entropy(real: HashedNGrams, log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the real texts under a candidate's model; lower is better.

    H = −Σ_g log p(g) / G over all G n-grams of the real texts, of every order alike.

    Args:
        real: The real texts' n-grams.
        log_probabilities: (V,) log-probabilities from `ngram_log_probabilities`.

    Returns:
        A float64 scalar in nats per n-gram; NaN if the real texts have no n-gram.

    Example:
        >>> real = hash_ngrams(["how many apps"])
        >>> near = ngram_log_probabilities(ngram_counts(["how many users"]))
        >>> far = ngram_log_probabilities(ngram_counts(["list all names"]))
        >>> bool(ngram_cross_entropy(real, near) < ngram_cross_entropy(real, far))
        True
    """
    return -log_probabilities.double()[real.buckets.to(log_probabilities.device)].mean()


def ngram_entropy(counts: torch.Tensor) -> torch.Tensor:
    """Return the plug-in entropy of a histogram, −Σ (c_b/C) log(c_b/C); higher is more diverse.

    Args:
        counts: (V,) counts, any dtype, not all 0.

    Returns:
        A float64 scalar in nats, at least 0. The plug-in estimate is too low for small samples:
        compare sets of the same size.

    Example:
        >>> ngram_entropy(torch.tensor([2.0, 2.0, 0.0]))
        tensor(0.6931, dtype=torch.float64)
    """
    p = counts.double() / counts.sum()
    terms: torch.Tensor = torch.special.xlogy(p, p)
    return -terms.sum()
