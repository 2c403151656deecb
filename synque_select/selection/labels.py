"""Checks of the candidates' own labels, which proxies that read only inputs cannot see.

Only the labels of candidates are read, never those of the real sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate
from synque_select.data.families import judging_families
from synque_select.data.label_sets import MAX_CLASSES, NO_LABEL, label_kind, labeled_positions
from synque_select.data.preview import shown_view
from synque_select.errors import ConfigError
from synque_select.functional.label_consistency import judge_panel
from synque_select.functional.label_noise import Predictability
from synque_select.selection.heads import label_heads
from synque_select.selection.held_out import Head, fit_held_out
from synque_select.selection.scoring import Scoring
from synque_select.types import DoubtfulLabel, LabelCheck, LabelWarning
from synque_select.types.decision import LEAST_REAL
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

__all__ = [
    "check_classes",
    "check_common_classes",
    "check_labeled",
    "check_labels",
    "check_scored_labels",
    "uncheckable_labels",
    "unpredicted",
]

_Labeled = tuple[NDArray[np.float32], NDArray[np.str_]]

_FOLDS = 5
# candidates that judge all others: of more, as many at random, so that time is linear in K
_MAX_JUDGES = 64
_LEAST_DIFFERENCE = 0.1
_LEAST_COMPARED = 3
_MAX_CLASSES = 100
_MIX_DISTANCE = 0.3
_N_REDRAWN = 1000
# halfway between labels that are all right and labels of which half is random
_LEAST_RATIO = 0.75
# the best quarter is good even where most candidates are not
_BEST = 0.75
_MAX_ROWS = 4000
_N_DOUBTFUL = 8  # examples of a candidate
_MOST_SHOWN = 10  # candidates with examples


def check_classes(candidates: Sequence[Candidate]) -> None:
    """Refuse labels that are not classes, before anything is scored.

    Args:
        candidates: The candidates.

    Raises:
        ConfigError: A candidate has no label, all of its labels are missing, it has more than 100
            classes (such as free text), or the labels are numbers with fractions, or lists.
    """
    reasons = uncheckable_labels(candidates)
    for candidate in candidates:
        if candidate.name in reasons:
            raise ConfigError(f"{candidate.where}: {reasons[candidate.name]}")


def uncheckable_labels(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the candidates whose labels cannot be checked, while those of others can.

    Args:
        candidates: The candidates.

    Returns:
        Name to the reason: no label, or labels that are all missing, more than 100 classes, or
        numbers or lists where most others have classes.

    Raises:
        ConfigError: It is so for all candidates, or the labels are numbers, or lists.
    """
    given = [c.labels for c in candidates if c.label is not None and {*c.labels} - {NO_LABEL}]
    classes = [labels for labels in given if label_kind([labels]) == "classes"]
    # one candidate with other labels does not make those of the others numbers or lists
    kind = label_kind(classes if 2 * len(classes) > len(given) else given)
    if kind == "numbers":
        raise ConfigError("the labels are numbers, and the label checks need classes")
    if kind == "lists":
        raise ConfigError(
            "the labels are lists, and the label checks, the search for camps, the label filter "
            "and ask need one class per example"
        )
    each = {candidate.name: _uncheckable(candidate) for candidate in candidates}
    reasons = {name: reason for name, reason in each.items() if reason is not None}
    if candidates and len(reasons) == len(each):
        raise ConfigError(f"{candidates[0].where}: {reasons[candidates[0].name]}")
    return reasons


def _uncheckable(candidate: Candidate) -> str | None:
    if candidate.label is None:
        return "no label is given (label=, or --label)"
    n_classes = len({*candidate.labels} - {NO_LABEL})
    if not n_classes:
        return "all labels are missing (null, NaN or blank)"
    kind = label_kind([candidate.labels])
    if kind == "lists" or (kind == "numbers" and n_classes <= _MAX_CLASSES):
        return f"they are {kind}, and the label checks need classes"
    if n_classes > _MAX_CLASSES:
        return (
            f"{counted(n_classes, 'different label')}, and the label checks need classes, at most "
            f"{_MAX_CLASSES}"
        )
    return None


def check_labeled(candidates: Sequence[Candidate], reader: str) -> None:
    """Refuse candidates with too few labels for a head, before anything is scored.

    Args:
        candidates: The candidates, with `label` set.
        reader: What reads the labels, for the message.

    Raises:
        ConfigError: A candidate has fewer than 2 examples with a label.
    """
    for candidate in candidates:
        n_labeled = len(labeled_positions(candidate.labels))
        if n_labeled < 2:
            raise ConfigError(
                f"{candidate.where}: label={candidate.label!r} is missing (null, NaN or blank) in "
                f"all but {n_labeled} of {counted(len(candidate), 'example')}, and {reader} needs "
                "at least 2: leave the candidate out, or give another label="
            )


def check_common_classes(candidates: Sequence[Candidate], reader: str) -> None:
    """Refuse labels that are not classes of all candidates together.

    Args:
        candidates: Candidates with `label` set.
        reader: What reads the labels, for the error.

    Raises:
        ConfigError: The labels are numbers, lists, or too many different ones.
    """
    kind = label_kind([candidate.labels for candidate in candidates])
    if kind != "classes":
        raise ConfigError(
            f"{reader} needs labels that are classes, one per example and at most {MAX_CLASSES} "
            f"of them; found {kind}"
        )


def check_scored_labels(candidates: Sequence[Candidate], scoring: Scoring) -> list[LabelCheck]:
    """Check the labels of candidates that were scored, on the embeddings of the scoring.

    Args:
        candidates: The scored candidates, with `label` set.
        scoring: The result of `score` for them.

    Raises:
        ConfigError: As in `check_labels`.
        ProxyError: The scoring has no embeddings.
    """
    real, *others = scoring.embeddings("a check of labels")
    names = [part.name for part in scoring.candidates]
    embeddings = dict(zip(names, others, strict=True))
    return check_labels(candidates, embeddings, real, seed=scoring.seed)


def check_labels(
    candidates: Sequence[Candidate],
    embeddings: Mapping[str, torch.Tensor],
    real: torch.Tensor,
    *,
    seed: int = 0,
) -> list[LabelCheck]:
    """Check the labels of every candidate against its own inputs and the other candidates.

    A candidate is an outlier if the share of its labels that the other candidates contradict is far
    above that of the median candidate, or the share that classifiers trained on its own other folds
    predict is far below: by three robust standard deviations and at least 10 points. Contradiction
    counts only if the labels are harder to predict than what the others call the same inputs, or if
    most examples of a class are called another one: else the others do not know these inputs, as
    those on another topic. A candidate is an outlier as well if its own classifiers predict its
    labels 10 points less often than what the others call its inputs, and the ratio of the two
    (`Predictability`) is shown to be below three quarters of that of the best quarter of the
    candidates: this finds random labels in hard inputs, and where most candidates have them. The
    others are the linear heads of all candidates at a common size (`fit_heads`), except those of
    its own family (`judging_families`), with one vote per family. An outlier gets a warning, as
    does a candidate whose labels its own folds hardly predict better than chance; that is an
    outlier as well, unless half of the candidates are like this. The class mix that a candidate's
    classifiers predict for the real sample and for its own held-out examples is compared as well
    (total variation, shown to be above 0.3 for redrawn real samples; with fewer than 20 real
    examples, nothing is said). A difference says nothing against the labels.

    The classifiers are trained in five folds, or in fewer if the classes that are too rare for five
    hold most examples; classes that are too rare are left out, and counted in `LabelCheck.rare`.

    The majority is not the truth: where two groups of candidates contradict each other, the larger
    one need not be right.

    Args:
        candidates: The candidates; examples whose label is missing are left out. Those of
            `uncheckable_labels` are not compared.
        embeddings: Candidate name to its embeddings, (N, d).
        real: (n, d) embeddings of the real sample; its labels are not used.
        seed: Random seed for the folds, and for subsamples of candidates above 4,000 examples.

    Raises:
        ConfigError: No candidate has labels that can be checked; see `uncheckable_labels`.
    """
    reasons = uncheckable_labels(candidates)
    unchecked = {name: LabelCheck.without(name, reason) for name, reason in reasons.items()}
    compared = [candidate for candidate in candidates if candidate.name not in unchecked]
    checked = _compared(compared, embeddings, real, seed)
    return [(unchecked | checked)[candidate.name] for candidate in candidates]


def _compared(
    candidates: Sequence[Candidate],
    embeddings: Mapping[str, torch.Tensor],
    real: torch.Tensor,
    seed: int,
) -> dict[str, LabelCheck]:
    """Return the checks of candidates whose labels are classes, by name."""
    rows = {c.name: _labeled_rows(c, seed) for c in candidates}
    labeled = {c.name: _labeled(c, embeddings[c.name], rows[c.name]) for c in candidates}
    rare = {name: _rare(y) for name, (_, y) in labeled.items()}
    parts = {name: _without(part, rare[name]) for name, part in labeled.items()}
    kept = {name: rows[name][~np.isin(y, [*rare[name]])] for name, (_, y) in labeled.items()}
    sources = {candidate.name: candidate for candidate in candidates}
    fits = {name: fit_held_out(x, y, n_folds=_FOLDS, seed=seed) for name, (x, y) in parts.items()}
    fitted = {name: head for name, (head, _) in fits.items()}
    own = {name: held_out for name, (_, held_out) in fits.items()}
    across = _across(parts, fitted, seed)
    agreement = {name: _agreement(y, own[name]) for name, (_, y) in parts.items()}
    votes = _votes(parts, judging_families(candidates), seed)
    contradicted = {name: vote.contradicted(parts[name][1]) for name, vote in votes.items()}
    random = _random(parts, own, votes)
    foreign = {name for name, vote in votes.items() if vote.cannot_judge(parts[name][1], own[name])}
    opposed = _outliers(contradicted, sign=1) - foreign
    hardly = {
        name for name, (_, y) in parts.items() if _hardly_follow(agreement[name], len(set(y)))
    }
    # classes that no other candidate has may be harder, so that nothing follows from a comparison
    comparable = {
        name: math.nan if _is_alone(name, contradicted) else share
        for name, share in agreement.items()
    }
    unlike = _outliers(comparable, sign=-1)
    outliers = opposed | unlike | random.keys()
    # where most are like this, the task is too hard for a linear classifier to tell
    if _LEAST_COMPARED <= len(parts) > 2 * len(hardly):
        outliers |= hardly
    # of many, the worst are enough to look at
    worst = sorted(outliers, key=lambda name: (-np.nan_to_num(contradicted[name]), name))
    shown = worst[:_MOST_SHOWN]
    checks = {}
    real_rows = real.float().cpu().numpy()
    bar = ProgressBar(parts.items(), "checking labels", delay=2, leave=False, unit="candidate")
    for name, (_, y) in bar:
        model = fitted[name]
        mix = _mix(labeled[name][1])
        predicted = np.array([], dtype=y.dtype)
        if model is not None:
            predicted = model.predict(real_rows)
        share, distance = contradicted[name], _mix_distance(own[name], predicted, seed)
        reasons = (
            *_outlier_warnings(
                name,
                contradicted,
                comparable,
                random,
                is_opposed=name in opposed,
                is_unlike=name in unlike,
            ),
            *_warnings(name, agreement[name], y, is_compared=_is_compared(name, across, share)),
        )
        checks[name] = LabelCheck(
            name,
            len(y),
            agreement[name],
            across[name],
            mix,
            _mix(predicted) if len(predicted) else {},
            tuple(each.sentence(name, next(iter(mix))) for each in reasons),
            contradicted=None if np.isnan(share) else share,
            outlier=name in outliers,
            mix_distance=None if distance is None else distance[0],
            is_mix_far=distance is not None and distance[1],
            reasons=reasons,
            rare=rare[name],
            unchecked=_unchecked(y, agreement[name]),
            doubtful=_doubtful(sources[name], kept[name], y, votes[name], own[name])
            if name in shown
            else (),
        )
    return checks


def unpredicted(checks: Sequence[LabelCheck]) -> dict[str, float]:
    """Return the outliers that the other candidates do not contradict more than they do others.

    Args:
        checks: The result of `check_labels`.

    Returns:
        Name of the candidate to the share of its labels that its other folds predict.
    """
    return {
        c.name: c.agreement
        for c in checks
        if c.outlier and all(reason.kind != "contradicted" for reason in c.reasons)
    }


@dataclass(frozen=True)
class _Votes:
    """What the heads of the other families say of a candidate's examples.

    Args:
        classes: (M,) the class with the most votes, of the examples that are judged.
        shares: (M,) the mean probability of that class.
        judged: (N,) bool, the examples whose class another family has: none of the others can
            confirm a class that only this family has.
    """

    classes: NDArray[np.str_]
    shares: NDArray[np.float64]
    judged: NDArray[np.bool_]

    def contradicted(self, labels: NDArray[np.str_]) -> float:
        """Return the share of the labels that the votes contradict."""
        return (
            float(np.mean(labels[self.judged] != self.classes)) if len(self.classes) else math.nan
        )

    def agreement(self, own: NDArray[np.str_]) -> float:
        """Return the share of these examples for which held-out predictions agree with the votes.

        Args:
            own: (N,) the held-out predictions.
        """
        return float(np.mean(own[self.judged] == self.classes))

    def cannot_judge(self, labels: NDArray[np.str_], own: NDArray[np.str_]) -> bool:
        """Return whether the votes contradict labels that nothing else makes doubtful.

        Noise makes labels harder to predict than what the votes call the same inputs, and classes
        that are exchanged or renamed have most of their examples in one other class. Where neither
        is so, the heads of the others do not know these inputs, as those on another topic.

        Args:
            labels: (N,) the labels.
            own: (N,) the held-out predictions.
        """
        if not (len(own) and len(self.classes)):
            return False
        labels, own = labels[self.judged], own[self.judged]
        if np.mean(own == labels) < np.mean(own == self.classes):
            return False
        for label in set(labels.tolist()):
            names, counts = np.unique(self.classes[labels == label], return_counts=True)
            right, wrong = counts[names == label].sum(), counts[names != label].max(initial=0)
            # one-sided sign test at 5 %
            if wrong - right > 1.645 * math.sqrt(wrong + right):
                return False
        return True

    def predictability(
        self, labels: NDArray[np.str_], own: NDArray[np.str_]
    ) -> Predictability | None:
        """Compare held-out predictions with labels and votes; None without predictions or votes."""
        if not (len(own) and len(self.classes)):
            return None
        parts = np.stack([labels[self.judged], own[self.judged], self.classes])
        names, places = np.unique(parts, return_inverse=True)
        y, predicted, voted = places.reshape(parts.shape)
        return Predictability.of(y, predicted, voted, len(names))


def _doubtful(
    candidate: Candidate,
    rows: NDArray[np.int64],
    labels: NDArray[np.str_],
    votes: _Votes,
    own: NDArray[np.str_],
) -> tuple[DoubtfulLabel, ...]:
    """Return the examples whose labels are contradicted, the most doubtful first.

    First are those that both the other candidates and its own other folds contradict, and among
    these the ones that the others are surest of.

    Args:
        candidate: The candidate.
        rows: (N,) the positions of the examples in it.
        labels: (N,) their labels.
        votes: What the others say of them.
        own: (N,) the held-out predictions; empty without.
    """
    others, shares = labels.astype(object), np.zeros(len(labels))
    others[votes.judged], shares[votes.judged] = votes.classes, votes.shares
    held_out = own.astype(object) if len(own) else labels.astype(object)
    by_others, by_own = others != labels, held_out != labels
    shares[~by_others] = 0.0
    n_against = by_others.astype(int) + by_own
    order = np.lexsort((-shares, -n_against))[:_N_DOUBTFUL]
    return tuple(
        DoubtfulLabel(
            int(rows[i]),
            shown_view(candidate.views[int(rows[i])]),
            str(labels[i]),
            str(others[i]) if by_others[i] else None,
            float(shares[i]) if by_others[i] else None,
            str(held_out[i]) if by_own[i] else None,
        )
        for i in order
        if n_against[i]
    )


def _random(
    parts: Mapping[str, _Labeled],
    own: Mapping[str, NDArray[np.str_]],
    votes: Mapping[str, _Votes],
) -> dict[str, float]:
    """Return the candidates whose labels are shown to be random in a large part.

    Returns:
        Name to the share of its examples for which its held-out predictions agree with the votes.
    """
    each = {name: votes[name].predictability(y, own[name]) for name, (_, y) in parts.items()}
    measured = {name: part for name, part in each.items() if part is not None}
    ratios = [part.ratio for part in measured.values() if not math.isnan(part.ratio)]
    if len(ratios) < _LEAST_COMPARED:
        return {}
    limit = _LEAST_RATIO * float(np.quantile(ratios, _BEST))
    # a ratio is above 1 where the others know little of the inputs: that alone does not make the
    # labels of a candidate doubtful whose inputs they know well
    agreed = {name: votes[name].agreement(own[name]) for name in measured}
    return {
        name: agreed[name]
        for name, part in measured.items()
        if part.is_below(limit)
        and _agreement(parts[name][1], own[name]) <= agreed[name] - _LEAST_DIFFERENCE
    }


def _votes(parts: Mapping[str, _Labeled], families: Sequence[str], seed: int) -> dict[str, _Votes]:
    """Return what the heads of the other families say of each candidate's examples."""
    if len(set(families)) < 2:
        nobody = np.array([], dtype=np.str_)
        none = np.array([], dtype=np.float64)
        return {
            name: _Votes(nobody, none, np.zeros(len(y), bool)) for name, (_, y) in parts.items()
        }
    names = np.array(sorted({label for _, y in parts.values() for label in y.tolist()}))
    features = [torch.from_numpy(x) for x, _ in parts.values()]
    targets = [torch.from_numpy(y[:, None] == names) for _, y in parts.values()]
    numbers = np.unique(families, return_inverse=True)[1].ravel().astype(np.int64)
    panel = judge_panel(numbers, _MAX_JUDGES, seed=seed)
    # at the size that is common to all, so that the judges of many are as good as those of few
    heads = label_heads(
        [features[i] for i in panel],
        [targets[i] for i in panel],
        size=min(map(len, features)),
        seed=seed,
    )
    heads_know = heads.by_candidate(heads.known.double()) > 0
    result = {}
    for k, (name, x, y) in enumerate(zip(parts, features, targets, strict=True)):
        weights = _weights_of_others(numbers[panel], int(numbers[k]))
        # the mean of each judge's heads, then over the judges
        votes = torch.tensordot(weights.to(x), heads.by_candidate(heads.probabilities(x)), 1)
        judged = (y & heads_know[weights > 0].any(0)).any(1).numpy()
        shares, most = (part.numpy()[judged] for part in votes.max(dim=1))
        result[name] = _Votes(names[most], shares, judged)
    return result


def _weights_of_others(families: NDArray[np.int64], own: int) -> torch.Tensor:
    """Return the weights of judges of these families: one vote per family, none of its own."""
    weights = np.where(families == own, 0.0, 1 / np.bincount(families)[families])
    return torch.from_numpy(weights / weights.sum())


def _outliers(values: Mapping[str, float], *, sign: int) -> set[str]:
    """Return the candidates whose value is far above (sign = 1) or below (−1) the median."""
    limit = _limit(values, sign)
    return {name for name, value in values.items() if sign * value > sign * limit}


def _limit(values: Mapping[str, float], sign: int) -> float:
    defined = np.array([value for value in values.values() if not np.isnan(value)])
    if len(defined) < _LEAST_COMPARED:
        return sign * math.inf
    middle = float(np.median(defined))
    # median absolute deviation, scaled to a standard deviation of normal data: a candidate with
    # wrong labels must not inflate the spread that it is measured by
    spread = 1.4826 * float(np.median(np.abs(defined - middle)))
    return middle + sign * max(3 * spread, _LEAST_DIFFERENCE)


def _labeled_rows(candidate: Candidate, seed: int) -> NDArray[np.int64]:
    """Return the positions of labeled examples; of many, a sample."""
    chosen = labeled_positions(candidate.labels)
    if len(chosen) > _MAX_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MAX_ROWS, replace=False))
    return chosen


def _labeled(candidate: Candidate, embeddings: torch.Tensor, rows: NDArray[np.int64]) -> _Labeled:
    labels = np.array(candidate.labels)[rows]
    # a view where all examples have labels
    chosen = embeddings[torch.from_numpy(rows)] if len(rows) < len(embeddings) else embeddings
    return chosen.float().cpu().numpy(), labels


def _rare(y: NDArray[np.str_]) -> dict[str, int]:
    """Return the classes that are left out, so that one of them does not stop the whole check.

    Returns:
        Class to its number of examples, which is below the number of folds; empty if nothing is
        left to check without them.
    """
    counts = Counter(y.tolist())
    for n_folds in range(_FOLDS, 1, -1):
        sizes = [n for n in counts.values() if n >= n_folds]
        if len(sizes) > 1 and 2 * sum(sizes) > len(y):
            return {label: n for label, n in sorted(counts.items()) if n < n_folds}
    return {}


def _without(part: _Labeled, rare: Mapping[str, int]) -> _Labeled:
    x, y = part
    kept = ~np.isin(y, [*rare])
    return (x[kept], y[kept]) if rare else part


def _unchecked(y: NDArray[np.str_], agreement: float) -> str | None:
    """Return why labels of several classes were not predicted; None if they were."""
    if not math.isnan(agreement) or len(set(y)) < 2:
        return None
    return "too few examples of each class to train on some and predict the others"


def _across(
    parts: Mapping[str, _Labeled], fitted: Mapping[str, Head | None], seed: int
) -> dict[str, float]:
    """Return the mean agreement of each candidate's labels with the others' classifiers, by name.

    Only classifiers of the same classes count; NaN where there is none. Of many, 64 judge.
    """
    means = dict.fromkeys(parts, math.nan)
    of_classes: dict[tuple[str, ...], dict[str, Head]] = {}
    for name, head in fitted.items():
        if head is not None:
            of_classes.setdefault(tuple(head.classes.tolist()), {})[name] = head
    for classes, heads in of_classes.items():
        if len(heads) < 2:
            continue
        names = [*heads]
        judges = [names[i] for i in judge_panel(np.arange(len(names)), _MAX_JUDGES, seed=seed)]
        # all classifiers predict in one product: a call for each pair would be mostly overhead;
        # what each score is above that of the first class is one class less to compute
        above_first = (len(classes) - 1) * len(judges)
        coefficients = np.stack([heads[name].coefficients for name in judges], axis=1)
        coefficients = (coefficients[1:] - coefficients[0]).reshape(above_first, -1)
        intercepts = np.stack([heads[name].intercepts for name in judges], axis=1)
        intercepts = (intercepts[1:] - intercepts[0]).reshape(above_first)
        for name in names:
            x, y = parts[name]
            scores = (x @ coefficients.T + intercepts).reshape(len(x), -1, len(judges))
            best = np.zeros((len(x), len(judges)), dtype=scores.dtype)
            predicted = np.zeros(best.shape, dtype=np.int16)
            for c in range(1, len(classes)):
                above = scores[:, c - 1] > best
                best, predicted[above] = np.maximum(best, scores[:, c - 1]), c
            truth = np.searchsorted(classes, y)
            each = np.eye(len(classes))[truth]
            right = predicted == truth[:, None]
            shares = (each.T @ right / each.sum(0)[:, None]).mean(0)
            means[name] = float(shares[[judge != name for judge in judges]].mean())
    return means


def _agreement(labels: NDArray[np.str_], predicted: NDArray[np.str_]) -> float:
    """Return the balanced accuracy: the share of labels predicted, as the mean over classes.

    NaN without predictions.
    """
    if not len(predicted):
        return math.nan
    _, place = np.unique(labels, return_inverse=True)
    return float(np.mean(np.bincount(place, weights=predicted == labels) / np.bincount(place)))


def _mix(labels: NDArray[np.str_]) -> dict[str, float]:
    counts = Counter(labels.tolist())
    return {label: counts[label] / len(labels) for label in sorted(counts)}


def _hardly_follow(agreement: float, n_classes: int) -> bool:
    """Return whether labels are predicted hardly better than by chance; False if unknown."""
    chance = 1 / n_classes
    return agreement < chance + 0.1 * (1 - chance)


def _mix_distance(
    own: NDArray[np.str_], real: NDArray[np.str_], seed: int
) -> tuple[float, bool] | None:
    """Return the total variation of two class mixes, and whether it is shown to be above 0.3.

    Both are predictions of the candidate's classifiers, so that what these prefer cancels out.
    """
    if not len(own) or len(real) < LEAST_REAL:
        return None
    names, places = np.unique(np.concatenate([own, real]), return_inverse=True)
    mix, other = (
        np.bincount(part, minlength=len(names)) / len(part)
        for part in (places[: len(own)], places[len(own) :])
    )
    distance = float(np.abs(mix - other).sum() / 2)
    redrawn = np.random.default_rng(seed).multinomial(len(real), other, _N_REDRAWN) / len(real)
    # the distance of a small sample is too large: the redrawn ones are again by as much
    limit = 2 * distance - float(np.quantile(np.abs(redrawn - mix).sum(1) / 2, 0.95))
    return distance, limit > _MIX_DISTANCE


def _outlier_warnings(
    name: str,
    contradicted: Mapping[str, float],
    agreement: Mapping[str, float],
    random: Mapping[str, float],
    *,
    is_opposed: bool,
    is_unlike: bool,
) -> Iterator[LabelWarning]:
    if is_opposed:
        yield LabelWarning("contradicted", (contradicted[name], _median(contradicted)))
    if is_unlike:
        yield LabelWarning("unpredicted", (agreement[name], _median(agreement)))
    elif name in random:
        yield LabelWarning("random", (agreement[name], random[name]))


def _is_alone(name: str, contradicted: Mapping[str, float]) -> bool:
    """Return whether others share classes, and none shares those of this candidate."""
    return math.isnan(contradicted[name]) and not all(map(math.isnan, contradicted.values()))


def _median(shares: Mapping[str, float]) -> float:
    return float(np.nanmedian(list(shares.values())))


def _is_compared(name: str, across: Mapping[str, float], contradicted: float) -> bool:
    alone = math.isnan(across[name]) and math.isnan(contradicted)
    return len(across) < 2 or not alone


def _warnings(
    name: str, agreement: float, labels: NDArray[np.str_], *, is_compared: bool
) -> Iterator[LabelWarning]:
    n_classes = len(set(labels))
    if n_classes < 2:
        yield LabelWarning("same")
    elif not is_compared:
        yield LabelWarning("alone")
    if _hardly_follow(agreement, n_classes):
        yield LabelWarning("chance", (agreement, 1 / n_classes))
