"""Votes of heads on labels, against a slow reference and on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synque_select.functional.label_consistency import (
    Predictions,
    judge_accuracy,
    label_votes,
    predict_labels,
)
from synque_select.functional.transfer import fit_heads


def blobs(n: int, seed: int, noise: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = np.eye(3)[y] * 3 + rng.normal(size=(n, 3)) * 0.4
    y = np.where(rng.random(n) < noise, rng.integers(0, 3, n), y)
    return torch.from_numpy(x).float(), y


def predictions_of(parts: list[tuple[torch.Tensor, np.ndarray]], size: int) -> Predictions:
    features = [x for x, _ in parts]
    targets = [torch.nn.functional.one_hot(torch.from_numpy(y), 3).bool() for _, y in parts]
    return predict_labels(fit_heads(features, targets, size=size), features)


def test_flipped_labels_are_contradicted_and_right_ones_are_not():
    parts = [blobs(60, k) for k in range(4)]
    wrong = parts[0][1].copy()
    wrong[:20] = (wrong[:20] + 1) % 3
    parts[0] = (parts[0][0], wrong)
    predictions = predictions_of(parts, 40)
    votes = label_votes(predictions, [y for _, y in parts], families=np.arange(4))
    assert (votes[0].contradicted[:20] > 0.9).all()
    assert (votes[0].contradicted[20:] < 0.1).all()
    assert (votes[0].winner[:20] == (wrong[:20] - 1) % 3).all()


@pytest.mark.parametrize("seed", range(5))
def test_votes_equal_a_slow_count(seed: int):
    rng = np.random.default_rng(seed)
    owners = np.array([0, 0, 1, 2, 2, 2, 3])
    labels = [rng.integers(0, 3, n) for n in (5, 9, 4, 7)]
    known = rng.random((7, 3)) < 0.8
    classes = tuple(rng.integers(0, 3, (7, len(y))).astype(np.int16) for y in labels)
    families, weights = np.array([0, 1, 1, 2]), np.array([0.5, 1.0, 0.0, 2.0])
    predictions = Predictions(classes, owners, known)
    votes = label_votes(predictions, labels, families=families, weights=weights)
    for k, y in enumerate(labels):
        for i in range(len(y)):
            total = against = 0.0
            for h, owner in enumerate(owners):
                if families[owner] == families[k] or not known[h, y[i]]:
                    continue
                weight = weights[owner] / (owners == owner).sum()
                total += weight
                against += weight * (classes[k][h, i] != y[i])
            expected = against / total if total else np.nan
            assert votes[k].contradicted[i] == pytest.approx(expected, nan_ok=True)


def test_a_candidate_and_its_family_do_not_judge_themselves():
    parts = [blobs(30, 0)] * 2
    predictions = predictions_of(parts, 30)
    labels = [y for _, y in parts]
    votes = label_votes(predictions, labels, families=np.zeros(2, dtype=np.int64))
    assert np.isnan(votes[0].contradicted).all()
    assert (votes[0].winner == -1).all()
    assert np.isnan(judge_accuracy(predictions, labels, families=np.zeros(2, np.int64))).all()


def test_a_head_that_never_saw_a_class_does_not_contradict_it():
    classes = (np.zeros((3, 2), np.int16),) * 3
    known = np.array([[True, True], [True, False], [True, False]])
    predictions = Predictions(classes, np.arange(3), known)
    labels = [np.array([0, 1])] * 3
    votes = label_votes(predictions, labels, families=np.arange(3))
    assert votes[0].contradicted.tolist() == pytest.approx([0.0, np.nan], nan_ok=True)
    assert votes[1].contradicted.tolist() == [0.0, 1.0]


def test_accuracy_is_balanced_over_classes_and_candidates():
    # three quarters of class 0, which head 1 always predicts: plain accuracy would be 0.75
    y = np.array([0, 0, 0, 1])
    predictions = Predictions(
        (np.array([y, np.zeros(4)], dtype=np.int16),) * 2, np.arange(2), np.ones((2, 2), bool)
    )
    accuracy = judge_accuracy(predictions, [y, y], families=np.arange(2))
    assert accuracy.tolist() == [1.0, 0.5]


def test_rearranged_examples_keep_their_votes():
    parts = [blobs(50, k, noise=0.3) for k in range(3)]
    predictions = predictions_of(parts, 50)
    labels = [y for _, y in parts]
    votes = label_votes(predictions, labels, families=np.arange(3))[0].contradicted
    order = np.random.default_rng(0).permutation(50)
    turned = Predictions(
        (predictions.classes[0][:, order], *predictions.classes[1:]),
        predictions.owners,
        predictions.known,
    )
    again = label_votes(turned, [labels[0][order], *labels[1:]], families=np.arange(3))
    assert again[0].contradicted.tolist() == votes[order].tolist()


def test_a_label_that_shares_the_most_votes_wins():
    heads = np.array([[0], [1], [2], [2]], dtype=np.int16)
    predictions = Predictions((heads,) * 4, np.arange(4), np.ones((4, 3), dtype=bool))
    labels = [np.array([1])] + [np.array([0])] * 3
    # of the candidate's three judges, one says 1 and two say 2
    assert label_votes(predictions, labels, families=np.arange(4))[0].winner.tolist() == [2]
    families = np.array([0, 1, 2, 0])
    (first, *_) = label_votes(predictions, labels, families=families)
    assert (first.winner.tolist(), first.contradicted.tolist()) == ([1], [0.5])
