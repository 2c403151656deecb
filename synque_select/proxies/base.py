"""What a proxy is: it scores candidates against the real sample, and says how sure it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.examples import MapDataset
from synque_select.data.views import View
from synque_select.types.modality import Modality

__all__ = ["BaseProxy", "Contributions", "Family", "ProxyInput", "ProxyScores"]

Family = Literal[
    "kernel", "coverage", "lexical", "domain", "diversity", "divergence", "lens", "baseline"
]


@dataclass(frozen=True, eq=False)
class ProxyInput:
    """The real sample or one candidate, as a proxy sees it.

    Args:
        name: For messages.
        views: The texts or images, taken when asked for.
        modality: "text" or "image".
        digests: SHA-256 of each view, (n, 32) uint8: equal rows are exact duplicates.
        embeddings: (n, d) float32 or bfloat16, on any device or memory-mapped; None where no
            proxy of the suite asked for them.
        records: A candidate's examples as they are, answers included, for a proxy that checks
            these; None for the real sample, of which nothing but the views is ever read, and for a
            mixture.
    """

    name: str
    views: Sequence[View]
    modality: Modality
    digests: NDArray[np.uint8]
    embeddings: torch.Tensor | None = None
    records: MapDataset | None = None

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each real example contributes to the scores, as data: a `resample` that can be kept.

    s_k(w) = (c_k + Σ_i w_i a_ik + Σ_ij w_i w_j q_ij) / Σ_i w_i b_i

    Args:
        each: a, (n, K) float64.
        constant: c, (K,) float64; None for 0.
        pairs: q, (n, n) floating point, the same for all candidates; None for 0.
        counts: b, (n,) float64, what an example counts for; None for 1.

    Example:
        >>> mean = Contributions(torch.tensor([[1.0], [3.0]], dtype=torch.float64))
        >>> mean(torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64))
        tensor([[2.],
                [3.]], dtype=torch.float64)
    """

    each: torch.Tensor
    constant: torch.Tensor | None = None
    pairs: torch.Tensor | None = None
    counts: torch.Tensor | None = None

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores under weights of the real examples, as `ProxyScores.resample`."""
        weights = weights.cpu()
        scores = weights @ self.each
        if self.constant is not None:
            scores = scores + self.constant
        if self.pairs is not None:
            scores = scores + ((weights @ self.pairs.double()) * weights).sum(1, keepdim=True)
        return scores if self.counts is None else scores / (weights @ self.counts)[:, None]


@dataclass(frozen=True, eq=False)
class ProxyScores:
    """One proxy's scores of K candidates.

    Args:
        values: (K,) float64, raw; NaN where undefined.
        resample: Takes weights of the n real examples, (B, n) float64 with rows that sum to 1
            (multinomial counts / n), and gives the scores under them, (B, K) float64. None where
            the proxy's value is not a function of per-real-example contributions. The consensus
            hands the same weights to every proxy. `Contributions` is one that can be kept on disk.
        spread: (K,) float64: standard deviation over the proxy's own seeds; not an interval.
        p_values: (K,) float64: permutation p-values, where they were asked for; they never rank.
        example_scores: Takes a candidate's position and gives the realness of each of its
            examples, (N,) float64, higher is more real. None where the proxy has none.
        mixture: Takes weights of the K candidates, (K,) float64 that sum to 1, and gives the score
            of that mixture, at the ranking's common size where it has one, without concatenating
            any data. None where that needs a sample of the mixture.
        messages: What a reader of these scores must know (unreliable at this n, undefined for …).
        reliable: False keeps the proxy out of a consensus (shown, with its message).
        details: What else a report may show, as plain values; a ranking keeps it by proxy.
    """

    values: torch.Tensor
    resample: Callable[[torch.Tensor], torch.Tensor] | None = None
    spread: torch.Tensor | None = None
    example_scores: Callable[[int], torch.Tensor] | None = None
    messages: tuple[str, ...] = ()
    reliable: bool = True
    p_values: torch.Tensor | None = None
    mixture: Callable[[torch.Tensor], float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class BaseProxy(ABC):
    """Base of all proxies; a subclass sets the class attributes and writes `score`.

    The options of a proxy are the keyword arguments of its constructor, kept as attributes of
    the same names; `options` gives them back, so that a ranking file says what was computed.

    Attributes:
        key: The one name of the proxy: registry, configs, reports.
        higher_is_better: Orientation of the raw value.
        unit: What the value is measured in.
        source: Where the formula stands.
        family: A default consensus takes one proxy a family.
        needs_embeddings: Whether `ProxyInput.embeddings` must be there.
        needs_records: Whether it reads `ProxyInput.records`; its scores are never kept.
        modalities: What it can score.
    """

    key: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    source: ClassVar[str]
    family: ClassVar[Family]
    needs_embeddings: ClassVar[bool] = True
    needs_records: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text", "image"))

    def options(self) -> Mapping[str, Any]:
        """Return the constructor's arguments as plain values (str, number, bool, None, list)."""
        return dict(vars(self))

    @abstractmethod
    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score all candidates of a ranking at once.

        Called once a ranking, by `rank`, with input that `rank` has checked: at least 2 examples
        a side, one modality that the proxy allows, finite embeddings of one dimension where
        `needs_embeddings`. All candidates come together because bandwidths and the common sample
        size belong to the ranking and not to a pair. The global random state must not be touched:
        randomness comes from `seed`.

        Args:
            real: The real sample.
            candidates: K candidates.
            seed: Seed of everything random.
            device: Where to compute.

        Raises:
            ProxyError: The proxy cannot score this input; the message says why.
        """

    def close(self) -> None:  # noqa: B027 - a hook that need not be filled
        """Free the models that the proxy's own arguments hold; called before a model trains.

        The proxy can score again: a model that was freed is loaded when it is asked.
        """
