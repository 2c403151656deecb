"""Domain-classifier proxy: the proxy A-distance between real and synthetic examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.pad import (
    CrossFit,
    cross_fit,
    pad_from_errors,
    proxy_a_distance_released,
    real_contributions,
)
from synque_select.functional.pairwise import precise
from synque_select.proxies.base import BaseProxy, Contributions, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    Protocol,
    check_choice,
    check_count,
    content_order,
    cross_fit_folds,
    example_groups,
    mixture_of_defined,
    parts_of,
    score_defined,
    size_message,
)
from synque_select.utils.device import batch_bytes, in_batches, prefetched

__all__ = ["PAD"]

_Result = TypeVar("_Result")
# further fits, with other folds and subsamples, for the spread of the scores
_REFITS = 8
# far from the seeds of other rankings, whose folds would be the same
_SEED_STEP = 1_000_003


class PAD(BaseProxy):
    """Proxy A-distance (PAD) from a linear real-or-synthetic classifier; lower is closer.

    2 (1 − 2ε), where ε is the mean of the two classes' held-out soft errors |p − y| of a logistic
    regression (L2 penalty with C = 1, no standardization, balanced class weights). It is
    cross-fitted over stratified folds, and equal examples share a fold, as do the real examples of
    one group. 0 is chance and 2 perfect
    separation. All candidates are scored at a common size, on a random subsample, because a
    classifier that is trained on more examples finds more differences. Up to 8 further fits, with
    other folds and subsamples, give the spread of the scores, which is part of their intervals.

    Args:
        n_folds: Largest number of folds; never more than the distinct examples of a class.
        protocol: "default", or "released" for the authors' procedure: a single 80/20 split of the
            rows (synthetic first, then real) with seed 42, neither weighted nor stratified.
        max_examples: Largest common size.

    Source: Ben-David et al. 2007; SynQuE (arXiv 2511.03928).

    Example:
        >>> PAD().options()
        {'n_folds': 5, 'protocol': 'default', 'max_examples': 20000}
    """

    key = "pad"
    higher_is_better = False
    unit = "2(1 - 2 error)"
    source = "Ben-David et al. 2007"
    family = "domain"

    def __init__(
        self, *, n_folds: int = 5, protocol: Protocol = "default", max_examples: int = 20_000
    ) -> None:
        self.n_folds = check_count("n_folds", n_folds, at_least=2)
        self.protocol = check_choice("protocol", protocol, Protocol)
        self.max_examples = check_count("max_examples", max_examples, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        if self.protocol == "released":
            return score_defined(real, candidates, device, _released_pad)
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return the score of mixtures; see `BaseProxy.mixture_score`."""
        if self.protocol == "released":
            return None
        return mixture_of_defined(real, candidates, device, lambda p: self._mixture(p, seed))

    def values(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> torch.Tensor:
        """Return the scores alone by the default protocol, (K,) float64.

        An interval takes several times as many fits as the score.
        """

        def score(prepared: Prepared) -> ProxyScores:
            m = prepared.common_size(self.max_examples)
            task = _Classification.make(prepared, m, self.n_folds, seed)
            return ProxyScores(_pad(*task.errors(task.fit())))

        return score_defined(real, candidates, device, score).values

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        m = prepared.common_size(self.max_examples)
        task = _Classification.make(prepared, m, self.n_folds, seed)
        fits = task.fit()
        real_errors, synthetic_errors = task.errors(fits)
        values = _pad(real_errors, synthetic_errors)
        contributions = -2 * task.real_contributions(fits)
        # the classifiers are not fitted again on resamples: a copy of a training example among the
        # held-out ones would be recognized, and the error would be too low. The contributions
        # include the effect of a real example on the fits, to first order; the candidate is fixed,
        # so the mean of its own errors is a constant
        return ProxyScores(
            values=values,
            resample=Contributions(contributions, 2 * (1 - synthetic_errors)),
            spread=self._spread(prepared, m, seed, values, contributions),
            example_scores=lambda k: _realness(prepared, k, task.chosen[k], fits.get(k)),
            mixture=self._mixture(prepared, seed),
            messages=(
                *size_message(prepared, m, "by a random subsample"),
                *_undefined_message(prepared, values),
            ),
        )

    def _mixture(self, prepared: Prepared, seed: int) -> Callable[[torch.Tensor], float]:
        """Return the PAD of m examples of a mixture."""
        m, real = prepared.common_size(self.max_examples), prepared.real

        def mixture(weights: torch.Tensor) -> float:
            # the first examples of each candidate's random order are a random subsample of it, and
            # a small change of the weights exchanges few of them: scores of similar mixtures share
            # noise
            drawn = {
                k: content_order(prepared.inputs[k], seed)[:n]
                for k, n in enumerate(parts_of(m, weights))
                if n
            }
            contents = [example_groups(prepared.inputs[k])[rows] for k, rows in drawn.items()]
            folds = cross_fit_folds(
                prepared.real_input, np.concatenate(contents), self.n_folds, seed
            )
            if folds is None:
                return math.nan
            # called after `score` has returned, and so outside the `precise` block around it
            parts = (prepared.stored(k, chosen) for k, chosen in drawn.items())
            rows = [real, *prefetched(parts, real)]
            is_real = torch.arange(len(real) + m, device=real.device) < len(real)
            with precise():
                placed = torch.from_numpy(folds).to(real.device)[None]
                chance = cross_fit(torch.cat(rows)[None], is_real, placed).probabilities[0]
            real_error, synthetic_error = 1 - chance[: len(real)].mean(), chance[len(real) :].mean()
            return pad_from_errors(float(real_error), float(synthetic_error))

        return mixture

    def _spread(
        self,
        prepared: Prepared,
        m: int,
        seed: int,
        values: torch.Tensor,
        contributions: torch.Tensor,
    ) -> torch.Tensor:
        """Return the standard deviation of each score over folds and subsamples, (K,) float64."""
        n, n_candidates = contributions.shape
        variances = contributions.var(0) / n
        # the folds add 10 to 20 % to the variance that comes from the real sample. That ratio is
        # much the same for all candidates, so a few further fits are enough to estimate it
        some = list(range(0, n_candidates, math.ceil(n_candidates / _REFITS)))
        part = replace(prepared, inputs=tuple(prepared.inputs[k] for k in some))
        seeds = [seed + _SEED_STEP * (i + 1) for i in range(math.ceil(_REFITS / len(some)))]
        tasks = [_Classification.make(part, m, self.n_folds, other) for other in seeds]
        others = torch.stack([_pad(*task.errors(task.fit())) for task in tasks])
        # two independent scores: half their squared difference is an estimate of the variance
        variance = (others - values[some]).square().div(2).nanmean(0)
        ratio = variance.nansum() / variances[some].nansum().clamp_min(torch.finfo().tiny)
        return (ratio * variances).sqrt()


def _pad(real_errors: torch.Tensor, synthetic_errors: torch.Tensor) -> torch.Tensor:
    return 2 * (1 - (real_errors + synthetic_errors))


@dataclass(frozen=True)
class _Classification:
    """The subsample of every candidate, and the folds of those that can be divided into folds.

    Args:
        prepared: The real sample and the candidates.
        chosen: Rows of each candidate's subsample, (m,) int64 each.
        folds: Maps the position of a candidate to the fold of each real and each chosen row,
            (n + m,) int64.
    """

    prepared: Prepared
    chosen: tuple[NDArray[np.int64], ...]
    folds: dict[int, torch.Tensor]

    @classmethod
    def make(cls, prepared: Prepared, m: int, n_folds: int, seed: int) -> _Classification:
        chosen = tuple(content_order(part, seed)[:m] for part in prepared.inputs)
        folds = {}
        for position, rows in enumerate(chosen):
            contents = example_groups(prepared.inputs[position])[rows]
            assigned = cross_fit_folds(prepared.real_input, contents, n_folds, seed)
            if assigned is not None:
                folds[position] = torch.from_numpy(assigned)
        return cls(prepared, chosen, folds)

    @cached_property
    def n_folds(self) -> int:
        """Largest number of folds of a candidate."""
        return max((int(folds.max()) + 1 for folds in self.folds.values()), default=1)

    @cached_property
    def is_real(self) -> torch.Tensor:
        # one mask for all candidates: each has the same number of chosen rows, the common size
        real = self.prepared.real
        return torch.arange(len(real) + len(self.chosen[0]), device=real.device) < len(real)

    def _in_batches(
        self, compute: Callable[[Sequence[int], torch.Tensor, torch.Tensor], _Result]
    ) -> list[_Result]:
        """Return what is computed of positions, rows (G, n + m, d) and folds (G, n + m) at once."""
        # the rows are gathered for each pass and not kept: K copies of n + m rows may not fit
        real, chosen = self.prepared.real, self.chosen

        def load(part: Sequence[int]) -> torch.Tensor:
            return self.prepared.stacked(part, [chosen[k] for k in part])

        def of_batch(part: Sequence[int], rows: torch.Tensor) -> _Result:
            folds = torch.stack([self.folds[k] for k in part]).to(real.device)
            both = torch.cat((real.expand(len(part), -1, -1), rows), 1)
            return compute(part, both, folds)

        n, d = len(self.is_real), real.shape[1]
        n_bytes = n * d * real.element_size()
        if real.is_cuda:
            # the rows twice, in the preconditioner and ahead; some 16 numbers of each row and fold
            n_bytes = 6 * n_bytes + 16 * 8 * self.n_folds * n
        return in_batches(list(self.folds), batch_bytes(real) // n_bytes, real, load, of_batch)

    def fit(self) -> _Fits:
        """Return the cross-fit of every candidate that has folds."""
        # the preconditioner of the first batch serves the others: the real rows, half of the
        # weight, are the same, and it changes the number of iterations only
        roots: list[torch.Tensor] = []

        def fit(part: Sequence[int], rows: torch.Tensor, folds: torch.Tensor) -> CrossFit:
            root = roots[0] if roots else None
            result = cross_fit(rows, self.is_real, folds, n_folds=self.n_folds, root=root)
            roots[:] = [result.root]
            return result

        fits = self._in_batches(fit)
        if not fits:
            return _Fits(self, None)
        probabilities = torch.cat([fit.probabilities for fit in fits])
        coefficients = torch.cat([fit.coefficients for fit in fits])
        return _Fits(self, CrossFit(probabilities, coefficients, fits[-1].root))

    def errors(self, fits: _Fits) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean held-out error on the real and on the chosen rows, (K,) float64 each."""
        n = len(self.prepared.real)
        # NaN for candidates without a fit, which cannot be divided into folds
        chances = torch.full((len(self.chosen), len(self.is_real)), torch.nan, dtype=torch.float64)
        if fits.fit is not None:
            chances[list(self.folds)] = fits.fit.probabilities.cpu()
        return (1 - chances[:, :n]).mean(1), chances[:, n:].mean(1)

    def real_contributions(self, fits: _Fits) -> torch.Tensor:
        """Return each real example's contribution to the sum of both errors, (n, K) float64."""
        shape = (len(self.prepared.real), len(self.chosen))
        contributions = torch.full(shape, torch.nan, dtype=torch.float64)
        if fits.fit is None:
            return contributions

        def of_batch(part: Sequence[int], rows: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
            return real_contributions(rows, self.is_real, folds, fits.of(part))

        with precise():
            parts = torch.cat(self._in_batches(of_batch))
        contributions[:, list(self.folds)] = parts.T.cpu()
        return contributions


@dataclass(frozen=True)
class _Fits:
    """The cross-fits of all candidates that have folds.

    Args:
        task: What was fitted.
        fit: The fits, in the order of `task.folds`; None if there are none.
    """

    task: _Classification
    fit: CrossFit | None

    def of(self, positions: Sequence[int]) -> CrossFit:
        """Return the fits of some candidates that are next to each other."""
        assert self.fit is not None
        first = list(self.task.folds).index(positions[0])
        chosen = slice(first, first + len(positions))
        fit = self.fit
        return CrossFit(fit.probabilities[chosen], fit.coefficients[chosen], fit.root)

    def get(self, position: int) -> CrossFit | None:
        """Return the fit of one candidate; None if it has none."""
        if position not in self.task.folds:
            return None
        # the classifiers of folds that the candidate lacks were trained on all of its examples
        n_folds = int(self.task.folds[position].max()) + 1
        fit = self.of([position])
        return replace(fit, coefficients=fit.coefficients[:, :n_folds])


def _undefined_message(prepared: Prepared, values: torch.Tensor) -> tuple[str, ...]:
    names = [
        part.name for part, value in zip(prepared.inputs, values, strict=True) if value.isnan()
    ]
    if not names:
        return ()
    return (
        "undefined, as a classifier needs two different examples of each side in different "
        f"folds: {', '.join(names)}",
    )


def _realness(
    prepared: Prepared, position: int, chosen: NDArray[np.int64], fit: CrossFit | None
) -> torch.Tensor:
    """Return each example's probability of being real, predicted without training on it.

    For examples outside the subsample, which no classifier was trained on, it is the mean over the
    classifiers of all folds.
    """
    if fit is None:
        return torch.full((len(prepared.inputs[position]),), torch.nan, dtype=torch.float64)
    with precise():
        logits = prepared.rows(position) @ fit.coefficients[0, :, :-1].T
        chances = torch.sigmoid((logits + fit.coefficients[0, :, -1]).double()).mean(1).cpu()
    # a classifier has learned that its training examples are synthetic: for these, only the fold
    # that was held out gives a probability that can be compared with the others
    chances[torch.from_numpy(chosen)] = fit.probabilities[0, len(prepared.real) :].cpu()
    return chances


def _released_pad(prepared: Prepared) -> ProxyScores:
    # all rows in the order of the file, at each candidate's own size: the split of seed 42 is a
    # split of positions, and the published values depend on it
    positions = range(len(prepared.inputs))
    values = [proxy_a_distance_released(prepared.real, prepared.rows(k)) for k in positions]
    scores = torch.tensor(values, dtype=torch.float64)
    names = [prepared.inputs[k].name for k in positions if scores[k].isnan()]
    message = f"undefined, as the 80 % to train on hold one side only: {', '.join(names)}"
    return ProxyScores(values=scores, messages=(message,) if names else ())
