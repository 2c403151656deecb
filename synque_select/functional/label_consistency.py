"""Whether the classifiers of the other candidates agree with a candidate's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.transfer import Heads

__all__ = [
    "LabelVotes",
    "Predictions",
    "judge_accuracy",
    "judge_panel",
    "label_votes",
    "predict_labels",
]

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Predictions:
    """The classes that the heads of K candidates predict for the examples of each candidate.

    Args:
        classes: K arrays (H, N_k) int16: the class that each head predicts for each example.
        owners: (H,) int64 position of the candidate that each head was trained on.
        known: (H, C) bool, whether the head's training rows contained the class.
    """

    classes: tuple[NDArray[np.int16], ...]
    owners: NDArray[np.int64]
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelVotes:
    """How the judges of one candidate vote on its labels.

    Args:
        contradicted: (N,) float64 in 0..1, weighted share of the judges that predict another class
            than the label; NaN where no judge knows the label's class.
        winner: (N,) int64 class with the largest weight, the label's own if others have no more;
            −1 without judges.
    """

    contradicted: NDArray[np.float64]
    winner: NDArray[np.int64]


def judge_panel(families: NDArray[np.int64], most: int, *, seed: int) -> NDArray[np.int64]:
    """Draw the candidates that judge all others, so that the time is linear in their number.

    Every family has a member before another one has a second.

    Args:
        families: (K,) int64 family of each candidate.
        most: Number of judges to draw.
        seed: Random seed for the draw.

    Returns:
        Positions in ascending order, int64; all K if these are not more than `most`.

    Example:
        >>> judge_panel(np.array([0, 0, 0, 0, 1, 2]), 3, seed=0)[1:].tolist()
        [4, 5]
    """
    shuffled = np.random.default_rng(seed).permutation(len(families))
    order = np.argsort(families[shuffled], kind="stable")
    grouped = families[shuffled[order]]
    # how many members of its family come before it
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:most]])


def predict_labels(heads: Heads, features: Sequence[torch.Tensor]) -> Predictions:
    """Return the class that every head predicts for every example.

    Args:
        heads: The heads of K candidates, with exclusive classes.
        features: K tensors (N_k, d), on the device of the heads.
    """
    return Predictions(
        tuple(_predicted(heads, rows) for rows in features),
        heads.owners.cpu().numpy(),
        heads.known.cpu().numpy(),
    )


def _predicted(heads: Heads, rows: torch.Tensor) -> NDArray[np.int16]:
    blocks = [torch.empty(len(heads), 0, dtype=torch.int16)]
    for place in _blocks(len(rows)):
        block = rows[place]
        parts = [_likeliest(part.probabilities(block)) for part in heads.batches(len(block))]
        blocks.append(torch.cat(parts).cpu())
    return torch.cat(blocks, 1).numpy()


def _likeliest(chances: torch.Tensor) -> torch.Tensor:
    """Return the first class with the largest chance, (H, n) int16, of (H, n, C) chances."""
    # class by class: `argmax` takes ten times as long where each row has a few classes
    classes = torch.zeros(chances.shape[:2], dtype=torch.int16, device=chances.device)
    best = chances[..., 0]
    for number in range(1, chances.shape[2]):
        chance = chances[..., number]
        classes = torch.where(chance > best, number, classes)
        best = torch.maximum(best, chance)
    return classes


def _head_weights(predictions: Predictions, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of each head, (H,), from those of the candidates."""
    # a larger candidate has one head per draw: together they have the weight of one candidate
    owners = predictions.owners
    n_heads = np.bincount(owners, minlength=len(weights))
    return (weights / np.maximum(n_heads, 1))[owners]


def label_votes(
    predictions: Predictions,
    labels: Sequence[NDArray[np.int64]],
    *,
    families: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
) -> list[LabelVotes]:
    r"""Let the heads of all other families vote on the labels of each candidate.

    .. math:: c_i = \sum_b w_b 1[\hat y_b(x_i) \ne y_i] \,/\, \sum_b w_b

    over the candidates b outside the family of the candidate that example i belongs to whose heads
    know class y_i: a head that has never seen a class cannot confirm it.

    Args:
        predictions: What `predict_labels` returned.
        labels: K arrays (N_k,) int64, the class of each example.
        families: (K,) int64 family of each candidate; all different without families.
        weights: (K,) weight of each candidate's vote, at least 0; None for equal weights.

    Returns:
        The votes on each candidate's labels.

    Source:
        Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research 70
        (predictions held out from the labels they check; there within one dataset).

    Example:
        >>> heads = np.array([[0, 0], [0, 1], [0, 1]], dtype=np.int16)
        >>> predictions = Predictions((heads,) * 3, np.arange(3), np.ones((3, 2), dtype=bool))
        >>> labels = [np.array([0, 0])] * 3
        >>> label_votes(predictions, labels, families=np.arange(3))[0].contradicted
        array([0., 1.])
    """
    equal = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    each = _head_weights(predictions, equal)
    return [_votes(predictions, y, families, each, k) for k, y in enumerate(labels)]


def _votes(
    predictions: Predictions,
    labels: NDArray[np.int64],
    families: NDArray[np.int64],
    weights: NDArray[np.float64],
    k: int,
) -> LabelVotes:
    # a head that has seen a label agrees with it, and a family shares what it gets wrong
    chosen = np.flatnonzero((families[predictions.owners] != families[k]) & (weights > 0))
    weight = weights[chosen]
    n_classes = predictions.known.shape[1]
    contradicted = np.full(len(labels), np.nan)
    winner = np.full(len(labels), -1, dtype=np.int64)
    for rows in _blocks(len(labels)) if len(chosen) else ():
        predicted, y = predictions.classes[k][chosen, rows], labels[rows]
        voting = weight[:, None] * predictions.known[chosen][:, y]
        total = voting.sum(0)
        against = (voting * (predicted != y)).sum(0)
        contradicted[rows] = np.divide(against, total, out=np.full(len(y), np.nan), where=total > 0)
        sums = np.stack([(weight[:, None] * (predicted == c)).sum(0) for c in range(n_classes)])
        is_own = sums[y, np.arange(len(y))] >= sums.max(axis=0)
        winner[rows] = np.where(is_own, y, sums.argmax(axis=0))
    return LabelVotes(contradicted, winner)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, n, _ROWS_AT_ONCE))


def judge_accuracy(
    predictions: Predictions,
    labels: Sequence[NDArray[np.int64]],
    *,
    families: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return how well each candidate's heads predict the labels of the other families.

    Balanced: the mean over the classes of a candidate, then over candidates, so that neither a
    frequent class nor a large candidate decides.

    Args:
        predictions: What `predict_labels` returned.
        labels: K arrays (N_k,) int64, the class of each example.
        families: (K,) int64 family of each candidate.

    Returns:
        (K,) float64 in 0..1; NaN for a candidate without others to judge.

    Example:
        >>> heads = np.array([[0, 1], [1, 1]], dtype=np.int16)
        >>> predictions = Predictions((heads,) * 2, np.arange(2), np.ones((2, 2), dtype=bool))
        >>> judge_accuracy(predictions, [np.array([0, 1])] * 2, families=np.arange(2))
        array([1. , 0.5])
    """
    n_heads, n_candidates = len(predictions.owners), len(labels)
    sums, counts = np.zeros(n_heads), np.zeros(n_heads)
    for k, y in enumerate(labels):
        judges = families[predictions.owners] != families[k]
        by_class = [(predictions.classes[k][:, y == c] == c).mean(1) for c in np.unique(y)]
        sums += np.where(judges, np.mean(by_class, axis=0), 0.0)
        counts += judges
    by_head = np.divide(sums, counts, out=np.full(n_heads, np.nan), where=counts > 0)
    n_own = np.bincount(predictions.owners, minlength=n_candidates)
    # a candidate has the mean of its heads; one without heads has none
    total = np.bincount(predictions.owners, by_head, minlength=n_candidates)
    means: NDArray[np.float64] = np.full(n_candidates, np.nan)
    return np.divide(total, n_own, out=means, where=n_own > 0)
