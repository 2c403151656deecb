"""Proxies that compare kernel means: MMD and the energy distance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

import torch

from synque_select.errors import ConfigError
from synque_select.functional.mmd import (
    BANK,
    Kernel,
    SelfMean,
    kernel_contributions,
    mmd_permutation_p,
    off_diagonal_matrix,
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
    score_defined,
    undefined_scores,
)

__all__ = ["MMD", "Energy"]

KernelChoice = Literal["rbf", "laplacian", "polynomial"]
_MEDIANS = {"rbf": median_sq_distance, "laplacian": median_l1_distance}
_P_VALUE_ROWS = 2000
_CROSS_ROWS = 4096
_MAX_PAIRS = 2048  # real examples whose kernel matrix is held: 16 MiB


class MMD(BaseProxy):
    """Squared maximum mean discrepancy to the real sample; lower is closer.

    MMD² = mean_{i≠j} k(r_i, r_j) + mean_{i≠j} k(s_i, s_j) − 2 mean k(r_i, s_j), unbiased: its
    expectation does not depend on the sizes, so candidates of unequal size compare as they are
    (it is the exact expectation at any common size). May be below 0. The bandwidth comes from the
    real sample and is the same for all candidates of a ranking.

    Args:
        kernel: "rbf": mean of exp(−γ‖x−y‖²) over γ ∈ {0.5, 1, 2, 4, 8} / median squared
            distance; "laplacian": exp(−γ‖x−y‖₁), γ = {0.5, …, 8} / median L1 distance;
            "polynomial": (x·y / d + 1)³ (KID). On unit vectors the polynomial kernel is nearly
            the squared difference of the means: its γ = 1/d assumes features that are not
            normalised.
        protocol: "default", or "released": the authors' (polynomial, biased: all pairs).
        max_exact: Candidates with more examples have their own kernel mean estimated from random
            blocks of 1,024 that use every example once; the error is in the messages and in
            `spread`.
        p_value: Also give a permutation p-value (999 permutations) of each candidate, with the
            bandwidth of the pooled examples, as a permutation test needs; at most 2,000 of a
            candidate's examples, a random subsample. It says whether two sets differ at all, which
            grows with their size, and never ranks.

    Source: Gretton et al. 2012, equations 3 and 5; Bińkowski et al. 2018 (KID).

    Example:
        >>> MMD(kernel="polynomial").options()
        {'kernel': 'polynomial', 'protocol': 'default', 'max_exact': 20000, 'p_value': False}
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
        max_exact: int = 20_000,
        p_value: bool = False,
    ) -> None:
        if not isinstance(p_value, bool):
            raise ConfigError(f"p_value={p_value!r}: allowed is true or false")
        self.kernel = check_choice("kernel", kernel, KernelChoice)
        self.protocol = check_choice("protocol", protocol, Protocol)
        self.max_exact = check_count("max_exact", max_exact, at_least=2)
        self.p_value = p_value
        if protocol == "released":
            if kernel not in ("rbf", "polynomial"):
                raise ConfigError(f"kernel={kernel!r}: protocol='released' has the polynomial one")
            self.kernel = "polynomial"

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`."""
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

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

    2 mean ‖r_i − s_j‖ − mean_{i≠j} ‖r_i − r_j‖ − mean_{i≠j} ‖s_i − s_j‖, unbiased as `MMD` is, of
    which it is the case k(x, y) = −‖x − y‖: no bandwidth. May be below 0.

    Args:
        max_exact: As in `MMD`.

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

    def __init__(self, *, max_exact: int = 20_000) -> None:
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


def _kernel_of(choice: KernelChoice, prepared: Prepared) -> tuple[Kernel | None, tuple[str, ...]]:
    """Return the ranking's one kernel; None where no bandwidth exists."""
    real = prepared.real
    if choice == "polynomial":
        return Kernel("polynomial", (1 / real.shape[1],)), ()
    median = _MEDIANS[choice]
    scale = median(real)
    messages: tuple[str, ...] = ()
    if scale == 0:
        # an equal-weight pool: as many rows of each candidate as the real sample has
        scale = median(_pool(prepared))
        messages = ("bandwidth from a pool of all data: over half of the real pairs are equal",)
    if not scale > 0:
        return None, ()
    return Kernel(choice, tuple(factor / scale for factor in BANK)), messages


def _p_values(prepared: Prepared, choice: KernelChoice, seed: int) -> torch.Tensor:
    """Permutation p-value of each candidate; NaN where all examples are equal."""
    real, p_values = prepared.real, []
    for position, part in enumerate(prepared.inputs):
        rows = prepared.rows(position, content_order(part, seed)[:_P_VALUE_ROWS])
        kernel = _pooled_kernel(choice, torch.cat((real, rows)))
        p = math.nan if kernel is None else mmd_permutation_p(real, rows, kernel, seed=seed)
        p_values.append(p)
    return torch.tensor(p_values, dtype=torch.float64)


def _pooled_kernel(choice: KernelChoice, pool: torch.Tensor) -> Kernel | None:
    """Return a kernel that does not know which examples are real."""
    if choice == "polynomial":
        return Kernel("polynomial", (1 / pool.shape[1],))
    scale = _MEDIANS[choice](pool)
    return Kernel(choice, tuple(factor / scale for factor in BANK)) if scale > 0 else None


def _pool(prepared: Prepared) -> torch.Tensor:
    share = min(len(prepared.real), prepared.common_size())
    parts = [
        prepared.rows(position, content_order(part, 0)[:share])
        for position, part in enumerate(prepared.inputs)
    ]
    return torch.cat((prepared.real[:share], *parts))


def score_kernel(
    prepared: Prepared, kernel: Kernel, *, unbiased: bool, max_exact: int, seed: int
) -> ProxyScores:
    """MMD² of every candidate under one kernel, with its resampling and its witness."""
    real, n = prepared.real, len(prepared.real)
    own = [
        _self_mean(prepared, position, kernel, max_exact, seed)
        for position in range(len(prepared.inputs))
    ]
    contributions = torch.stack(
        [kernel_contributions(kernel, real, prepared.embeddings(i)) for i in range(len(own))], 1
    ).cpu()
    among_real = self_kernel_mean(kernel, real, max_exact=n)
    own_means = torch.tensor(
        [mean.off_diagonal if unbiased else mean.all_pairs for mean in own], dtype=torch.float64
    )

    cross_mean = cache(lambda i, j: _cross_mean(prepared, i, j, kernel, seed))

    def mixture(weights: torch.Tensor) -> float:
        w = weights.double().cpu()
        among = w.square() @ own_means - 2 * (w @ contributions.mean(0))
        pairs = itertools.combinations(w.nonzero().flatten().tolist(), 2)
        return float(real_mean + among + sum(2 * w[i] * w[j] * cross_mean(i, j) for i, j in pairs))

    real_mean = among_real.off_diagonal if unbiased else among_real.all_pairs
    diagonal = None if unbiased else among_real.diagonal
    errors = torch.tensor([mean.standard_error for mean in own], dtype=torch.float64)
    return ProxyScores(
        values=real_mean + own_means - 2 * contributions.mean(0),
        resample=_resampling(kernel, real, contributions, own_means, diagonal),
        spread=errors if bool(errors.any()) else None,
        example_scores=lambda k: _witness(prepared, k, kernel, max_exact, seed),
        messages=_estimate_message(prepared, errors),
        mixture=mixture,
    )


def _resampling(
    kernel: Kernel,
    real: torch.Tensor,
    contributions: torch.Tensor,
    own_means: torch.Tensor,
    diagonal: float | None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """MMD² under weights of the real examples; with a mean of the diagonal, the biased one."""
    n = len(real)
    factor = 1.0 if diagonal is None else (n - 1) / n
    constant = own_means if diagonal is None else own_means + diagonal / n
    if n <= _MAX_PAIRS:
        pairs = off_diagonal_matrix(kernel, real).cpu() * (factor * (n / (n - 1)) ** 2)
        return Contributions(-2 * contributions, constant, pairs)

    def resample(weights: torch.Tensor) -> torch.Tensor:
        with precise():
            among = weighted_kernel_mean(kernel, real, weights).cpu() * factor
        return among.unsqueeze(1) + constant - 2 * weights.cpu() @ contributions

    return resample


def _cross_mean(prepared: Prepared, i: int, j: int, kernel: Kernel, seed: int) -> float:
    """Mean kernel between two candidates.

    The one with fewer examples enters by a random subsample if it has over 4,096: linear cost.
    """
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
    """Mean kernel of each example with the real sample less that with its own candidate."""
    part = prepared.inputs[position]
    chosen = content_order(part, seed)[:max_exact]
    with precise():
        points = prepared.rows(position)
        sample = points if len(part) <= max_exact else prepared.rows(position, chosen)
        to_real = kernel_contributions(kernel, points, prepared.real)
        to_own = kernel_contributions(kernel, points, sample)
    return (to_real - to_own).cpu()
