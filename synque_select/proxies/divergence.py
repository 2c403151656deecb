"""Divergences between distributions: MAUVE, smoothed MAUVE, and the Fréchet distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import numpy as np
import torch

from synque_select.errors import ConfigError, DependencyError, ProxyError
from synque_select.functional.frechet import frechet_distances, moments
from synque_select.functional.mauve import (
    default_n_bins,
    mauve_from_counts,
    project_to_variance,
    quantize,
)
from synque_select.proxies.base import BaseProxy, Family, ProxyInput, ProxyScores
from synque_select.proxies.inputs import (
    Prepared,
    check_count,
    content_order,
    real_groups,
    score_defined,
    size_message,
)
from synque_select.utils.device import batch_bytes, in_batches
from synque_select.utils.wording import counted, percent

__all__ = ["MAUVE", "Frechet", "MAUVEStar"]

Backend = Literal["torch", "mauve-text"]
# real examples that give 10 bins; a histogram of fewer bins hardly resolves two candidates
_RELIABLE_FROM = 100


class MAUVE(BaseProxy):
    """Area under the divergence frontier of two jointly quantized samples; higher is closer.

    Embeddings are scaled to unit length, projected onto the principal components that hold 90 % of
    their joint variance, and clustered together into max(2, round(min(n, m) / 10)) bins; see
    `synque_select.functional.mauve_score`. Each candidate contributes m examples, m the size of
    the smallest candidate or `max_examples`, from a random subsample that differs between seeds.
    The value is the mean over `n_seeds` quantizations and `spread` their standard deviation, which
    shows the effect of clustering and subsampling, not that of a new real sample.

    With fewer than 100 real examples (or groups of them) there are fewer than 10 bins; the scores
    are then marked as unreliable and left out of a consensus.

    Args:
        n_seeds: Number of quantizations to average.
        scale: c of the divergence frontier; the paper uses 5.
        max_examples: Largest number of examples per candidate to cluster.
        backend: "torch" for the implementation of this library, or "mauve-text" for the package of
            the paper's authors (GPLv3, installed by the extra "mauve").

    Raises:
        ConfigError: An option is out of its range.
        DependencyError: `backend="mauve-text"` was requested, but the package is not installed.

    Source:
        Pillutla et al. 2021, arXiv 2102.01454.

    Example:
        >>> MAUVE(n_seeds=2).options()
        {'n_seeds': 2, 'scale': 5.0, 'max_examples': 20000, 'backend': 'torch'}
    """

    key: ClassVar[str] = "mauve"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "area in 0..1"
    source: ClassVar[str] = "Pillutla et al. 2021, arXiv 2102.01454"
    family: ClassVar[Family] = "divergence"
    smoothing: ClassVar[float] = 0.0
    mauve_text_field: ClassVar[str] = "mauve"

    def __init__(
        self,
        n_seeds: int = 5,
        scale: float = 5.0,
        max_examples: int = 20_000,
        backend: Backend = "torch",
    ) -> None:
        if n_seeds < 1:
            raise ConfigError(f"n_seeds={n_seeds}: allowed is 1 or more")
        if not scale > 0:
            raise ConfigError(f"scale={scale}: allowed is a number above 0")
        if max_examples < 2:
            raise ConfigError(f"max_examples={max_examples}: allowed is 2 or more")
        if backend not in get_args(Backend):
            raise ConfigError(f"backend={backend!r}: allowed is 'torch' or 'mauve-text'")
        self.n_seeds = n_seeds
        self.scale = scale
        self.max_examples = max_examples
        self.backend = backend

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score each candidate `n_seeds` times, with seeds derived from `seed`, on the CPU."""
        # first, so that a missing package is reported before anything is computed
        measure = self._measure()
        # different values of `seed` have no seed in common, so their results are independent
        seeds = [seed * self.n_seeds + i for i in range(self.n_seeds)]
        # k-means reads the inertia after each step: a GPU would be waited for more than it computes
        return score_defined(
            real, candidates, torch.device("cpu"), lambda parts: self._score(parts, seeds, measure)
        )

    def _score(
        self,
        parts: Prepared,
        seeds: Sequence[int],
        measure: Callable[[torch.Tensor, torch.Tensor, int], float],
    ) -> ProxyScores:
        # the number of bins and the share of empty ones follow from the size, and with them the
        # value: only equal sizes can be compared
        size = parts.common_size(self.max_examples)
        columns = []
        for position, candidate in enumerate(parts.inputs):
            drawn = [parts.rows(position, content_order(candidate, s)[:size]) for s in seeds]
            columns.append(
                [measure(self._real(parts, s), d, s) for s, d in zip(seeds, drawn, strict=True)]
            )
        values = torch.tensor(columns, dtype=torch.float64)
        spread = values.std(1) if len(seeds) > 1 else None
        # examples of one group fall into the same bins and say little of the others
        groups = real_groups(parts.real_input)
        n_real = len(parts.real) if groups is None else len(np.unique(groups))
        # no `resample`: the bins come from both samples together, and in a bootstrap resample the
        # copies would form clusters of their own
        what = "real examples" if groups is None else "groups of real examples"
        messages = self._messages(n_real, what, size, max(map(len, parts.inputs)))
        return ProxyScores(
            values.mean(1), spread=spread, messages=messages, reliable=n_real >= _RELIABLE_FROM
        )

    def _real(self, parts: Prepared, seed: int) -> torch.Tensor:
        # k-means draws its starting points by position: in an order that follows the content, the
        # score does not change when the rows of a file are rearranged
        order = torch.from_numpy(content_order(parts.real_input, seed))
        return parts.real[order.to(parts.real.device)]

    def _messages(self, n_real: int, what: str, size: int, largest: int) -> tuple[str, ...]:
        messages = []
        if n_real < _RELIABLE_FROM:
            messages.append(
                f"{self.key} is not reliable here: {n_real} {what} give "
                f"{counted(default_n_bins(n_real, size), 'bin')}, and 10 need {_RELIABLE_FROM}"
            )
        if size < largest:
            messages.append(
                f"{self.key} compares {counted(size, 'example')} of every candidate (random "
                "subsamples, one for each of "
                f"{counted(self.n_seeds, 'seed')}; the largest candidate has {largest})"
            )
        return tuple(messages)

    def _measure(self) -> Callable[[torch.Tensor, torch.Tensor, int], float]:
        return self._by_torch if self.backend == "torch" else self._by_mauve_text()

    def _by_torch(self, real: torch.Tensor, synthetic: torch.Tensor, seed: int) -> float:
        # both sides together: components and bins of one side alone may miss the directions in
        # which the other differs from it
        points = project_to_variance(torch.cat([real, synthetic]))
        bins = default_n_bins(len(real), len(synthetic))
        counts = quantize(points[: len(real)], points[len(real) :], bins, seed=seed)
        return float(mauve_from_counts(*counts, scale=self.scale, smoothing=self.smoothing))

    def _by_mauve_text(self) -> Callable[[torch.Tensor, torch.Tensor, int], float]:
        try:
            from mauve import compute_mauve
        except ImportError as error:
            raise DependencyError(
                "mauve-text", extra="mauve", purpose="backend='mauve-text'"
            ) from error

        def measure(real: torch.Tensor, synthetic: torch.Tensor, seed: int) -> float:
            result = compute_mauve(
                p_features=real.float().cpu().numpy(),
                q_features=synthetic.float().cpu().numpy(),
                mauve_scaling_factor=self.scale,
                seed=seed,
                verbose=False,
            )
            return float(getattr(result, self.mauve_text_field))

        return measure


class MAUVEStar(MAUVE):
    """MAUVE with half an example added to every bin on both sides; higher is closer.

    With this Krichevsky-Trofimov smoothing, bins that are empty on one side no longer make a
    divergence infinite; such bins are the main reason why MAUVE varies between clusterings. The
    options and limits are those of `MAUVE`.

    Source:
        Pillutla et al. 2023, arXiv 2212.14578, add-b estimators with b = 1/2.

    Example:
        >>> MAUVEStar().smoothing
        0.5
    """

    key: ClassVar[str] = "mauve_star"
    source: ClassVar[str] = "Pillutla et al. 2023, arXiv 2212.14578"
    smoothing: ClassVar[float] = 0.5
    mauve_text_field: ClassVar[str] = "mauve_star"


class Frechet(BaseProxy):
    """Squared Fréchet distance between Gaussians fitted to both sets, as in FID; lower is closer.

    ‖μ_r − μ_s‖² + tr(Σ_r + Σ_s − 2 (Σ_r Σ_s)^½), both covariances with Ledoit-Wolf shrinkage. The
    bias of this estimate depends on the size of the sets, so all candidates are scored at a common
    size, on a random subsample.

    Args:
        shrink: Whether to shrink the covariances. Without shrinkage (the formula of FID), sets
            with fewer examples than dimensions are an error.
        max_examples: Largest common size.

    Source: Dowson and Landau 1982; Heusel et al. 2017; Ledoit and Wolf 2004.

    Example:
        >>> Frechet().options()
        {'shrink': True, 'max_examples': 20000}
    """

    key = "frechet"
    higher_is_better = False
    unit = "squared distance between embeddings"
    source = "Heusel et al. 2017"
    family = "divergence"

    def __init__(self, *, shrink: bool = True, max_examples: int = 20_000) -> None:
        self.shrink = shrink
        self.max_examples = check_count("max_examples", max_examples, at_least=2)

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score the candidates; see `BaseProxy.score`.

        Raises:
            ProxyError: There are fewer examples than dimensions, and `shrink` is False.
        """
        return score_defined(real, candidates, device, lambda parts: self._score(parts, seed))

    def _score(self, prepared: Prepared, seed: int) -> ProxyScores:
        n, d = prepared.real.shape
        m = prepared.common_size(self.max_examples)
        # a covariance of n centered rows has rank n − 1 at most: below d dimensions it is singular,
        # and the trace term measures the missing directions instead of the data
        few = min(n, m) < d
        if few and not self.shrink:
            raise ProxyError(
                f"frechet: {n} real and {counted(m, 'synthetic example')} are fewer than the "
                f"{counted(d, 'dimension')}, so the covariances are singular: allowed with "
                "shrink=True"
            )
        # the real sample is the same in every comparison and is used in full; candidates need a
        # common size, because the bias depends on it (Chong and Forsyth 2020, for FID)
        real = moments(prepared.real, shrink=self.shrink)
        values = in_batches(
            range(len(prepared.inputs)),
            # rows and covariances in float64; one candidate at a time on a CPU
            batch_bytes(prepared.real) // (8 * d * (6 * m + 6 * d)) if prepared.real.is_cuda else 1,
            prepared.real,
            lambda part: prepared.stacked(
                part, [content_order(prepared.inputs[k], seed)[:m] for k in part]
            ),
            lambda part, points: frechet_distances(real, points, shrink=self.shrink),
        )
        # a distance of two estimates that are both mostly shrinkage compares little but the means
        warning = (
            f"{n} real and {counted(m, 'synthetic example')} for {counted(d, 'dimension')}: the "
            f"covariances are mostly shrinkage ({percent(real.shrinkage)} on the real side)",
        )
        return ProxyScores(
            values=torch.cat(values).cpu(),
            messages=(
                *size_message(prepared, m, "by a random subsample"),
                *(warning if few else ()),
            ),
        )
