"""Proxies that let the candidates judge each other's labels; no real label is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from synque_select.data.families import judging_families, no_other_family
from synque_select.data.label_sets import MAX_CLASSES, LabelSets, label_kind, labeled_positions
from synque_select.errors import ProxyError
from synque_select.functional.importance import (
    ImportanceWeights,
    fit_importance_weights,
    kish_size,
)
from synque_select.functional.transfer import (
    Heads,
    balanced_accuracy,
    correct_shares,
    fit_heads,
    fit_ridge_heads,
    votes_of_others,
    weighted_r2,
)
from synque_select.proxies.base import BaseProxy, Contributions, Family, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    check_count,
    content_order,
    cross_fit_folds,
    embeddings_of,
    example_groups,
    is_finite,
    real_groups,
    score_defined,
    size_message,
)
from synque_select.utils.device import check_fits, prefetched
from synque_select.utils.wording import counted

__all__ = ["Agreement", "BaselineTransfer", "Transfer"]

_FOLDS = 5
# rows of all candidates together: more cost time, and the real sample is what limits the weights
_MAX_POOL = 10_000
_LEVEL = 0.95


class _LabelProxy(BaseProxy):
    """A proxy that fits a head on each candidate's own labels."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "balanced accuracy, or R² for numbers"
    family: ClassVar[Family] = "labels"
    needs_labels: ClassVar[bool] = True

    def __init__(self, *, n_draws: int = 3, max_examples: int = 1000) -> None:
        self.n_draws = check_count("n_draws", n_draws, at_least=1)
        self.max_examples = check_count("max_examples", max_examples, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        _check_labels(self.key, candidates)
        return score_defined(
            real,
            candidates,
            device,
            lambda prepared: self.judge(
                _Judges.fit(prepared, self.n_draws, self.max_examples, seed, self.key)
            ),
        )

    def judge(self, judges: _Judges) -> ProxyScores:
        """Return the scores, from the heads of all candidates."""
        raise NotImplementedError


class Transfer(_LabelProxy):
    """Importance-weighted accuracy of a candidate's head on all others' labels; higher is better.

    A linear head is trained on the candidate's own labels and tested on the labeled examples of
    all other candidates. Each example counts by p_real/p_synthetic from a domain classifier, so
    that the score is an estimate for inputs like the real ones: the mean over classes of the
    weighted share that is predicted right. Every other family has the same total weight before
    that. Copies and near copies of each other are one family (see `judging_families`). Numbers are
    scored by a weighted R², lists of classes by the balanced accuracy of each class. Heads are
    trained at a common size, and classifiers are cross-fitted without the candidate's own family.

    A class counts if at least two families have it. A head that never saw a class gets 0 for it;
    the details say how many classes it misses.

    Two candidates are compared over the judges as well as over the real sample: a difference that
    other judges might turn around is none. The interval of a score is that of new real samples.

    Args:
        n_draws: Number of subsamples of a candidate that is larger than the common size.
        max_examples: Largest number of examples of a candidate to use.

    Source: Sugiyama, Krauledat and Müller 2007 (importance-weighted validation); RoSE (EACL 2026)
    for choosing among generators of synthetic data by training on one and testing on the others.

    Example:
        >>> Transfer().options()
        {'n_draws': 3, 'max_examples': 1000}
    """

    key = "transfer"
    source = "Sugiyama et al. 2007; RoSE 2026"

    def judge(self, judges: _Judges) -> ProxyScores:
        """Return the importance-weighted scores; see `_LabelProxy.judge`."""
        importance = judges.importance()
        if importance is None:
            values = torch.full((len(judges.families),), torch.nan, dtype=torch.float64)
            message = (
                "undefined, as a domain classifier needs two different examples of each side in "
                "different folds, also without any one family"
            )
            return ProxyScores(values, messages=(message,), reliable=False)
        weights = importance.weights[judges.families]
        values, slopes = judges.tested(weights)
        groups = real_groups(judges.prepared.real_input)
        influences = importance.real_influences(
            slopes, judges.families, None if groups is None else torch.from_numpy(groups)
        )
        each = values.cpu() + influences.cpu()
        sizes = kish_size(weights).cpu()
        n_pool = (weights > 0).sum(1).cpu()
        clipped = importance.clipped.sum(1)[judges.families].cpu()
        message = (
            f"examples of the others that test a candidate: {_span(n_pool)}, which count as "
            f"{_span(sizes)} after weighting them towards the real sample"
        )
        details = {
            "effective_size": judges.named(sizes),
            "n_judging": judges.named(n_pool),
            "n_clipped": judges.named(clipped),
            **judges.details(),
        }
        return ProxyScores(
            values.cpu(),
            resample=Contributions(each, judges=judges.by_family(slopes).cpu()),
            messages=(*judges.messages(), message),
            details=details,
        )


class BaselineTransfer(_LabelProxy):
    """Accuracy of a candidate's head on all others' labels, without weights; higher is better.

    `Transfer` without importance weights, which is a baseline, as it reads no real example.

    Args:
        n_draws: As for `Transfer`.
        max_examples: As for `Transfer`.

    Example:
        >>> BaselineTransfer.family
        'baseline'
    """

    key = "baseline_transfer"
    family: ClassVar[Family] = "baseline"
    source = "a baseline without the real sample"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; `real` is not used."""
        # a candidate in the place of the real sample, of which only dtype and device are used
        usable = [part for part in candidates if is_finite(embeddings_of(part))]
        place = usable[0] if usable else real
        return super().score(place, candidates, seed=seed, device=device)

    def judge(self, judges: _Judges) -> ProxyScores:
        """Return the unweighted scores; see `_LabelProxy.judge`."""
        values, _ = judges.tested(judges.shares[judges.families])
        return ProxyScores(values.cpu(), messages=judges.messages(), details=judges.details())


class Agreement(_LabelProxy):
    """Agreement of a candidate's head with the other heads on the real sample; higher is better.

    Each head predicts the classes of the real examples. The others' prediction is the class of the
    highest mean probability of the other families' heads, one vote per family. The score is the
    mean over these classes of the share of examples on which the candidate's head agrees: plain
    agreement, which is in the details with a t-interval, is highest for heads that always follow
    the largest class. Numbers are scored by R² against the mean prediction of the others.

    It is high for a candidate that shares the majority's mistakes, so that it is a column of its
    own and never part of a consensus.

    Args:
        n_draws: Number of subsamples of a candidate that is larger than the common size.
        max_examples: Largest number of examples of a candidate to use.

    Source: Jiang et al. 2022, "Assessing generalization of SGD via disagreement"; Baek et al.
    2022, "Agreement-on-the-line".

    Example:
        >>> Agreement().options()
        {'n_draws': 3, 'max_examples': 1000}
    """

    key = "agreement"
    source = "Jiang et al. 2022; Baek et al. 2022"

    def judge(self, judges: _Judges) -> ProxyScores:
        """Return the agreement; see `_LabelProxy.judge`."""
        values, plain = judges.agreement()
        details = judges.details()
        if plain is not None:
            details["plain"] = judges.named(_t_intervals(plain.cpu()))
        # no `resample`: a class that the heads see in one or two real examples counts as much as
        # any other, and a linear approximation of that covers 0.66 at a nominal 0.95 (n = 60)
        return ProxyScores(values.cpu(), messages=judges.messages(), details=details)


def _span(values: torch.Tensor) -> str:
    """Return the range of some numbers, or the one that all of them are."""
    low, high = (f"{float(end):,.0f}" for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _t_intervals(right: torch.Tensor) -> torch.Tensor:
    """(K, 3) mean and ends of Student's interval of (K, n) shares, from 0 to 1."""
    n = right.shape[1]
    mean = right.mean(1)
    half = stdtrit(n - 1, (1 + _LEVEL) / 2) * right.std(1) / n**0.5
    return torch.stack((mean, mean - half, mean + half), 1).clamp(0, 1)


def _check_labels(key: str, candidates: Sequence[ProxyInput]) -> None:
    missing = [part.name for part in candidates if part.labels is None]
    if missing:
        raise ProxyError(
            f"{key} reads the candidates' labels, and there are none for {', '.join(missing)}: "
            "give label=, the field that holds them"
        )
    if len(candidates) < 2:
        raise ProxyError(f"{key} needs at least 2 candidates: each is judged by the others")


@dataclass(frozen=True)
class _Judges:
    """The heads of all candidates, and the labeled examples that they are tested on.

    Args:
        prepared: The real sample and the candidates.
        labels: The labels of the chosen rows.
        heads: The heads.
        size: The common number of training rows.
        features: (N, d) rows of the pool, those of each candidate in its content order.
        targets: (N, C) labels of the pool.
        owners: (N,) int64 candidate of each row of the pool.
        families: (K,) int64 family of each candidate, 0 to E − 1.
        contents: (N,) uint64 `example_groups` of the pool.
        seed: Random seed.
    """

    prepared: Prepared
    labels: LabelSets
    heads: Heads
    size: int
    features: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    families: torch.Tensor
    contents: NDArray[np.uint64]
    seed: int

    @classmethod
    def fit(
        cls, prepared: Prepared, n_draws: int, max_examples: int, seed: int, key: str
    ) -> _Judges:
        inputs, device = prepared.inputs, prepared.real.device
        names, nobody = judging_families(inputs), no_other_family(inputs)
        if nobody is not None:
            raise ProxyError(f"{key}: {nobody}")
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        chosen = [_labeled_order(key, part, seed)[:max_examples] for part in inputs]
        labels = _read_labels(key, inputs, chosen)
        # on the host: all candidates together may not fit onto the device
        real = prepared.real
        rows = [part.to(real.dtype) for part in prepared.stored_rows(range(len(chosen)), chosen)]
        size = min(map(len, chosen))
        if labels.kind == "numbers":
            heads = fit_ridge_heads(
                rows, labels.targets, size=size, n_draws=n_draws, seed=seed, like=real
            )
        else:
            heads = fit_heads(
                rows,
                labels.targets,
                size=size,
                n_draws=n_draws,
                seed=seed,
                exclusive=labels.kind == "classes",
                like=real,
            )
        most = max(2, _MAX_POOL // len(inputs))
        pool = [part[:most] for part in rows]
        n_pool, d = sum(map(len, pool)), real.shape[1]
        # some 28 numbers of each row and family, and the rows of all of them, in float64
        check_fits(8 * n_pool * (28 * len(numbers) + 6 * d), real)
        owners = [torch.full((len(part),), k) for k, part in enumerate(pool)]
        return cls(
            prepared,
            labels,
            heads,
            size,
            next(prefetched(iter([torch.cat(pool)]), real)),
            torch.cat([part[:most] for part in labels.targets]).to(device),
            torch.cat(owners).to(device),
            torch.tensor([numbers[name] for name in names]).to(device),
            np.concatenate(
                [example_groups(p)[at[:most]] for p, at in zip(inputs, chosen, strict=True)]
            ),
            seed,
        )

    @cached_property
    def shares(self) -> torch.Tensor:
        """(E, N) float64 share of each row among the examples of all families but one."""
        # families have equal totals, and within a family its candidates
        of_row = self.families[self.owners]
        sizes = torch.bincount(self.owners).double()[self.owners]
        siblings = torch.bincount(self.families).double()[of_row]
        weights = 1 / (sizes * siblings)
        n_families = int(self.families.max()) + 1
        outside = of_row != torch.arange(n_families, device=of_row.device).unsqueeze(1)
        return outside * weights / (n_families - 1)

    @cached_property
    def counted(self) -> torch.Tensor:
        """(C,) bool, whether at least two families have the class (and lack it, with lists)."""
        # a class that one family alone has would be 0 for all heads but its own, which is not
        # tested on it
        if self.labels.kind == "numbers":
            return self.targets.new_ones(1, dtype=torch.bool)
        sides = [self.targets]
        if self.labels.kind == "lists":
            sides.append(~self.targets)
        of_row, counted = self.families[self.owners], []
        for side in sides:
            rows = side.new_zeros(int(self.families.max()) + 1, side.shape[1], dtype=torch.int64)
            counted.append((rows.index_add_(0, of_row, side.long()) > 0).sum(0) >= 2)
        return torch.stack(counted).all(0)

    @cached_property
    def n_missing(self) -> torch.Tensor:
        """(K,) number of classes that none of a candidate's heads has seen."""
        known = self.heads.by_candidate(self.heads.known.double()) > 0
        return (~known & self.counted).sum(1)

    def importance(self) -> ImportanceWeights | None:
        """Fit the importance weights; None if the examples cannot be divided into folds."""
        folds = cross_fit_folds(self.prepared.real_input, self.contents, _FOLDS, self.seed)
        if folds is None:
            return None
        places = torch.from_numpy(folds).to(self.features.device)
        numbers = torch.arange(int(folds.max()) + 1).to(places).unsqueeze(1)
        trained = (places[len(self.prepared.real) :] != numbers).double()
        if not (self.shares @ trained.T > 0).all():
            return None
        return fit_importance_weights(self.prepared.real, self.features, self.shares, places)

    def tested(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each candidate's score on the pool, (K,), and its derivatives, (K, N).

        Args:
            weights: (K, N) weights of the rows for each candidate.
        """
        if self.labels.kind == "numbers":
            predicted = self.heads.by_candidate(self.heads.numbers(self.features))
            return weighted_r2(predicted, self.targets[:, 0], weights)
        cells = correct_shares(self.heads, self.features, self.targets, self.counted)
        return balanced_accuracy(cells, weights)

    def by_family(self, slopes: torch.Tensor) -> torch.Tensor:
        """Return how each family, as a judge, moves the scores, (E, K); see `Contributions.judges`.

        Args:
            slopes: (K, N) derivatives of the scores in the logarithms of the rows' weights.
        """
        # a family is the unit, not its examples: these have one generator, and share its mistakes
        n_families = int(self.families.max()) + 1
        sums = slopes.new_zeros(n_families, len(slopes))
        return n_families * sums.index_add_(0, self.families[self.owners], slopes.T)

    def agreement(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the agreement on the real sample, (K,), and how often heads agree, (K, n)."""
        real = self.prepared.real
        equal = real.new_ones(len(self.families), len(real))
        if self.labels.kind == "numbers":
            predicted = self.heads.by_candidate(self.heads.numbers(real))
            others = votes_of_others(predicted, self.families)
            return weighted_r2(predicted, others, equal)[0], None
        chances = self.heads.probabilities(real)
        votes = votes_of_others(self.heads.by_candidate(chances), self.families)
        if self.labels.kind == "classes":
            expected = votes.argmax(2)
            own = chances.argmax(2) == expected[self.heads.owners]
            right = self.heads.by_candidate(own.double())
            cells = [(expected == c, right) for c in range(votes.shape[2])]
            return balanced_accuracy(cells, equal)[0], right
        wanted = votes > 0.5
        own = (chances > 0.5) == wanted[self.heads.owners]
        right = self.heads.by_candidate(own.double())
        cells = [
            (side[..., c], right[..., c])
            for c in range(votes.shape[2])
            for side in (wanted, ~wanted)
        ]
        return balanced_accuracy(cells, equal)[0], right.mean(2)

    def named(self, values: torch.Tensor) -> dict[str, object]:
        """Return values of the candidates by name."""
        return {
            part.name: value
            for part, value in zip(self.prepared.inputs, values.cpu().tolist(), strict=True)
        }

    def details(self) -> dict[str, object]:
        """Return what a report shows beside the scores."""
        if self.labels.kind == "numbers":
            return {"labels": "numbers", "unit": "R²", "head_size": self.size}
        return {
            "labels": self.labels.kind,
            "unit": "balanced accuracy",
            "n_classes": int(self.counted.sum()),
            "missing_classes": self.named(self.n_missing),
            "head_size": self.size,
        }

    def messages(self) -> tuple[str, ...]:
        """Return what a reader of the scores must know."""
        messages = list(size_message(self.prepared, self.size, "by random subsamples"))
        alone = [
            name
            for name, counted in zip(self.labels.names, self.counted.cpu().tolist(), strict=True)
            if not counted
        ]
        if alone:
            messages.append(
                f"classes that fewer than two families have do not count: {', '.join(alone)}"
            )
        lacking = [
            f"{part.name} ({n})"
            for part, n in zip(self.prepared.inputs, self.n_missing.cpu().tolist(), strict=True)
            if n
        ]
        if lacking:
            messages.append(
                f"of the {counted(int(self.counted.sum()), 'class', 'classes')}, some are not "
                f"among the labels of {', '.join(lacking)}, whose heads get 0 for them"
            )
        return tuple(messages)


def _labeled_order(key: str, part: ProxyInput, seed: int) -> NDArray[np.int64]:
    """Return a random order of the examples with a label, which depends on their content only."""
    order = content_order(part, seed)
    labeled = order[np.isin(order, labeled_positions(part.labels or ()))]
    if len(labeled) < 2:
        raise ProxyError(
            f"{key}: {part.name} has a label for {counted(len(labeled), 'example')} of "
            f"{len(part):,}; at least 2 are needed"
        )
    return labeled


def _read_labels(key: str, inputs: Sequence[ProxyInput], chosen: Sequence[np.ndarray]) -> LabelSets:
    labels = [part.labels or () for part in inputs]
    kind = label_kind(labels)
    if kind == "texts":
        n = len({label for part in labels for label in part})
        raise ProxyError(
            f"{key}: the labels are texts ({n} different ones); allowed are classes (at most "
            f"{MAX_CLASSES}), lists of classes, and numbers. Free answers can be compared only by "
            "a model that is trained on them: see surrogate validation"
        )
    return LabelSets.read(
        [[part[i] for i in places.tolist()] for part, places in zip(labels, chosen, strict=True)],
        kind,
    )
