"""True quality of candidates and mixtures: small learners, measured on a labeled test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from synque_select.benchmark.task_folders import LabeledTask, Metric, TestSet
from synque_select.data.candidate import Candidate
from synque_select.data.label_sets import labeled_positions
from synque_select.errors import DataError

__all__ = ["Learner", "Learners", "Parts", "drawing_order", "quality", "score_predictions"]

Learner = Literal["embedding", "tfidf"]
# candidate name to the positions of its examples to train on
Parts: TypeAlias = Mapping[str, NDArray[np.int64]]
_Rows: TypeAlias = Any  # a NumPy array or a SciPy sparse matrix: their common operations

_N_DRAWS = 3
# enough for the order of candidates; without it a task of large candidates would take hours
_MAX_SIZE = 1000
# inverse strength of the penalty: rows have norm 1, and at 1 the heads of 100 rows hardly leave 0
_C = 10.0


@dataclass(frozen=True)
class Learners:
    """Fits learners on examples of the candidates and measures them on the test set.

    Both are logistic regressions with equal total weight per class: one on the encoder's
    embeddings, one on tf-idf of words and bigrams, whose inverse document frequencies come from the
    training examples alone. Neither reads a real example before it is measured.

    Args:
        labels: Candidate name to its labels.
        rows: Learner to candidate name to features; for tf-idf, counts.
        test_rows: Learner to features of the test set.
        test: The test set.
        metric: Its metric.
    """

    labels: Mapping[str, NDArray[np.str_]]
    rows: Mapping[Learner, Mapping[str, _Rows]]
    test_rows: Mapping[Learner, _Rows]
    test: TestSet
    metric: Metric

    @classmethod
    def of(
        cls,
        task: LabeledTask,
        test: TestSet,
        embeddings: Mapping[str, NDArray[np.float32]],
        test_embeddings: NDArray[np.float32],
    ) -> Learners:
        """Prepare the features of a task.

        Args:
            task: The task.
            test: Its test set.
            embeddings: Candidate name to embeddings, (N, d).
            test_embeddings: (n, d) embeddings of the test examples.

        Raises:
            DataError: The candidates' texts have no words.
        """
        counts, test_counts = _counts(task.candidates, test)
        return cls(
            {c.name: np.array(c.labels) for c in task.candidates},
            {"embedding": {n: _unit(e) for n, e in embeddings.items()}, "tfidf": counts},
            {"embedding": _unit(test_embeddings), "tfidf": test_counts},
            test,
            task.metric,
        )

    def measure(self, learner: Learner, parts: Parts) -> float:
        """Train on parts of the candidates and return the metric on the test set, in 0..1."""
        labels = np.concatenate([self.labels[name][at] for name, at in parts.items()])
        if len(set(labels)) < 2:
            predicted = np.full(len(self.test.labels), labels[0])
        else:
            rows = [self.rows[learner][name][at] for name, at in parts.items()]
            predicted = _predict(learner, rows, labels, self.test_rows[learner])
        return score_predictions(self.test, predicted, self.metric)


def _predict(
    learner: Learner, rows: Sequence[_Rows], labels: NDArray[np.str_], test: _Rows
) -> NDArray[np.str_]:
    from sklearn.linear_model import LogisticRegression

    if learner == "embedding":
        train = np.concatenate(rows)
    else:
        train, test = _tfidf(rows, test)
    head = LogisticRegression(C=_C, class_weight="balanced", max_iter=300, tol=1e-3)
    predicted: NDArray[np.str_] = head.fit(train, labels).predict(test)
    return predicted


def score_predictions(test: TestSet, predicted: NDArray[np.str_], metric: Metric) -> float:
    """Return macro-F1 over the classes with enough test examples, or accuracy."""
    if metric == "accuracy":
        return float(np.mean(test.labels == predicted))
    scores = []
    for label in test.scored:
        real, guessed = test.labels == label, predicted == label
        scores.append(2 * float((real & guessed).sum()) / float(real.sum() + guessed.sum()))
    return float(np.mean(scores))


def _counts(candidates: Sequence[Candidate], test: TestSet) -> tuple[dict[str, _Rows], _Rows]:
    from sklearn.feature_extraction.text import CountVectorizer

    # a word that a single example has cannot help to predict another one
    vectorizer = CountVectorizer(ngram_range=(1, 2), min_df=2, dtype=np.float32)
    texts = [str(text) for c in candidates for text in c.views]
    try:
        every = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"{candidates[0].source}: no word occurs in two examples") from error
    ends = np.cumsum([len(c) for c in candidates])
    rows = {c.name: every[end - len(c) : end] for c, end in zip(candidates, ends, strict=True)}
    views = [str(test.examples.views[int(i)]) for i in test.positions]
    return rows, vectorizer.transform(views)


def _tfidf(rows: Sequence[_Rows], test: _Rows) -> tuple[_Rows, _Rows]:
    from scipy.sparse import diags_array, vstack
    from sklearn.preprocessing import normalize

    train = vstack(rows, format="csr")
    n_texts = np.bincount(train.indices, minlength=train.shape[1])
    used = np.flatnonzero(n_texts)
    weights = diags_array(np.log((1 + train.shape[0]) / (1 + n_texts[used])) + 1).astype(np.float32)

    def weighted(counts: _Rows) -> _Rows:
        return normalize(counts[:, used] @ weights, copy=False)

    return weighted(train), weighted(test)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def drawing_order(candidate: Candidate, seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return a random order of the labeled examples by their content and the seeds only.

    Args:
        candidate: The candidate.
        seeds: Random seeds, such as that of the benchmark and the number of the draw.
    """
    words = candidate.digests[:, :8].copy().view(np.uint64).ravel()
    by_content = np.argsort(words, kind="stable")
    order = by_content[np.random.default_rng(list(seeds)).permutation(len(candidate))]
    # a missing label is not a class
    return order[np.isin(order, labeled_positions(candidate.labels))]


def quality(task: LabeledTask, learners: Learners, seed: int) -> dict[Learner, NDArray[np.float64]]:
    """Return the quality of each candidate by each learner, in 0..1.

    All candidates are trained on at the size of the smallest, at most 1,000 examples; of a larger
    candidate, several draws are averaged.

    Args:
        task: The task.
        learners: The learners.
        seed: Random seed of the draws.
    """
    n_labeled = {c.name: len(labeled_positions(c.labels)) for c in task.candidates}
    size = min(_MAX_SIZE, *n_labeled.values())
    measured: dict[Learner, list[float]] = {learner: [] for learner in get_args(Learner)}
    for candidate in task.candidates:
        draws = [
            {candidate.name: drawing_order(candidate, [seed, draw])[:size]}
            for draw in range(_N_DRAWS if n_labeled[candidate.name] > size else 1)
        ]
        for learner, values in measured.items():
            values.append(float(np.mean([learners.measure(learner, part) for part in draws])))
    return {learner: np.array(values) for learner, values in measured.items()}
