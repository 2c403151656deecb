"""Kernel proxies: maximum mean discrepancy (MMD) and energy distance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
    off_diagonal_matrix,
    permutation_p_tensor,
    random_blocks,
    resampling_factor,
    self_kernel_mean,
    stacked_kernel_sums,
    weighted_kernel_mean,
)
from synque_select.functional.pairwise import (
    median_l1_distances,
    median_sq_distances,
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
    similar_sizes,
    sizes_of,
    undefined_scores,
)
from synque_select.utils.device import batch_bytes, in_batches, prefetched

__all__ = ["MMD", "Energy", "comparable_options"]

KernelChoice = Literal["rbf", "laplacian", "polynomial"]
# largest set of which all pairs are evaluated by default, now and up to version 0.1.0
_MAX_EXACT, _FORMER_MAX_EXACT = 4_096, 20_000
_MEDIANS = {"rbf": median_sq_distances, "laplacian": median_l1_distances}
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
    (scale,) = median([real])
    messages: tuple[str, ...] = ()
    if scale == 0:
        # more than half of the pairs are duplicates, and 1 / median would be infinite. Every set
        # has the same number of rows in the pool: otherwise the largest candidate would determine
        # the bandwidth
        (scale,) = median([_pool(prepared)])
        messages = ("bandwidth from a pool of all data: over half of the real pairs are equal",)
    if not scale > 0:
        return None, ()
    return Kernel(choice, tuple(factor / scale for factor in BANK)), messages


def _p_values(prepared: Prepared, choice: KernelChoice, seed: int) -> torch.Tensor:
    """Permutation p-value of each candidate; NaN if all examples are equal."""
    real = prepared.real[_one_per_group(prepared.real_input, seed)]
    chosen = [content_order(part, seed)[:_P_VALUE_ROWS] for part in prepared.inputs]

    def pools() -> Iterator[torch.Tensor]:
        parts = (prepared.stored(k, rows) for k, rows in enumerate(chosen))
        return (torch.cat((real, rows)) for rows in prefetched(parts, real))

    if choice == "polynomial":
        kernels = [_scaled_kernel(choice, 0.0, real.shape[1])] * len(chosen)
    else:
        kernels = [
            _scaled_kernel(choice, scale, real.shape[1]) for scale in _MEDIANS[choice](pools())
        ]
    p_values = []
    for pool, kernel in zip(pools(), kernels, strict=True):
        p_values.append(
            torch.full((), torch.nan, dtype=torch.float64, device=real.device)
            if kernel is None
            else permutation_p_tensor(pool[: len(real)], pool[len(real) :], kernel, seed=seed)
        )
    return torch.stack(p_values).cpu()


def _one_per_group(real: ProxyInput, seed: int) -> torch.Tensor:
    """Return positions of real examples that are independent of each other."""
    # a permutation test is exact for exchangeable rows only: the examples of a group stay alike
    # under every labeling
    order, groups = content_order(real, seed), real_groups(real)
    if groups is None:
        return torch.arange(len(real))
    first = np.unique(groups[order], return_index=True)[1]
    return torch.from_numpy(np.sort(order[first]))


def _scaled_kernel(choice: KernelChoice, median: float, d: int) -> Kernel | None:
    """Return a kernel whose bandwidth does not depend on which examples are real."""
    # a permutation test is exact only if the statistic is the same function under all labelings: a
    # bandwidth from the real sample would favor the true one
    if choice == "polynomial":
        return Kernel("polynomial", (1 / d,))
    return Kernel(choice, tuple(factor / median for factor in BANK)) if median > 0 else None


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
    each = means.of(range(len(prepared.inputs)))
    own = [mean.own for mean in each]
    contributions = torch.stack([mean.to_real for mean in each], 1)
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


@dataclass(frozen=True)
class _Means:
    """The mean kernel of a candidate with itself, and of each real example with it.

    Args:
        own: Among the candidate's examples.
        to_real: (n,) float64, on the CPU.
    """

    own: SelfMean
    to_real: torch.Tensor

    @classmethod
    def of_sets(cls, sums: NDArray[np.float64]) -> _Means:
        """Return the means of a candidate from those of the sets that it was divided into.

        Args:
            sums: (S, 3 + n) of each set: Σ_{i≠j} k(s_i, s_j), Σ_i k(s_i, s_i), Σ_s k(r, s) with
                each real example r, and its number of examples.
        """
        n = sums[:, -1]
        off_diagonal = sums[:, 0] / (n * (n - 1))
        own = SelfMean.of_blocks(off_diagonal, sums[:, 1] / n, n.astype(np.int64))
        return cls(own, torch.from_numpy(sums[:, 2:-1].sum(0) / n.sum()))


class _KernelMeans:
    """The kernel means that MMD² consists of, each computed once, when it is first needed.

    MMD² of a mixture is quadratic in the weights, so the same means serve every mixture.
    """

    def __init__(self, prepared: Prepared, kernel: Kernel, max_exact: int, seed: int) -> None:
        self._prepared, self._kernel = prepared, kernel
        self._max_exact, self._seed = max_exact, seed
        self._known: dict[int, _Means] = {}
        self._cross: dict[tuple[int, int], float] = {}

    def of(self, positions: Sequence[int]) -> list[_Means]:
        """Return the means of some candidates."""
        missing = [k for k in positions if k not in self._known]
        if self._prepared.real.is_cuda:
            self._known |= self._at_once(missing)
        else:
            self._known |= {k: self._one(k) for k in missing}
        return [self._known[k] for k in positions]

    def _one(self, position: int) -> _Means:
        prepared = self._prepared
        own = _self_mean(prepared, position, self._kernel, self._max_exact, self._seed)
        points = prepared.embeddings(position)
        return _Means(own, kernel_contributions(self._kernel, prepared.real, points).cpu())

    def _at_once(self, positions: Sequence[int]) -> dict[int, _Means]:
        """Compute what `_one` does for many candidates, in batches that fill a GPU."""
        sets = [(k, rows) for k in positions for rows in self._sets(k)]
        sums: dict[int, list[NDArray[np.float64]]] = {k: [] for k in positions}
        for group in similar_sizes([len(rows) for _, rows in sets]):
            chosen = [sets[i] for i in group]
            batches = in_batches(
                chosen, self._n_at_once(len(chosen[0][1])), self._prepared.real, *self._steps()
            )
            # read once per group and not per batch, which would wait for each of them
            for (k, rows), row in zip(chosen, torch.cat(batches).cpu().numpy(), strict=True):
                sums[k].append(np.append(row, len(rows)))
        return {k: _Means.of_sets(np.stack(parts)) for k, parts in sums.items()}

    def _steps(
        self,
    ) -> tuple[
        Callable[[Sequence[tuple[int, NDArray[np.int64]]]], torch.Tensor],
        Callable[[Sequence[tuple[int, NDArray[np.int64]]], torch.Tensor], torch.Tensor],
    ]:
        real = self._prepared.real

        def load(sets: Sequence[tuple[int, NDArray[np.int64]]]) -> torch.Tensor:
            return self._prepared.stacked([k for k, _ in sets], [rows for _, rows in sets])

        def compute(
            sets: Sequence[tuple[int, NDArray[np.int64]]], rows: torch.Tensor
        ) -> torch.Tensor:
            sizes = sizes_of([len(places) for _, places in sets], real.device)
            off_diagonal, diagonal, to_real = stacked_kernel_sums(self._kernel, rows, sizes, real)
            return torch.cat((torch.stack((off_diagonal, diagonal), 1), to_real), 1)

        return load, compute

    def _n_at_once(self, n: int) -> int:
        real = self._prepared.real
        # rows, as they are stored and copied ahead; all pairs, but of those a part at a time
        rows, pairs = 6 * n * real.shape[1], 4 * n * max(n, len(real))
        budget = batch_bytes(real) // real.element_size()
        return max(budget // (rows + pairs), min(1, budget // (2 * rows)))

    def _sets(self, position: int) -> list[NDArray[np.int64]]:
        """Return the rows of a candidate, in sets within which all pairs are evaluated."""
        part = self._prepared.inputs[position]
        if len(part) <= self._max_exact:
            return [np.arange(len(part))]
        order = torch.from_numpy(content_order(part, self._seed))
        return [rows.numpy() for rows in random_blocks(order)]

    @cached_property
    def among_real(self) -> SelfMean:
        # always exact: the real sample is small, and its resampling uses all pairs as well
        real, groups = self._prepared.real, real_groups(self._prepared.real_input)
        return self_kernel_mean(self._kernel, real, max_exact=len(real), groups=groups)

    def mixture(self, *, unbiased: bool) -> Callable[[torch.Tensor], float]:
        """Return MMD² as a function of the weights of the candidates."""

        def score(weights: torch.Tensor) -> float:
            # called after `score` has returned, and so outside the `precise` block around it
            with precise():
                w = weights.double().cpu()
                used = w.nonzero().flatten().tolist()
                w = w[used]
                means = self.of(used)
                own_means = [m.own.off_diagonal if unbiased else m.own.all_pairs for m in means]
                to_real = torch.stack([m.to_real.mean() for m in means])
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
        w = weights.tolist()
        cross = self._between_pairs([(used[i], used[j]) for i, j in pairs])
        return math.fsum(2 * w[i] * w[j] * mean for (i, j), mean in zip(pairs, cross, strict=True))

    def _between_pairs(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """Return the mean kernel between the two candidates of each pair."""
        missing = [pair for pair in pairs if pair not in self._cross]
        if missing:
            means = [
                _cross_mean(self._prepared, i, j, self._kernel, self._seed) for i, j in missing
            ]
            self._cross |= dict(zip(missing, torch.stack(means).cpu().tolist(), strict=True))
        return [self._cross[pair] for pair in pairs]

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


def _cross_mean(prepared: Prepared, i: int, j: int, kernel: Kernel, seed: int) -> torch.Tensor:
    """Return the mean kernel between two candidates, a float64 scalar on the device.

    If the smaller candidate has more than 4,096 examples, a random subsample of it is used, which
    leaves the mean unbiased and makes the cost linear in the larger candidate.
    """
    # ties are broken by position, so that (i, j) and (j, i) give the same number
    few, many = sorted((i, j), key=lambda k: (len(prepared.inputs[k]), k))
    with precise():
        rows = prepared.rows(few, content_order(prepared.inputs[few], seed)[:_CROSS_ROWS])
        return kernel_contributions(kernel, rows, prepared.embeddings(many)).mean()


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
