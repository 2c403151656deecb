"""How many of a candidate's labels follow from its inputs, however hard these are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["Predictability", "kappa_influences"]

_LEVEL = 0.95


def kappa_influences(
    first: NDArray[np.int64], second: NDArray[np.int64], n_classes: int
) -> tuple[float, NDArray[np.float64]]:
    r"""Return Cohen's kappa of two labelings, and what each example adds to it.

    .. math:: \kappa = (p_o - p_e) / (1 - p_e)

    with the share p_o of equal labels and the share p_e that is expected by chance from how often
    each labeling has each class.

    Args:
        first: (N,) int64 classes, below `n_classes`.
        second: (N,) int64 classes.
        n_classes: Number of classes.

    Returns:
        Kappa, at most 1; and (N,) float64 influences with mean 0, whose standard deviation over √N
        is its standard error. NaN and zeros if both labelings have one and the same class only.

    Source:
        Cohen 1960, Educational and Psychological Measurement 20; the influences are the derivatives
        of kappa in the weight of an example (delta method, Fleiss, Cohen and Everitt 1969).

    Example:
        >>> first, second = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
        >>> round(kappa_influences(first, second, 2)[0], 3)
        0.5
    """
    shares = [np.bincount(part, minlength=n_classes) / len(part) for part in (first, second)]
    equal, by_chance = first == second, float(shares[0] @ shares[1])
    if by_chance == 1:
        return math.nan, np.zeros(len(first))
    observed = float(equal.mean())
    value = (observed - by_chance) / (1 - by_chance)
    expected = shares[1][first] + shares[0][second] - 2 * by_chance
    return value, (equal - observed - (1 - value) * expected) / (1 - by_chance)


@dataclass(frozen=True, eq=False)
class Predictability:
    """How well a candidate's own classifiers predict its labels, and what others say of its inputs.

    Args:
        labels: Kappa of held-out predictions with the candidate's labels.
        others: Kappa of the same predictions with the votes of other candidates' classifiers.
        influences: (2, N) float64, what each example adds to the two; see `kappa_influences`.
    """

    labels: float
    others: float
    influences: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        labels: NDArray[np.int64],
        own: NDArray[np.int64],
        votes: NDArray[np.int64],
        n_classes: int,
    ) -> Predictability:
        """Compare predictions with labels and with votes.

        Args:
            labels: (N,) int64 labels of the candidate, below `n_classes`.
            own: (N,) int64 what classifiers trained on its other examples predict.
            votes: (N,) int64 what classifiers of other candidates predict together.
            n_classes: Number of classes.
        """
        with_labels, first = kappa_influences(own, labels, n_classes)
        with_others, second = kappa_influences(own, votes, n_classes)
        return cls(with_labels, with_others, np.stack([first, second]))

    @property
    def ratio(self) -> float:
        r"""Kappa with the labels over kappa with the votes; NaN if the latter may be 0.

        Hard inputs lower both, and random labels only the first: if a share ε of the labels is
        drawn at random, the ratio is 1 − ε times what it was. It is not a share of right labels, as
        own and other classifiers share errors. Two exchanged classes do not lower it: a candidate's
        own classifiers learn them.

        Source:
            The agreement of two judges as a product of their accuracies: Dawid and Skene 1979,
            Applied Statistics 28.

        Example:
            >>> votes = np.arange(400) % 2
            >>> random = np.random.default_rng(0).permutation(votes)
            >>> half = np.where(np.arange(400) < 200, random, votes)
            >>> round(Predictability.of(half, votes, votes, 2).ratio, 1)
            0.5
        """
        is_known = math.isfinite(self.labels) and self._is_above(self.others, self.influences[1])
        return self.labels / self.others if is_known else math.nan

    def is_below(self, ratio: float) -> bool:
        """Return whether the ratio is shown to be below a number, by a one-sided t-test."""
        if not math.isfinite(self.ratio) or not math.isfinite(ratio):
            return False
        first, second = self.influences
        return self._is_above(ratio * self.others - self.labels, ratio * second - first)

    @staticmethod
    def _is_above(value: float, influences: NDArray[np.float64]) -> bool:
        """Return whether a value is shown to be above 0."""
        n = len(influences)
        if n < 2 or not math.isfinite(value):
            return False
        error = float(np.std(influences, ddof=1)) / math.sqrt(n)
        return bool(value > stdtrit(n - 1, _LEVEL) * error)
