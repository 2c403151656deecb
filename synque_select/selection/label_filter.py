"""The label filter: drops examples whose label the classifiers of other candidates contradict.

No label of the real sample is read. The other candidates are judges, not the truth: where they are
wrong about a class, or where two groups of candidates contradict each other, the filter must stay
closed. Its floors come from reasoning; none was tuned.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.data.duplicates import content_key
from synque_select.data.families import judging_families
from synque_select.data.label_edits import LabelEdits
from synque_select.data.label_sets import label_kind, labeled_positions
from synque_select.errors import ConfigError
from synque_select.functional.label_consistency import (
    LabelVotes,
    Predictions,
    judge_accuracy,
    judge_panel,
    label_votes,
    predict_labels,
)
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.inputs import content_order
from synque_select.selection.camps import Camps, find_camps
from synque_select.selection.heads import label_heads
from synque_select.selection.labels import check_common_classes, check_labeled
from synque_select.selection.scoring import Scoring
from synque_select.types import Ranking
from synque_select.types.label_filter import DroppedLabel, LabelFilterRecord
from synque_select.utils.validation import is_number
from synque_select.utils.wording import counted, percent

__all__ = [
    "LabelFilter",
    "LabelFilterChoice",
    "LabelJudges",
    "camps_of",
    "can_judge",
    "check_filter_data",
    "check_label_filter",
    "edits_of",
    "filter_labels",
    "filter_selected",
    "label_consistency",
    "offer",
    "scored_camps",
]

# false is how YAML reads the word off
LabelFilterChoice: TypeAlias = bool | float | Literal["off", "auto"]

# a label is contradicted by the majority of the votes against it, in "auto"
_MAJORITY = 0.5
# the least number of judges for each candidate: one alone is an opinion, not a majority
_MIN_JUDGES = 2
# accuracy of the judges above chance, as a share of what is possible: below it agreement is
# "slight" (Landis and Koch 1977)
_MIN_SKILL = 0.2
# share of labels, of all and of a class, that the majority must support: where it contradicts most
# labels, either the judges or the labels are wrong, and nothing says which
_MIN_SUPPORTED = 0.5
# above this number of examples a message that was not asked for costs too much, and so does it
# above this number of predictions, of every candidate's head for every example
_MAX_OFFERED = 200_000
_MAX_PREDICTIONS = 2**25
# heads that judge every example, above that number of predictions: the share of votes against a
# label has a standard error of at most 0.06
_MAX_JUDGES = 64
# examples of each candidate that the search for camps looks at, however many candidates there are
_LEAST_JUDGED = 16
# heads that this search fits, above that number of predictions: a camp of a tenth of all candidates
# has 7 to 19 of them in 95 % of draws from 1,000
_MAX_CAMP_JUDGES = 128
_TRANSFER = "transfer"
_AUTO = "label_filter='auto' (--label-filter auto)"
# The share of right labels among those that are dropped cannot be estimated from the candidates:
# that a judge contradicts a label says the same whether the label or the judge is wrong. So this is
# what `scripts/label_filter_limits.py` measured.
_RIGHT_TOO = (
    "Some of these labels are right: on three measured tasks with 30 % of the labels redrawn at "
    "random, 18 to 46 % of those that 'auto' dropped had not been changed "
    "(docs/choosing-a-proxy.md)."
)
# larger candidates add no accuracy to a linear head, only time
_MAX_HEAD_ROWS = 1000


def check_label_filter(choice: object) -> LabelFilterChoice:
    """Return the choice of a label filter.

    Raises:
        ConfigError: It is neither "off", "auto", nor a share above 0 and below 1.
    """
    if choice == "off" or choice is False:
        return "off"
    if choice == "auto":
        return "auto"
    if is_number(choice) and isinstance(choice, int | float) and 0 < choice < 1:
        return float(choice)
    raise ConfigError(
        f"label_filter={choice!r}: {_close(choice)}allowed is 'off', 'auto', or a share above 0 "
        "and below 1: the share of the other candidates' classifiers that must contradict a label "
        "to drop its example"
    )


def _close(choice: object) -> str:
    close = difflib.get_close_matches(str(choice), ("off", "auto"), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def check_filter_data(
    choice: LabelFilterChoice, candidates: Sequence[Candidate], *, needs_embeddings: bool
) -> None:
    """Before anything is scored, refuse a label filter that could not be applied.

    Args:
        choice: The choice.
        candidates: The candidates.
        needs_embeddings: Whether a proxy of the suite uses embeddings.

    Raises:
        ConfigError: A candidate has no labels, they are not classes, or embeddings are missing.
    """
    if choice == "off":
        return
    missing = [candidate.where for candidate in candidates if candidate.label is None]
    if missing:
        raise ConfigError(
            f"label_filter={choice!r} reads the candidates' labels: give label= (--label on the "
            f"command line), the field that holds them. Without it: {', '.join(missing)}"
        )
    check_not_drawn(candidates, f"label_filter={choice!r}")
    if not needs_embeddings:
        raise ConfigError(
            f"label_filter={choice!r} needs embeddings: add a proxy that uses them, such as pad"
        )
    check_common_classes(candidates, f"label_filter={choice!r}")
    check_labeled(candidates, "the label filter")


def can_judge(candidates: Sequence[Candidate], scoring: Scoring) -> bool:
    """Return whether the candidates have labels that are classes, and embeddings."""
    if any(candidate.label is None for candidate in candidates):
        return False
    if any(part.embeddings is None for part in scoring.candidates):
        return False
    labels = [candidate.labels for candidate in candidates]
    return label_kind(labels) == "classes" and min(len(labeled_positions(y)) for y in labels) >= 2


@dataclass(frozen=True, eq=False)
class LabelJudges:
    """Classifiers of all candidates, and what each predicts for the examples of the others.

    Args:
        names: Names of the K candidates.
        classes: The C classes.
        labels: K arrays (N_k,) int64, positions in `classes`.
        predictions: The predictions of all heads.
        families: (K,) int64 family of each candidate.
        rows: K arrays (N_k,) int64, the examples that have a label; only these are judged.
        real: (H, n) int16 class that each head predicts for each real example; None if these were
            not given.
        contents: What is equal for candidates with the same inputs; None if it is not known.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: tuple[NDArray[np.int64], ...]
    predictions: Predictions
    families: NDArray[np.int64]
    rows: tuple[NDArray[np.int64], ...]
    real: NDArray[np.int16] | None = None
    contents: tuple[bytes, ...] | None = None

    @classmethod
    def fit(
        cls,
        labels: Mapping[str, Sequence[str]],
        embeddings: Mapping[str, torch.Tensor],
        *,
        families: Mapping[str, str] | None = None,
        seed: int = 0,
        real: torch.Tensor | None = None,
        contents: Mapping[str, bytes] | None = None,
        judged: Mapping[str, NDArray[np.int64]] | None = None,
        most_judges: int | None = None,
    ) -> LabelJudges:
        """Fit a head on each candidate, all at a common size, and let it predict all examples.

        Args:
            labels: Candidate name to the label of each example.
            embeddings: Candidate name to embeddings, (N, d).
            families: Candidate name to the name of its family; None if each is its own.
            seed: Random seed of the examples that larger candidates are fitted on.
            real: (n, d) embeddings of real examples to predict as well.
            contents: Candidate name to the `content_key` of its inputs; None if it is not known.
            judged: Candidate name to the positions that are predicted; None for all.
            most_judges: Number of candidates to fit a head on, drawn at random; None for all.
        """
        names = tuple(labels)
        rows = tuple(labeled_positions(labels[name]) for name in names)
        texts = [np.array(labels[name])[at] for name, at in zip(names, rows, strict=True)]
        classes = tuple(sorted({str(label) for part in texts for label in part}))
        coded = tuple(np.searchsorted(np.array(classes), part) for part in texts)
        features = [
            embeddings[name][torch.from_numpy(at)].float()
            for name, at in zip(names, rows, strict=True)
        ]
        targets = [
            torch.nn.functional.one_hot(torch.from_numpy(y), len(classes)).bool() for y in coded
        ]
        size = min(_MAX_HEAD_ROWS, *(len(y) for y in coded))
        family = [name if families is None else families[name] for name in names]
        numbers = np.unique(family, return_inverse=True)[1].astype(np.int64)
        panel = judge_panel(numbers, most_judges or len(names), seed=seed)
        heads = label_heads(
            [features[i] for i in panel], [targets[i] for i in panel], size=size, seed=seed
        )
        heads = replace(heads, owners=torch.from_numpy(panel)[heads.owners])
        own = None if real is None else predict_labels(heads, [real.float()]).classes[0]
        if judged is not None:
            places = [np.isin(at, judged[name]) for name, at in zip(names, rows, strict=True)]
            rows = tuple(at[place] for at, place in zip(rows, places, strict=True))
            coded = tuple(y[place] for y, place in zip(coded, places, strict=True))
            features = [
                x[torch.from_numpy(place)] for x, place in zip(features, places, strict=True)
            ]
        predictions = predict_labels(heads, features)
        keys = None if contents is None else tuple(contents[name] for name in names)
        return cls(names, classes, coded, predictions, numbers, rows, own, keys)

    def accuracy(self, kept: Sequence[str]) -> dict[str, float]:
        """Return how well each of these candidates' heads predict the labels of the others."""
        at = self._places(kept)
        values = judge_accuracy(
            self._among(at), [self.labels[i] for i in at], families=self.families[at]
        )
        return dict(zip(kept, values.tolist(), strict=True))

    def votes(
        self, kept: Sequence[str], weights: Mapping[str, float] | None = None
    ) -> dict[str, LabelVotes]:
        """Return the votes of these candidates on each other's labels.

        Args:
            kept: Names of the candidates that judge and are judged.
            weights: Candidate name to the weight of its vote; None for its accuracy above chance
                on the labels of the others.
        """
        at = self._places(kept)
        used = self.accuracy(kept) if weights is None else weights
        # at or below chance a vote says nothing
        above = np.array([max(0.0, used[name] - 1 / len(self.classes)) for name in kept])
        votes = label_votes(
            self._among(at),
            [self.labels[i] for i in at],
            families=self.families[at],
            weights=np.nan_to_num(above),
        )
        return dict(zip(kept, votes, strict=True))

    def camps(self, kept: Sequence[str]) -> Camps | None:
        """Return the two camps of these candidates that contradict each other; None without."""
        if tuple(kept) == self.names:
            return self.all_camps
        at = self._places(kept)
        labels = [self.labels[i] for i in at]
        contents = None if self.contents is None else [self.contents[i] for i in at]
        camps = find_camps(
            self._among(at), labels, names=kept, classes=self.classes, contents=contents
        )
        return self._at_examples(camps)

    @cached_property
    def all_camps(self) -> Camps | None:
        """Two camps of all candidates that contradict each other; None without."""
        camps = find_camps(
            self.predictions,
            self.labels,
            names=self.names,
            classes=self.classes,
            contents=self.contents,
        )
        return self._at_examples(camps)

    def _at_examples(self, camps: Camps | None) -> Camps | None:
        """Replace positions among the labeled examples by those in the candidates."""
        return None if camps is None else camps.at(dict(zip(self.names, self.rows, strict=True)))

    def n_judges(self, kept: Sequence[str]) -> int:
        """Return the smallest number of judges that one of these candidates has."""
        families = self.families[self._places(kept)]
        return len(families) - int(np.bincount(families).max())

    def _places(self, kept: Sequence[str]) -> list[int]:
        """Return the positions of some candidates."""
        return [self.place[name] for name in kept]

    @cached_property
    def place(self) -> dict[str, int]:
        """Name of each candidate to its position."""
        return {name: k for k, name in enumerate(self.names)}

    def _among(self, at: Sequence[int]) -> Predictions:
        """Return the predictions of the heads of some candidates for their examples."""
        place = np.full(len(self.names), -1)
        place[list(at)] = np.arange(len(at))
        heads = np.flatnonzero(place[self.predictions.owners] >= 0)
        return Predictions(
            tuple(self.predictions.classes[i][heads] for i in at),
            place[self.predictions.owners[heads]],
            self.predictions.known[heads],
        )


@dataclass(frozen=True, eq=False)
class LabelFilter:
    """What the filter decided, and what it drops.

    Args:
        record: The decision, for the ranking's file and for people.
        dropped: Candidate name to the dropped examples; empty if the filter is closed.
        camps: Two camps of the kept candidates whose labels contradict each other; None without.
    """

    record: LabelFilterRecord
    dropped: Mapping[str, tuple[DroppedLabel, ...]]
    camps: Camps | None = None

    def positions(self, name: str, n: int) -> NDArray[np.int64]:
        """Return the positions of a candidate's examples that remain, of n."""
        gone = [each.position for each in self.dropped.get(name, ())]
        return np.setdiff1d(np.arange(n), np.array(gone, dtype=np.int64))


def edits_of(dropped: Mapping[str, Sequence[DroppedLabel]], *, relabel: bool) -> LabelEdits:
    """Return what training changes in the candidates.

    Args:
        dropped: Candidate name to the examples that the filter found.
        relabel: Whether these are relabeled rather than dropped.
    """
    voted = {name: {each.position: each.voted for each in part} for name, part in dropped.items()}
    return LabelEdits({name: votes for name, votes in voted.items() if votes}, relabel)


def filter_labels(
    judges: LabelJudges,
    kept: Sequence[str],
    choice: LabelFilterChoice,
    *,
    weights: Mapping[str, float] | None = None,
    relabel: bool = False,
    all_camps: Camps | None = None,
) -> LabelFilter:
    """Decide whether to filter the labels of the kept candidates, and which examples to drop.

    "auto" drops an example if most votes contradict its label and another class has more votes than
    its own, provided that each candidate has at
    least 2 judges, that the judges' mean accuracy is at least 0.2 of the way from chance to 1, and
    that most votes support more than half of all labels. A class of which they support half or less
    is left as it is: there, judges and labels contradict each other too often to say which is
    wrong. If two camps of candidates contradict each other systematically, it drops nothing,
    because the majority is not the truth. A share drops every example whose label more than that
    share of the votes contradicts, without these conditions; from a half on, a label that has the
    most votes of all classes stays there as well.

    Args:
        judges: The fitted heads of all candidates.
        kept: Names of the candidates to train on: they judge, and their examples are judged.
        choice: "auto" or a share.
        weights: Candidate name to how well its head does on the labels of others, such as by the
            proxy `transfer`; None for its plain accuracy on them.
        relabel: Whether the examples get the label that most votes are for.
        all_camps: Two camps of candidates of which `judges` has a part; None without.
    """
    # of many candidates, some do not judge
    known = [value for value in judges.accuracy(kept).values() if not math.isnan(value)]
    accuracy = float(np.mean(known)) if len(kept) > 1 and known else math.nan
    votes = judges.votes(kept, weights) if len(kept) > 1 else {}
    limit = _MAJORITY if choice == "auto" else float(choice)
    against = {name: vote.contradicted > limit for name, vote in votes.items()}
    # votes that are divided among other classes do not name a better label; a share below a half
    # asks to drop labels that have the most votes, too
    if relabel or limit >= _MAJORITY:
        own = {name: judges.labels[judges.place[name]] for name in votes}
        against = {name: part & (votes[name].winner != own[name]) for name, part in against.items()}
    supported = _supported(judges, {n: v.contradicted > _MAJORITY for n, v in votes.items()})
    camps = judges.camps(kept) or _split_camps(all_camps or judges.all_camps, kept)
    reason = _closed(judges, kept, accuracy, supported, camps) if choice == "auto" else None
    if choice != "auto" and not votes:
        reason = "a single candidate has no other candidates to judge its labels"
    spared = {c for c, share in supported.by_class.items() if share <= _MIN_SUPPORTED}
    spared = spared if choice == "auto" else set()
    dropped = {} if reason else _dropped(judges, votes, against, spared)
    n, n_dropped = sum(map(len, against.values())), sum(map(len, dropped.values()))
    verb = "relabels" if relabel else "drops"
    if reason:
        sentence = f"The label filter {verb} nothing: {reason}."
    else:
        n_classes = len(judges.classes)
        sentence = _sentence(verb, n_dropped, n, limit, accuracy, supported, spared, n_classes)
    record = LabelFilterRecord(
        choice=choice,
        is_open=reason is None,
        sentence=sentence,
        accuracy=accuracy,
        supported=supported.overall,
        supported_by_class=supported.by_class,
        dropped={name: len(each) for name, each in dropped.items()},
        relabel=relabel,
    )
    return LabelFilter(record, dropped, camps)


def filter_selected(
    candidates: Sequence[Candidate],
    scoring: Scoring,
    ranking: Ranking,
    choice: LabelFilterChoice,
    *,
    relabel: bool = False,
) -> LabelFilter:
    """Filter the labels of the candidates that a ranking selects.

    Of two camps that contradict each other, nothing is dropped, whatever the choice: the majority
    is not the truth.

    Args:
        candidates: The scored candidates, with labels that are classes.
        scoring: Their scores, with embeddings. The score of `transfer`, if it is among them, is the
            weight of a candidate's vote.
        ranking: The ranking.
        choice: "auto" or a share.
        relabel: Whether the examples get the label that most votes are for.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    names = ranking.top().names
    judges, weights = _judges(candidates, scoring, names)
    camps = None if len(judges.names) == len(candidates) else camps_of(candidates, scoring)
    result = filter_labels(judges, names, choice, weights=weights, relabel=relabel, all_camps=camps)
    if result.camps is None or not result.record.is_open:
        return result
    verb = "relabels" if relabel else "drops"
    sentence = f"The label filter {verb} nothing: {result.camps.sentence}."
    closed = replace(result.record, is_open=False, sentence=sentence, dropped={})
    return replace(result, record=closed, dropped={})


def label_consistency(
    candidates: Sequence[Candidate], scoring: Scoring
) -> dict[str, NDArray[np.float64]]:
    """Return for each candidate the share of the others' votes that support each label.

    Args:
        candidates: The scored candidates, with labels that are classes.
        scoring: Their scores, with embeddings.

    Returns:
        Candidate name to (N,) float64 in 0..1; 1 where nobody can judge, or the label is missing.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    names = [candidate.name for candidate in candidates]
    judges, weights = _judges(candidates, scoring, names)
    votes = judges.votes(names, weights)
    support = {candidate.name: np.ones(len(candidate)) for candidate in candidates}
    for name, rows in zip(judges.names, judges.rows, strict=True):
        # without a judge or a label nothing speaks against it
        support[name][rows] = 1 - np.nan_to_num(votes[name].contradicted)
    return support


def _judges(
    candidates: Sequence[Candidate], scoring: Scoring, kept: Sequence[str]
) -> tuple[LabelJudges, Mapping[str, float] | None]:
    """Return judges of some candidates, and the weights of their votes by `transfer`, if scored.

    The judges are those of all candidates. Of many, they are some of these candidates' own: that
    each head predicts all examples would take time that grows with the square.
    """
    labeled = _Labeled.of(candidates)
    if labeled.is_small:
        judges = _fitted(labeled, scoring)
    else:
        judges = _fitted(labeled.part(kept), scoring, most_judges=_MAX_JUDGES)
    transfer = scoring.scores.get(_TRANSFER)
    if transfer is None or not bool(torch.isfinite(transfer.values).all()):
        return judges, None
    names = [part.name for part in scoring.candidates]
    return judges, dict(zip(names, transfer.values.tolist(), strict=True))


@dataclass(frozen=True)
class _Labeled:
    """What heads are fitted on, besides embeddings: name to labels, family and inputs."""

    labels: Mapping[str, Sequence[str]]
    families: Mapping[str, str]
    contents: Mapping[str, bytes]

    @classmethod
    def of(cls, parts: Sequence[Candidate] | Sequence[ProxyInput]) -> _Labeled:
        names = [part.name for part in parts]
        return cls(
            {part.name: part.labels or () for part in parts},
            dict(zip(names, judging_families(parts), strict=True)),
            {part.name: content_key(part.digests) for part in parts},
        )

    @property
    def is_small(self) -> bool:
        """Whether the head of each candidate may predict all examples of all candidates."""
        n = sum(map(len, self.labels.values()))
        return n <= _MAX_OFFERED and n * len(self.labels) <= _MAX_PREDICTIONS

    def part(self, names: Sequence[str]) -> _Labeled:
        """Return what belongs to some of the candidates."""
        return _Labeled(
            {name: self.labels[name] for name in names},
            {name: self.families[name] for name in names},
            {name: self.contents[name] for name in names},
        )


# the order, the search for camps and the filter of one ranking ask for the same heads
_FITTED: WeakKeyDictionary[Scoring, tuple[_Labeled, LabelJudges]] = WeakKeyDictionary()
# of many candidates, they ask for the camps again
_CAMPS: WeakKeyDictionary[Scoring, tuple[_Labeled, Camps | None]] = WeakKeyDictionary()


def _fitted(
    labeled: _Labeled,
    scoring: Scoring,
    *,
    rows: Mapping[str, NDArray[np.int64]] | None = None,
    judged: Mapping[str, NDArray[np.int64]] | None = None,
    most_judges: int | None = None,
) -> LabelJudges:
    """Return the heads of the scored candidates.

    Args:
        labeled: The candidates, all of them or some.
        scoring: Their scores.
        rows: Positions of the examples to fit on; None for all.
        judged: Positions among these that are predicted; None for all.
        most_judges: As in `LabelJudges.fit`.
    """
    _, *embeddings = scoring.embeddings("a check of labels by the other candidates")
    whole = rows is None and most_judges is None
    known = _FITTED.get(scoring)
    if whole and known is not None and known[0] == labeled:
        return known[1]
    of = dict(zip((part.name for part in scoring.candidates), embeddings, strict=True))
    labels, features = labeled.labels, {name: of[name].cpu() for name in labeled.labels}
    if rows is not None:
        labels = {name: [labels[name][i] for i in at.tolist()] for name, at in rows.items()}
        features = {name: features[name][torch.from_numpy(at)] for name, at in rows.items()}
    judges = LabelJudges.fit(
        labels,
        features,
        families=labeled.families,
        seed=scoring.seed,
        contents=labeled.contents,
        judged=judged,
        most_judges=most_judges,
    )
    if whole:
        _FITTED[scoring] = labeled, judges
    return judges


def camps_of(candidates: Sequence[Candidate], scoring: Scoring) -> Camps | None:
    """Return two camps of candidates that contradict each other; None if there are none.

    Args:
        candidates: The scored candidates.
        scoring: Their scores, with embeddings.
    """
    if not can_judge(candidates, scoring):
        return None
    return _camps(_Labeled.of(candidates), scoring)


def scored_camps(scoring: Scoring) -> Camps | None:
    """Return two camps of candidates that contradict each other; None if there are none.

    Args:
        scoring: Scores by a suite that reads labels, which are classes, and embeddings.
    """
    return _camps(_Labeled.of(scoring.candidates), scoring)


def _camps(labeled: _Labeled, scoring: Scoring) -> Camps | None:
    if labeled.is_small:
        return _fitted(labeled, scoring).all_camps
    known = _CAMPS.get(scoring)
    if known is None or known[0] != labeled:
        known = _CAMPS[scoring] = labeled, _sampled_camps(labeled, scoring)
    return known[1]


def _sampled_camps(labeled: _Labeled, scoring: Scoring) -> Camps | None:
    """Return what `_camps` does, from a sample of each candidate's examples and of the judges."""
    n = len(labeled.labels)
    most = max(_LEAST_JUDGED, min(_MAX_OFFERED, _MAX_PREDICTIONS // n) // n)
    rows, judged = {}, {}
    for part in scoring.candidates:
        order = content_order(part, scoring.seed)[:_MAX_HEAD_ROWS]
        rows[part.name] = np.sort(order)
        judged[part.name] = np.searchsorted(rows[part.name], order[:most])
    judges = _fitted(labeled, scoring, rows=rows, judged=judged, most_judges=_MAX_CAMP_JUDGES)
    camps = judges.all_camps
    return None if camps is None else camps.at(rows)


def offer(
    candidates: Sequence[Candidate],
    scoring: Scoring,
    ranking: Ranking,
) -> tuple[str, ...]:
    """Return a message that says what the label filter would do, or why it would do nothing."""
    if not can_judge(candidates, scoring) or not _Labeled.of(candidates).is_small:
        return ()
    if any(candidate.population is not None for candidate in candidates):
        return ()  # it cannot be applied to examples that were not drawn
    result = filter_selected(candidates, scoring, ranking, "auto")
    if result.camps is not None:  # the decision has said who contradicts whom
        return (
            f"The label filter is off, and {_AUTO} would drop nothing: two camps of the selected "
            "candidates contradict each other.",
        )
    record = result.record
    sentence = record.sentence.replace("The label filter drops", "it would drop", 1)
    return (f"The label filter is off. With {_AUTO}, {sentence}",)


def _split_camps(camps: Camps | None, kept: Sequence[str]) -> Camps | None:
    """Return two camps of all candidates if candidates of both are kept.

    The kept ones of the smaller camp may be too few to be found as a camp among the others.
    """
    return camps if camps and all(set(names) & set(kept) for names in camps.names) else None


@dataclass(frozen=True)
class _Supported:
    """Share of labels that most votes support, of all and by class."""

    overall: float
    by_class: Mapping[str, float]


def _supported(judges: LabelJudges, against: Mapping[str, NDArray[np.bool_]]) -> _Supported:
    if not against:
        return _Supported(math.nan, {})
    labels = np.concatenate([judges.labels[judges.place[name]] for name in against])
    fine = ~np.concatenate(list(against.values()))
    by_class = {judges.classes[c]: float(fine[labels == c].mean()) for c in np.unique(labels)}
    return _Supported(float(fine.mean()), by_class)


def _closed(
    judges: LabelJudges,
    kept: Sequence[str],
    accuracy: float,
    supported: _Supported,
    camps: Camps | None,
) -> str | None:
    """Return why "auto" does not filter; None if it does."""
    if camps is not None:
        return camps.sentence
    n_judges = judges.n_judges(kept) if kept else 0
    if n_judges < _MIN_JUDGES:
        judges_ = counted(n_judges, "other selected candidate") if n_judges else "no other one"
        return (
            f"a selected candidate's labels are judged by {judges_}; a majority needs "
            f"{_MIN_JUDGES} or more"
        )
    chance = 1 / len(judges.classes)
    floor = chance + _MIN_SKILL * (1 - chance)
    if not accuracy >= floor:
        return (
            f"the candidates' classifiers predict {percent(accuracy)} of each other's labels, and "
            f"at least {percent(floor)} are needed to judge them (chance {percent(chance)})"
        )
    if not supported.overall > _MIN_SUPPORTED:
        return (
            f"the other candidates support {percent(supported.overall)} of all labels; with half "
            "or less it is unknown whether the labels or the judges are wrong"
        )
    if all(share <= _MIN_SUPPORTED for share in supported.by_class.values()):
        return "the other candidates support half or less of the labels of every class"
    return None


def _dropped(
    judges: LabelJudges,
    votes: Mapping[str, LabelVotes],
    against: Mapping[str, NDArray[np.bool_]],
    spared: set[str],
) -> dict[str, tuple[DroppedLabel, ...]]:
    numbers = [judges.classes.index(label) for label in spared]
    dropped = {}
    for name, vote in votes.items():
        k = judges.place[name]
        labels, rows = judges.labels[k], judges.rows[k]
        gone = against[name] & ~np.isin(labels, numbers)
        if len(gone) - gone.sum() < 2:
            # a dataset has at least two examples: keep the two that are contradicted least
            gone[np.argsort(vote.contradicted, kind="stable")[:2]] = False
        dropped[name] = tuple(
            DroppedLabel(
                int(rows[i]),
                judges.classes[labels[i]],
                judges.classes[vote.winner[i]],
                float(vote.contradicted[i]),
            )
            for i in np.flatnonzero(gone)
        )
    return dropped


def _sentence(
    verb: str,
    n_dropped: int,
    n: int,
    limit: float,
    accuracy: float,
    supported: _Supported,
    spared: set[str],
    n_classes: int,
) -> str:
    votes = f"more than {percent(limit)} of the other candidates' votes"
    if n_dropped:
        what = f"{n_dropped:,} of {counted(n, 'example')} ({percent(n_dropped / n)})"
        sentences = [f"The label filter {verb} {what}: {votes} contradict their labels."]
    else:
        label = "label of the other classes" if spared else "label"
        sentences = [f"The label filter {verb} nothing: no {label} is contradicted by {votes}."]
    if spared:
        shown = ", ".join(f"{c!r} ({percent(supported.by_class[c])})" for c in sorted(spared))
        sentences.append(
            f"It leaves classes of which they support half or less as they are: {shown}."
        )
    sentences.append(
        f"The candidates' classifiers predict {percent(accuracy)} of each other's labels (chance "
        f"{percent(1 / n_classes)})."
    )
    return " ".join([*sentences, _RIGHT_TOO] if n_dropped else sentences)
