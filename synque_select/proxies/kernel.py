"""Kernel proxies: maximum mean discrepancy (MMD) and energy distance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.errors import ConfigError
from synque_select.functional.mmd import (
    BANK,
    Kernel,
    SelfMean,
    kernel_contributions,
    mmd_permutation_p,
    off_diagonal_matrix,
    resampling_factor,
    self_kernel_mean,
    weighted_kernel_mean,
)
from synque_select.functional.pairwise import (
    median_l1_distance,
    median_sq_distance,
    precise,
)
from synque_select.proxies.base import BaseProxy, Contributions, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    Protocol,
    check_choice,
    check_count,
    content_order,
    mixture_of_defined,
    real_groups,
    score_defined,
    undefined_scores,
)

__all__ = ["MMD", "Energy", "comparable_options"]

KernelChoice = Literal["rbf", "laplacian", "polynomial"]
# largest set of which all pairs are evaluated by default, now and up to version 0.1.0
_MAX_EXACT, _FORMER_MAX_EXACT = 4_096, 20_000
_MEDIANS = {"rbf": median_sq_distance, "laplacian": median_l1_distance}
# the permutation test needs the kernel of all pairs, so its cost is quadratic in these rows
_P_VALUE_ROWS = 2000
# largest number of rows for the smaller of two candidates in their mean kernel: linear cost
_CROSS_ROWS = 4096
# rows of a mixture where all pairs of its candidates would be more than the square of this number.
# The MMD² of 24 candidates of 1,000 then has an error of 2e-4; that from a real sample of 100 is
# 7e-3
_BETWEEN_ROWS = 8192
# largest real sample whose kernel matrix is kept in memory: 16 MiB in float32
_MAX_PAIRS = 2048


class MMD(BaseProxy):
    """Squared maximum mean discrepancy (MMD) to the real sample; lower is closer.

    MMD² = mean_{i≠j} k(r_i, r_j) + mean_{i≠j} k(s_i, s_j) − 2 mean k(r_i, s_j). This estimate is
    unbiased: its expectation does not depend on the sizes of the sets, so candidates of different
    size can be compared without subsampling. It can be negative. The bandwidth comes from the
    real sample and is the same for all candidates of a ranking. If the real sample has groups, the
    first mean is over pairs of different groups.

    Args:
        kernel: "rbf" is the mean of exp(−γ‖x−y‖²) over γ ∈ {0.5, 1, 2, 4, 8} / median squared
            distance. "laplacian" is the mean of exp(−γ‖x−y‖₁) over γ ∈ {0.5, 1, 2, 4, 8} / median
            L1 distance. "polynomial" is (x·y / d + 1)³, the kernel of KID. On unit vectors, MMD²
            with the polynomial kernel is nearly the squared difference of the means, because
            γ = 1/d assumes features that are not normalized.
        protocol: "default", or "released" to reproduce the authors' code: the polynomial kernel
            and the biased estimate over all pairs.
        max_exact: Largest candidate whose own kernel mean is computed from all pairs. For larger
            ones it is estimated from random blocks of 1,024 examples, which use every example
            once; the standard error is reported in the messages and in `spread`.
        p_value: Whether to compute a permutation p-value per candidate as well (999 permutations,
            on a random subsample of at most 2,000 of its examples, with the bandwidth of the
            pooled examples; of a real sample with groups, on one example per group). The test
            asks whether the two sets differ at all, and its power grows with their size, so
            p-values are never used to rank.

    Source: Gretton et al. 2012, equations 3 and 5; Bińkowski et al. 2018 (KID).

    Example:
        >>> MMD(kernel="polynomial").options()
        {'kernel': 'polynomial', 'protocol': 'default', 'max_exact': 4096, 'p_value': False}
    """

    key = "mmd"
    higher_is_better = False
    unit = "squared distance of kernel means"
    source = "Gretton et al. 2012"
    family = "kernel"

    def __init__(
        self,
        *,
        kernel: KernelChoice = "rbf",
        protocol: Protocol = "default",
        max_exact: int = _MAX_EXACT,
        p_value: bool = False,
    ) -> None:
        if not isinstance(p_value, bool):
            raise ConfigError(f"p_value={p_value!r}: allowed is true or false")
        self.kernel = check_choice("kernel", kernel, KernelChoice)
        self.protocol = check_choice("protocol", protocol, Protocol)
        self.max_exact = check_count("max_exact", max_exact, at_least=2)
        self.p_value = p_value
        if protocol == "released":
            # "rbf" is the default, so it may not have been chosen and is replaced silently;
            # "laplacian" must have been asked for, and replacing it would be wrong
            if kernel not in ("rbf", "polynomial"):
                raise ConfigError(
                    f"kernel={kernel!r}: protocol='released' uses the polynomial kernel; leave "
                    "kernel out or set it to 'polynomial'"
                )
            self.kernel = "polynomial"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return the score of mixtures; see `BaseProxy.mixture_score`."""

        def mixture(prepared: Prepared) -> Callable[[torch.Tensor], float] | None:
            kernel, _ = _kernel_of(self.kernel, prepared)
            if kernel is None:
                return None
            means = _KernelMeans(prepared, kernel, self.max_exact, seed)
            return means.mixture(unbiased=self.protocol == "default")

        return mixture_of_defined(real, candidates, device, mixture)

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        kernel, messages = _kernel_of(self.kernel, prepared)
        if kernel is None:
            return undefined_scores(
                len(prepared.inputs),
                "mmd is undefined: all embeddings are equal, so no bandwidth exists",
            )
        unbiased = self.protocol == "default"
        scores = score_kernel(
            prepared, kernel, unbiased=unbiased, max_exact=self.max_exact, seed=seed
        )
        if self.p_value:
            scores = replace(scores, p_values=_p_values(prepared, self.kernel, seed))
        return replace(scores, messages=(*messages, *scores.messages))


class Energy(BaseProxy):
    """Energy distance to the real sample; lower is closer.

    2 mean ‖r_i − s_j‖ − mean_{i≠j} ‖r_i − r_j‖ − mean_{i≠j} ‖s_i − s_j‖. This is the unbiased
    `MMD` with k(x, y) = −‖x − y‖, a kernel without a bandwidth. It can be negative.

    Args:
        max_exact: Largest candidate whose own mean distance is computed from all pairs; larger
            ones are estimated from random blocks, as in `MMD`.

    Source: Székely and Rizzo 2013; Sejdinovic et al. 2013.

    Example:
        >>> Energy().higher_is_better
        False
    """

    key = "energy"
    higher_is_better = False
    unit = "distance between embeddings"
    source = "Székely and Rizzo 2013"
    family = "kernel"

    def __init__(self, *, max_exact: int = _MAX_EXACT) -> None:
        self.max_exact = check_count("max_exact", max_exact, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(
            real,
            candidates,
            device,
            lambda parts: score_kernel(
                parts, Kernel("energy"), unbiased=True, max_exact=self.max_exact, seed=seed
            ),
        )

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return the score of mixtures; see `BaseProxy.mixture_score`."""

        def mixture(prepared: Prepared) -> Callable[[torch.Tensor], float]:
            means = _KernelMeans(prepared, Kernel("energy"), self.max_exact, seed)
            return means.mixture(unbiased=True)

        return mixture_of_defined(real, candidates, device, mixture)


def comparable_options(key: str, options: Mapping[str, Any], largest: int) -> Mapping[str, Any]:
    """Return options that are equal if and only if the scores are, for keys of stored results.

    Up to 4,096 examples, all pairs are evaluated under the default of `max_exact` and under that of
    version 0.1.0: the scores are the same, and so are the keys.

    Args:
        key: Key of any proxy.
        options: Its options.
        largest: Size of the largest candidate.

    Example:
        >>> comparable_options("energy", {"max_exact": 4096}, 1000)
        {'max_exact': 20000}
        >>> comparable_options("energy", {"max_exact": 4096}, 5000)
        {'max_exact': 4096}
    """
    is_kernel = key in (MMD.key, Energy.key)
    if is_kernel and largest <= _MAX_EXACT and options.get("max_exact") == _MAX_EXACT:
        return {**options, "max_exact": _FORMER_MAX_EXACT}
    return options


def _kernel_of(choice: KernelChoice, prepared: Prepared) -> tuple[Kernel | None, tuple[str, ...]]:
    """Return the kernel for the whole ranking; None if no bandwidth can be computed."""
    # one kernel for all candidates: with a bandwidth per pair, a distant candidate would widen
    # its own kernel and so appear closer than it is
    real = prepared.real
    if choice == "polynomial":
        return Kernel("polynomial", (1 / real.shape[1],)), ()
    median = _MEDIANS[choice]
    scale = median(real)
    messages: tuple[str, ...] = ()
    if scale == 0:
        # more than half of the pairs are duplicates, and 1 / median would be infinite. Every set
        # has the same number of rows in the pool: otherwise the largest candidate would determine
        # the bandwidth
        scale = median(_pool(prepared))
        messages = ("bandwidth from a pool of all data: over half of the real pairs are equal",)
    if not scale > 0:
        return None, ()
    return Kernel(choice, tuple(factor / scale for factor in BANK)), messages


def _p_values(prepared: Prepared, choice: KernelChoice, seed: int) -> torch.Tensor:
    """Permutation p-value of each candidate; NaN if all examples are equal."""
    real, p_values = prepared.real[_one_per_group(prepared.real_input, seed)], []
    for position, part in enumerate(prepared.inputs):
        rows = prepared.rows(position, content_order(part, seed)[:_P_VALUE_ROWS])
        kernel = _pooled_kernel(choice, torch.cat((real, rows)))
        p = math.nan if kernel is None else mmd_permutation_p(real, rows, kernel, seed=seed)
        p_values.append(p)
    return torch.tensor(p_values, dtype=torch.float64)


def _one_per_group(real: ProxyInput, seed: int) -> torch.Tensor:
    """Return positions of real examples that are independent of each other."""
    # a permutation test is exact for exchangeable rows only: the examples of a group stay alike
    # under every labeling
    order, groups = content_order(real, seed), real_groups(real)
    if groups is None:
        return torch.arange(len(real))
    first = np.unique(groups[order], return_index=True)[1]
    return torch.from_numpy(np.sort(order[first]))


def _pooled_kernel(choice: KernelChoice, pool: torch.Tensor) -> Kernel | None:
    """Return a kernel whose bandwidth does not depend on which examples are real."""
    # a permutation test is exact only if the statistic is the same function under all labelings: a
    # bandwidth from the real sample would favor the true one
    if choice == "polynomial":
        return Kernel("polynomial", (1 / pool.shape[1],))
    scale = _MEDIANS[choice](pool)
    return Kernel(choice, tuple(factor / scale for factor in BANK)) if scale > 0 else None


def _pool(prepared: Prepared) -> torch.Tensor:
    share = min(len(prepared.real), prepared.common_size())
    # seed 0 whatever the ranking's seed: the bandwidth defines the score, so it must not be random
    parts = [
        prepared.rows(position, content_order(part, 0)[:share])
        for position, part in enumerate(prepared.inputs)
    ]
    return torch.cat((prepared.real[:share], *parts))


def score_kernel(
    prepared: Prepared, kernel: Kernel, *, unbiased: bool, max_exact: int, seed: int
) -> ProxyScores:
    """Return MMD² of every candidate under one kernel, with resampling and example scores."""
    real, groups = prepared.real, real_groups(prepared.real_input)
    means = _KernelMeans(prepared, kernel, max_exact, seed)
    own = [means.own(position) for position in range(len(prepared.inputs))]
    contributions = torch.stack([means.to_real(i) for i in range(len(own))], 1)
    among_real = means.among_real
    own_means = torch.tensor(
        [mean.off_diagonal if unbiased else mean.all_pairs for mean in own], dtype=torch.float64
    )
    real_mean = among_real.off_diagonal if unbiased else among_real.all_pairs
    errors = torch.tensor([mean.standard_error for mean in own], dtype=torch.float64)
    return ProxyScores(
        values=real_mean + own_means - 2 * contributions.mean(0),
        resample=_resampling(
            kernel, real, groups, contributions, own_means, None if unbiased else among_real
        ),
        spread=errors if bool(errors.any()) else None,
        example_scores=lambda k: _witness(prepared, k, kernel, max_exact, seed),
        messages=_estimate_message(prepared, errors),
        mixture=means.mixture(unbiased=unbiased),
    )


class _KernelMeans:
    """The kernel means that MMD² consists of, each computed once, when it is first needed.

    MMD² of a mixture is quadratic in the weights, so the same means serve every mixture.
    """

    def __init__(self, prepared: Prepared, kernel: Kernel, max_exact: int, seed: int) -> None:
        self._prepared, self._kernel, self._seed = prepared, kernel, seed
        self.own = cache(lambda i: _self_mean(prepared, i, kernel, max_exact, seed))
        self.to_real = cache(self._to_real)
        self._cross = cache(lambda i, j: _cross_mean(prepared, i, j, kernel, seed))

    @cached_property
    def among_real(self) -> SelfMean:
        # always exact: the real sample is small, and its resampling uses all pairs as well
        real, groups = self._prepared.real, real_groups(self._prepared.real_input)
        return self_kernel_mean(self._kernel, real, max_exact=len(real), groups=groups)

    def _to_real(self, position: int) -> torch.Tensor:
        points = self._prepared.embeddings(position)
        return kernel_contributions(self._kernel, self._prepared.real, points).cpu()

    def mixture(self, *, unbiased: bool) -> Callable[[torch.Tensor], float]:
        """Return MMD² as a function of the weights of the candidates."""

        def score(weights: torch.Tensor) -> float:
            # called after `score` has returned, and so outside the `precise` block around it
            with precise():
                w = weights.double().cpu()
                used = w.nonzero().flatten().tolist()
                w = w[used]
                own = [self.own(i) for i in used]
                own_means = [mean.off_diagonal if unbiased else mean.all_pairs for mean in own]
                to_real = torch.stack([self.to_real(i).mean() for i in used])
                real = self.among_real.off_diagonal if unbiased else self.among_real.all_pairs
                among = w.square() @ torch.tensor(own_means, dtype=torch.float64)
                return float(real + among - 2 * (w @ to_real)) + self._between(used, w)

        return score

    def _between(self, used: Sequence[int], weights: torch.Tensor) -> float:
        """Return Σ_{i≠j} w_i w_j (mean kernel between candidates i and j)."""
        sizes = [len(self._prepared.inputs[k]) for k in used]
        pairs = list(itertools.combinations(range(len(used)), 2))
        work = sum(min(sizes[i], sizes[j], _CROSS_ROWS) * max(sizes[i], sizes[j]) for i, j in pairs)
        if work > _BETWEEN_ROWS**2:
            return self._sampled_between(used, weights)
        w = [float(weight) for weight in weights]
        return math.fsum(2 * w[i] * w[j] * self._cross(used[i], used[j]) for i, j in pairs)

    def _sampled_between(self, used: Sequence[int], weights: torch.Tensor) -> float:
        # a random subsample of each candidate leaves the mean kernel of every pair unbiased
        share = max(1, _BETWEEN_ROWS // len(used))
        chosen = [content_order(self._prepared.inputs[k], self._seed)[:share] for k in used]
        points = torch.cat([self._prepared.rows(k, c) for k, c in zip(used, chosen, strict=True)])
        sizes = torch.tensor([len(rows) for rows in chosen])
        each = (weights / sizes).repeat_interleave(sizes)
        parts = torch.arange(len(used)).repeat_interleave(sizes).numpy()
        mean = weighted_kernel_mean(self._kernel, points, each[None], parts)
        return float(mean) / resampling_factor(len(points), parts)


def _resampling(
    kernel: Kernel,
    real: torch.Tensor,
    groups: NDArray[np.int64] | None,
    contributions: torch.Tensor,
    own_means: torch.Tensor,
    biased: SelfMean | None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return MMD² as a function of real-example weights; with `biased`, the biased estimate."""
    n = len(real)
    # the candidate is the fixed set that training will use, so its own mean is a constant: only
    # the real sample is random. The biased estimate has the diagonal with a share of 1/n, or the
    # pairs within groups with theirs, which is held fixed too: copies in a resample would increase
    # it
    factor, constant = 1.0, own_means
    if biased is not None:
        factor = biased.off_diagonal_share
        constant = own_means + biased.diagonal_part
    if n <= _MAX_PAIRS:
        # the factor corrects for the copies in a resample, see `weighted_kernel_mean`. Kept as
        # a matrix, the resampling can be stored on disk and the embeddings are no longer needed
        factor *= resampling_factor(n, groups)
        pairs = off_diagonal_matrix(kernel, real, groups).cpu() * factor
        return Contributions(-2 * contributions, constant, pairs)

    def resample(weights: torch.Tensor) -> torch.Tensor:
        # called after `score` has returned, and so outside the `precise` block around it
        with precise():
            among = weighted_kernel_mean(kernel, real, weights, groups).cpu() * factor
        return among.unsqueeze(1) + constant - 2 * weights.cpu() @ contributions

    return resample


def _cross_mean(prepared: Prepared, i: int, j: int, kernel: Kernel, seed: int) -> float:
    """Return the mean kernel between two candidates.

    If the smaller candidate has more than 4,096 examples, a random subsample of it is used, which
    leaves the mean unbiased and makes the cost linear in the larger candidate.
    """
    # ties are broken by position, so that (i, j) and (j, i) give the same number
    few, many = sorted((i, j), key=lambda k: (len(prepared.inputs[k]), k))
    with precise():
        rows = prepared.rows(few, content_order(prepared.inputs[few], seed)[:_CROSS_ROWS])
        return float(kernel_contributions(kernel, rows, prepared.embeddings(many)).mean())


def _self_mean(
    prepared: Prepared, position: int, kernel: Kernel, max_exact: int, seed: int
) -> SelfMean:
    part = prepared.inputs[position]
    order = None
    if len(part) > max_exact:
        # blocks follow the content: the estimate must not change when a file is sorted
        order = torch.from_numpy(content_order(part, seed))
    return self_kernel_mean(
        kernel,
        prepared.embeddings(position),
        max_exact=max_exact,
        order=order,
        like=prepared.real,
    )


def _estimate_message(prepared: Prepared, errors: torch.Tensor) -> tuple[str, ...]:
    names = [part.name for part, error in zip(prepared.inputs, errors, strict=True) if error > 0]
    if not names:
        return ()
    return (
        f"estimated from random blocks of 1,024 examples (standard error at most "
        f"{float(errors.max()):.2g}): {', '.join(names)}",
    )


def _witness(
    prepared: Prepared, position: int, kernel: Kernel, max_exact: int, seed: int
) -> torch.Tensor:
    """Return each example's mean kernel with the real sample minus that with its own candidate."""
    # the witness function of Gretton et al. 2012, section 2.3: it is large where the candidate has
    # too few examples, compared to the real sample, and small where it has too many
    part = prepared.inputs[position]
    chosen = content_order(part, seed)[:max_exact]
    with precise():
        points = prepared.rows(position)
        # a subsample, because all pairs of a large candidate would take quadratic time
        sample = points if len(part) <= max_exact else prepared.rows(position, chosen)
        to_real = kernel_contributions(kernel, points, prepared.real)
        to_own = kernel_contributions(kernel, points, sample)
    return (to_real - to_own).cpu()
