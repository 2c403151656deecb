"""Significance of all pairs, near duplicates, n-gram counts and the label check."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.contamination import count_overlap
from synque_select.functional.ngram import N_BUCKETS, ngram_counts
from synque_select.selection import heads
from synque_select.selection.labels import check_labels
from synque_select.selection.uncertainty import Influences, separation
from tests.benchmarks.base import Result, compare, cpu_seconds

N_REAL, N_CANDIDATES, N_RESAMPLES = 200, 100, 2000
N_TEXTS, N_WORDS = 20_000, 3_000
PAIRS_AT_ONCE = 1024
JACCARD = 0.8
N_LABELED, DIM, LABELS_BUDGET_S, LABELS_REPEATS = 1000, 384, 2.0, 3


def influences() -> torch.Tensor:
    """What each real example adds to 100 scores that differ a little: (200, 100) float64."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(N_REAL, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(N_REAL, N_CANDIDATES, generator=generator, dtype=torch.float64)
    return shared + 0.5 * own + torch.linspace(0, 0.4, N_CANDIDATES, dtype=torch.float64)


def our_separation(each: torch.Tensor) -> int:
    part = Influences(each, each.new_zeros(each.shape[1]))
    return int(separation([part], n_resamples=N_RESAMPLES).apart.sum()) // 2


def numpy_separation(each: torch.Tensor) -> int:
    """The same bound by matrix products over the differences of all pairs, in float64."""
    values = each.numpy()
    n, k = values.shape
    generator = np.random.Generator(np.random.PCG64(0))
    weights = generator.multinomial(n, np.full(n, 1 / n), N_RESAMPLES) / n
    left, right = np.triu_indices(k, 1)
    largest, statistics = np.zeros(N_RESAMPLES), []
    for start in range(0, len(left), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        d = values[:, left[part]] - values[:, right[part]]
        mean = d.mean(0)
        statistics.append(mean / np.sqrt(d.var(0) / (n - 1)))
        redrawn = weights @ d
        error = np.sqrt((weights @ d**2 - redrawn**2) / (n - 1))
        np.maximum(largest, (np.abs(redrawn - mean) / error).max(1), out=largest)
    level = math.ceil(0.975 * (N_RESAMPLES + 1)) - 1
    bound = np.sort(np.append(largest, np.inf))[level]
    return int((np.abs(np.concatenate(statistics)) > bound).sum())


def texts(n: int, seed: int) -> list[str]:
    """Questions of 8 to 20 words, frequent ones more often; every tenth is nearly one of seed 0."""
    generator = np.random.Generator(np.random.PCG64(seed))
    shares = 1 / np.arange(1, N_WORDS + 1)
    lengths = generator.integers(8, 21, n)
    drawn = generator.choice(N_WORDS, int(lengths.sum()), p=shares / shares.sum())
    parts = np.split(drawn, lengths.cumsum()[:-1])
    made = [" ".join(f"word{j}" for j in part) for part in parts]
    if seed:
        for i, text in enumerate(texts(N_REAL, 0)):
            made[10 * i] = f"{text} please"
    return made


def our_overlap(candidate: list[str], real: list[str]) -> int:
    # new objects: what they keep from an earlier call is not used
    overlap = count_overlap(Candidate("a", candidate), RealSample("real", real))
    return overlap.n_exact + overlap.n_near


def sparse_overlap(candidate: list[str], real: list[str]) -> int:
    """Jaccard indices of all pairs from one sparse product."""
    vectorizer = CountVectorizer(binary=True, dtype=np.int32).fit(real)
    analyze = vectorizer.build_analyzer()
    sizes = np.array([len(set(analyze(text))) for text in candidate])
    known, other = vectorizer.transform(candidate), vectorizer.transform(real)
    common = csr_array(known @ other.T).tocoo()
    of_real = np.asarray(other.sum(1)).ravel()
    union = sizes[common.row] + of_real[common.col] - common.data
    return len(np.unique(common.row[common.data >= JACCARD * union - 1e-9]))


def our_ngrams(lines: list[str]) -> float:
    return float(ngram_counts(lines).sum())


def sklearn_ngrams(lines: list[str]) -> float:
    vectorizer = HashingVectorizer(
        n_features=N_BUCKETS,
        ngram_range=(1, 2),
        token_pattern=r"\w+",
        alternate_sign=False,
        norm=None,
    )
    return float(vectorizer.transform(lines).sum(0).sum())


def labeled(
    n_classes: int,
) -> tuple[list[Candidate], dict[str, torch.Tensor], torch.Tensor]:
    """Candidates of which every tenth has half of its labels at random, and 60 real embeddings.

    Embeddings of unit norm are spread around the means of overlapping classes and of candidates.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def classes(n: int) -> torch.Tensor:
        return torch.randint(n_classes, (n,), generator=generator)

    means, candidates, embeddings = 0.3 * drawn(n_classes, DIM), [], {}
    for k in range(N_CANDIDATES):
        y = classes(N_LABELED)
        rows = means[y] + drawn(N_LABELED, DIM) + 0.2 * drawn(DIM)
        if k % 10 == 0:
            y[::2] = classes(len(y[::2]))
        name = f"c{k}"
        embeddings[name] = torch.nn.functional.normalize(rows, dim=1)
        records = [{"text": f"{name} {i}", "label": f"class {c}"} for i, c in enumerate(y.tolist())]
        candidates.append(Candidate(name, records, label="label"))
        _ = candidates[-1].labels  # reading is not timed
    real = torch.nn.functional.normalize(means[classes(60)] + drawn(60, DIM), dim=1)
    return candidates, embeddings, real


def label_check(n_classes: int) -> Result:
    """Time the label check, all heads fitted anew each time."""
    candidates, embeddings, real = labeled(n_classes)
    seconds, n_outliers = [], 0
    for _ in range(LABELS_REPEATS + 1):
        heads._KEPT.clear()
        began = cpu_seconds()
        checks = check_labels(candidates, embeddings, real)
        seconds.append(cpu_seconds() - began)
        n_outliers = sum(check.outlier for check in checks)
    timed = seconds[1:]
    median = statistics.median(timed)
    return Result(
        name=f"label check of {N_CANDIDATES} candidates x {N_LABELED:,} labeled examples, "
        f"{n_classes} classes, embeddings of {DIM} numbers",
        ratio=LABELS_BUDGET_S / median,
        target=1.0,
        rival=f"budget of {LABELS_BUDGET_S:g} s",
        seconds=median,
        rival_seconds=LABELS_BUDGET_S,
        note=f"CPU seconds of {len(timed)} checks: {min(timed):.2f} to {max(timed):.2f}; outliers: "
        f"{n_outliers}, where {len(range(0, N_CANDIDATES, 10))} have half of their labels random",
    )


def run() -> Iterator[Result]:
    """Yield a row for each."""
    each = influences()
    seconds, rival = compare(lambda: our_separation(each), lambda: numpy_separation(each), 3)
    yield Result(
        name=f"all pairs of {N_CANDIDATES} candidates, {N_REAL} real examples, "
        f"{N_RESAMPLES:,} resamples",
        ratio=rival / seconds,
        target=1.0,
        rival="NumPy, matrix products over all pairs",
        seconds=seconds,
        rival_seconds=rival,
        note=f"pairs distinguished: {our_separation(each)} and {numpy_separation(each)}, with "
        "other random numbers",
    )
    real, candidate = texts(N_REAL, 0), texts(N_TEXTS, 1)
    ours_found, rival_found = our_overlap(candidate, real), sparse_overlap(candidate, real)
    seconds, rival = compare(
        lambda: our_overlap(candidate, real), lambda: sparse_overlap(candidate, real), 5
    )
    yield Result(
        name=f"near duplicates of {N_TEXTS:,} texts among {N_REAL}",
        ratio=rival / seconds,
        target=1.0,
        rival="scikit-learn, Jaccard indices of all pairs by a sparse product",
        seconds=seconds,
        rival_seconds=rival,
        note=f"near duplicates: {ours_found} and {rival_found}",
    )
    seconds, rival = compare(lambda: our_ngrams(candidate), lambda: sklearn_ngrams(candidate), 5)
    yield Result(
        name=f"words and pairs of words of {N_TEXTS:,} texts, counted in {N_BUCKETS:,} buckets",
        ratio=rival / seconds,
        target=1.0,
        rival="scikit-learn HashingVectorizer",
        seconds=seconds,
        rival_seconds=rival,
        note=f"n-grams: {our_ngrams(candidate):,.0f} and {sklearn_ngrams(candidate):,.0f}",
    )
    for n_classes in (2, 5):
        yield label_check(n_classes)
