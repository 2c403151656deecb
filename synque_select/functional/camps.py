"""Whether two groups of candidates contradict each other's labels systematically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synque_select.functional.label_consistency import Predictions

__all__ = [
    "Contradiction",
    "class_readings",
    "judges_of",
    "renamed_class",
    "split_by_agreement",
    "systematic_contradictions",
]

# a reading is systematic if most examples have it
_MAJORITY = 0.5
_MIN_CAMP = 2
# accuracy above chance, as a share of what is possible: below it agreement is "slight" (Landis and
# Koch 1977), as between heads that always say the same class
_MIN_SKILL = 0.2
# a class is hardly used if its share is below a tenth of its median share in the others
_HARDLY = 0.1
# half of what a class contains that was joined with another one of its size
_JOINED = 0.25


@dataclass(frozen=True)
class Contradiction:
    """One class that one camp's classifiers read as another.

    Args:
        readers: Which camp's heads read the class differently, 0 or 1.
        label: Position of the class in the labels of the other camp.
        read_as: Position of the class that the readers predict instead.
        share: Share of those examples that the readers give `read_as`, in 0..1; the median over
            the pairs of a reader and a candidate of the other camp.
        own_support: Share of them for which the other heads of their own camp predict `label`, in
            0..1; the median over its pairs.
        is_renamed: Whether the other camp hardly has the class `read_as`: it gives those examples
            the name `label`, beside those that both camps call so.
    """

    readers: int
    label: int
    read_as: int
    share: float
    own_support: float
    is_renamed: bool = False


def class_readings(
    predictions: Predictions,
    labels: Sequence[NDArray[np.int64]],
    classes: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return what the heads of each candidate predict for each class of each other candidate.

    Args:
        predictions: What `predict_labels` returned.
        labels: K arrays (N_k,) int64, the class of each example.
        classes: (C,) int64, the classes to look at, ascending; None for all.

    Returns:
        (J, K, C, C) float64: [j, b, c, d] is the share of b's examples labeled c for which the
        heads of candidate a predict d, the j-th that has heads: `judges_of(predictions)[j]`. NaN if
        a = b, if b has no example of c, or if no head of a knows c.
    """
    n_all = predictions.known.shape[1]
    classes = np.arange(n_all) if classes is None else classes
    judges, owners = np.unique(predictions.owners, return_inverse=True)
    known = predictions.known[:, classes]
    readings = np.full((len(judges), len(labels), len(classes), len(classes)), np.nan)
    # a head that has never seen a class cannot read it differently
    n_able = _by_owner(known, owners, len(judges))
    starts = n_all * np.arange(len(owners))[:, None]
    for b, y in enumerate(labels):
        for c, label in enumerate(classes.tolist()):
            rows = np.flatnonzero(y == label)
            if not len(rows):
                continue
            places = (predictions.classes[b][:, rows] + starts).ravel()
            counts = np.bincount(places, minlength=n_all * len(owners)).reshape(-1, n_all)
            sums = _by_owner(counts[:, classes] * known[:, c, None], owners, len(judges))
            total = n_able[:, c, None] * len(rows)
            shares = np.full_like(sums, np.nan)
            readings[:, b, c] = np.divide(sums, total, out=shares, where=total > 0)
        readings[judges == b, b] = np.nan
    return readings


def judges_of(predictions: Predictions) -> NDArray[np.int64]:
    """Return the candidates that have heads, (J,) int64, ascending."""
    return np.unique(predictions.owners)


def _by_owner(
    values: NDArray[np.generic], owners: NDArray[np.int64], n_judges: int
) -> NDArray[np.float64]:
    """Return the sums over the heads of each judge, (J, C), of (H, C) values."""
    sums = np.zeros((n_judges, values.shape[1]))
    np.add.at(sums, owners, values)
    return sums


def split_by_agreement(
    readings: NDArray[np.float64], judges: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Split the candidates in two by how well they predict each other's labels.

    The sign of the leading eigenvector of the double-centered matrix of pairwise agreement, the
    mean over the classes of the share of labels that are predicted. If only some candidates judge,
    it is that of their agreement with each other, and each of the others belongs to the part whose
    heads predict its labels better than is usual for them (Nyström's extension).

    Args:
        readings: What `class_readings` returned.
        judges: (J,) int64 the candidates that judge, ascending, at least 2; None for all.

    Returns:
        (K,) bool, the camp of each candidate.

    Source:
        Newman 2006, PNAS 103 (splitting a network by the leading eigenvector); Williams and Seeger
        2001 (extending an eigenvector to other rows).
    """
    agreement = _mean_of_known(np.einsum("abcc->abc", readings), axis=2)
    judges = np.arange(len(agreement)) if judges is None else judges
    among = agreement[:, judges]
    among = _mean_of_known(np.stack([among, among.T]), axis=0)
    n = len(among)
    off = ~np.eye(n, dtype=bool)
    # candidates without a common class neither agree nor contradict each other
    average = _mean_of_known(among[off], axis=0)
    among = np.where(np.isfinite(among), among, average)
    # a candidate's agreement with itself is not known: the mean of its row leaves it neutral
    np.fill_diagonal(among, (among * off).sum(axis=1) / (n - 1))
    # how good a candidate is on the whole must not decide, only whom it agrees with
    rows = among.mean(axis=0)
    centered = among - rows - rows[:, None] + among.mean()
    leading = np.linalg.eigh(centered)[1][:, -1]
    # a judge without a common class says nothing
    deviation = np.nan_to_num(agreement - rows[:, None])
    deviation -= deviation.mean(axis=0)
    camp: NDArray[np.bool_] = leading @ deviation > 0
    camp[judges] = leading > 0
    return camp


def _mean_of_known(values: NDArray[np.float64], *, axis: int) -> NDArray[np.float64]:
    """Return the mean of the values that are not NaN; NaN where there are none."""
    sums = np.nansum(values, axis=axis)
    n = np.isfinite(values).sum(axis=axis)
    unknown = np.full_like(sums, np.nan)
    means: NDArray[np.float64] = np.divide(sums, n, out=unknown, where=n > 0)
    return means


def systematic_contradictions(
    readings: NDArray[np.float64],
    camp: NDArray[np.bool_],
    judges: NDArray[np.int64] | None = None,
) -> list[Contradiction]:
    """Find the classes of one camp that the other camp reads as another class.

    The heads of one camp (the readers) read class c of the other camp as class d if they give d to
    most examples that are labeled c, but not to most that are labeled d. The second condition
    separates an exchange from a graded difference: where inputs differ, or one camp calls more
    examples positive, a head moves all examples towards one class, and gives it to those that are
    labeled so most of all. It must also hold the other way around: the heads of the other camp read
    d of the readers as c.

    The heads of the camp's other candidates must predict c for most of its examples: a class that
    is hard for everybody does not count. The readers must also predict most of each other's labels
    of the class that they read. In each camp, the heads must predict each other's labels with an
    accuracy, as a mean over classes, of at least 0.2 of the way from chance to 1: random labels,
    and heads that always say the same class, do not make a camp. All of these are medians over
    pairs of candidates, so that a single bad candidate in a camp makes no contradiction.

    Args:
        readings: What `class_readings` returned.
        camp: (K,) bool, the camp of each candidate.
        judges: (J,) int64 the candidates that judge, ascending; None for all.

    Returns:
        The contradictions, the largest share first; empty if a camp has fewer than 2 candidates
        that judge.
    """
    judges = np.arange(len(camp)) if judges is None else judges
    if not all(_is_skilled(readings, part, judges) for part in (camp, ~camp)):
        return []
    contradictions = []
    for readers in (0, 1):
        parts = _Parts.of(readings, camp == bool(readers), judges)
        if parts is None:
            return []
        for c in range(readings.shape[2]):
            one = _contradiction(parts, c)
            if one is not None:
                contradictions.append(replace(one, readers=readers))
    known = {(one.readers, one.label, one.read_as) for one in contradictions}
    mutual = [one for one in contradictions if (1 - one.readers, one.read_as, one.label) in known]
    return sorted(mutual, key=lambda one: -one.share)


def renamed_class(
    readings: NDArray[np.float64],
    counts: NDArray[np.int64],
    judges: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.bool_], Contradiction] | None:
    """Find a class that some candidates have, and that the others give the name of another class.

    The others hardly have the class themselves. The heads of those that have it predict it for at
    least a quarter more of the examples of one class of the others than of the same class of their
    own: a class that is missing because nothing like it was generated is not renamed. They must
    also predict the class for most of each other's examples of it.

    Args:
        readings: What `class_readings` returned.
        counts: (K, C) int64, number of examples of each class in each candidate.
        judges: (J,) int64 the candidates that judge, ascending; None for all.

    Returns:
        (K,) bool, the candidates that have the class; and the contradiction, the one with the
        largest share. None without.
    """
    renamed = []
    judges = np.arange(len(counts)) if judges is None else judges
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for c in np.flatnonzero((counts > 0).sum(axis=0) >= _MIN_CAMP).tolist():
        has = shares[:, c] >= _HARDLY * np.median(shares[shares[:, c] > 0, c])
        parts = _Parts.of(readings, has, judges)
        if parts is None:
            continue
        if not all(_is_skilled(readings, part, judges) for part in (has, ~has)):
            continue
        across = _medians(parts.across)[:, c]
        own = _medians(parts.coherence)[:, c]
        more = np.nan_to_num(across - own, nan=-1.0)
        d = int(np.argmax(np.where(np.arange(len(more)) == c, -1.0, more)))
        support = _medians(parts.others)[d, d]
        if more[d] > _JOINED and min(own[c], support) > _MAJORITY:
            one = Contradiction(1, d, c, float(across[d]), float(support), is_renamed=True)
            renamed.append((has, one))
    return max(renamed, key=lambda pair: pair[1].share, default=None)


def _medians(readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median over pairs of candidates, (C, C); NaN where no pair is known."""
    pairs = readings.reshape(-1, *readings.shape[2:])
    known = np.isfinite(pairs).any(axis=0)
    # a column without any value would warn
    medians: NDArray[np.float64] = np.nanmedian(np.where(known, pairs, 0.0), axis=0)
    return np.where(known, medians, np.nan)


def _is_skilled(
    readings: NDArray[np.float64], part: NDArray[np.bool_], judges: NDArray[np.int64]
) -> bool:
    """Return whether the heads of these candidates predict each other's labels beyond chance."""
    right = np.einsum("abcc->abc", readings)[np.ix_(part[judges], part)]
    skill = _mean_of_known(right, axis=2)
    chance = 1 / readings.shape[2]
    # one candidate alone has no pairs
    if not np.isfinite(skill).any():
        return False
    return bool(np.nanmedian(skill) >= chance + _MIN_SKILL * (1 - chance))


@dataclass(frozen=True)
class _Parts:
    """What the heads of the readers say of the others, and each of the two of itself."""

    across: NDArray[np.float64]
    coherence: NDArray[np.float64]
    others: NDArray[np.float64]

    @classmethod
    def of(
        cls, readings: NDArray[np.float64], is_reader: NDArray[np.bool_], judges: NDArray[np.int64]
    ) -> _Parts | None:
        """Return the readings of two parts of the candidates; None if too few of one judge."""
        a, b = is_reader, ~is_reader
        if min(a[judges].sum(), b[judges].sum()) < _MIN_CAMP:
            return None
        return cls(
            readings[np.ix_(a[judges], b)],
            readings[np.ix_(a[judges], a)],
            readings[np.ix_(b[judges], b)],
        )


def _contradiction(parts: _Parts, c: int) -> Contradiction | None:
    """Return what the readers read class c of the others as, if another."""
    across = parts.across
    read = _mean_of_known(across[:, :, c].reshape(-1, across.shape[2]), axis=0)
    d = int(np.argmax(np.where(np.arange(len(read)) == c, -1.0, np.nan_to_num(read))))
    shares = {
        "share": across[:, :, c, d],
        "own_support": parts.others[..., c, c],
        "coherence": parts.coherence[..., d, d],
        "agreed": across[:, :, d, d],
    }
    if not all(np.isfinite(part).any() for part in shares.values()):
        return None
    middle = {name: float(np.nanmedian(part)) for name, part in shares.items()}
    agreed = middle.pop("agreed")
    if not min(middle.values()) > _MAJORITY > agreed:
        return None
    return Contradiction(0, c, d, middle["share"], middle["own_support"])
