"""Interface of a proxy: it scores candidates against the real sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.examples import MapDataset
from synque_select.data.population import Population
from synque_select.data.views import View
from synque_select.types.modality import Modality

if TYPE_CHECKING:
    from synque_select.execution import Executor

__all__ = ["BaseProxy", "Contributions", "Family", "ProxyInput", "ProxyScores"]

Family = Literal[
    "kernel",
    "coverage",
    "lexical",
    "domain",
    "diversity",
    "divergence",
    "labels",
    "lens",
    "baseline",
]


@dataclass(frozen=True, eq=False)
class ProxyInput:
    """The real sample or one candidate, as a proxy sees it.

    Args:
        name: Name for messages.
        views: The n texts or images; images are loaded on access.
        modality: "text" or "image".
        digests: SHA-256 of each view, (n, 32) uint8; equal rows are exact duplicates.
        embeddings: (n, d) float32 or bfloat16, on any device or memory-mapped; None if no proxy
            of the suite needs them.
        records: A candidate's complete examples, including their answers, for proxies that check
            these. None for the real sample, of which only the views are ever read, and for a
            mixture.
        groups: Group number of each real example, (n,) int64 from 0 on; examples of one group do
            not vary independently. None if all do, and for candidates.
        labels: A candidate's labels, N texts; several labels of one example are a JSON list, a
            missing one is "(no label)". None if they were not given, and for the real sample, whose
            labels are never read.
        family: Name of the candidates that come from the same generator and do not judge each
            other's labels; None for a candidate that is a family of its own.
        population: What is known of all examples, if those here were drawn from them at random;
            None if these are all.
    """

    name: str
    views: Sequence[View]
    modality: Modality
    digests: NDArray[np.uint8]
    embeddings: torch.Tensor | None = None
    records: MapDataset | None = None
    groups: NDArray[np.int64] | None = None
    labels: Sequence[str] | None = None
    family: str | None = None
    population: Population | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def n_all(self) -> int:
        """Number of all examples, also of those that were not drawn."""
        return len(self) if self.population is None else self.population.n


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contributions of the real examples to the scores: a `resample` that can be saved to disk.

    s_k(w) = (c_k + Σ_i w_i a_ik + Σ_ij w_i w_j q_ij) / Σ_i w_i b_i, for weights w of the n real
    examples.

    Args:
        each: a, (n, K) float64, the contribution of each real example to each score.
        constant: c, (K,) float64, the part that does not depend on the weights; None for 0.
        pairs: q, (n, n) float32 or float64, the contribution of each pair of real examples, the
            same for all candidates; None for 0.
        counts: b, (n,) float64, the size of each example, such as its number of n-grams, for
            scores that are ratios; None if all count 1.
        judges: u, (J, K) float64 with a mean of 0 in each column, how each of J independent judges
            moves the scores: under weights v of the judges that sum to 1, score k changes by
            Σ_j v_j u_jk. Comparisons of candidates count their variation as well as that of the
            real sample; s does not depend on them. None without judges.

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
    judges: torch.Tensor | None = None

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores under weights of the real examples; see `ProxyScores.resample`."""
        weights = weights.cpu()
        scores = weights @ self.each
        if self.constant is not None:
            scores = scores + self.constant
        if self.pairs is not None:
            # a quadratic form per resample as one matrix product, without B matrices of n × n
            scores = scores + ((weights @ self.pairs.double()) * weights).sum(1, keepdim=True)
        # the denominator is resampled as well: with long and short texts, holding it fixed would
        # make the interval of a ratio too wide
        return scores if self.counts is None else scores / (weights @ self.counts)[:, None]

    def influences(self) -> torch.Tensor:
        """Return (n, K) values whose means are the scores, without what all candidates share.

        They serve to compare candidates: `pairs` is left out, as it cancels in every difference.
        Of a ratio, each value is the linear approximation at equal weights.

        Example:
            >>> each = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
            >>> Contributions(each, constant=each[0]).influences().mean(0)
            tensor([3.], dtype=torch.float64)
        """
        each = self.each if self.constant is None else self.each + self.constant
        if self.counts is None:
            return each
        score = each.mean(0) / self.counts.mean()
        return score + (each - score * self.counts[:, None]) / self.counts.mean()


@dataclass(frozen=True, eq=False)
class ProxyScores:
    """One proxy's scores of K candidates.

    Args:
        values: (K,) float64 raw scores; NaN if undefined.
        resample: Function from weights of the n real examples, (B, n) float64 with rows that sum
            to 1 (multinomial counts / n, or counts of whole groups), to the scores under these
            weights, (B, K) float64. None if the score cannot be computed from contributions of the
            real examples. The consensus passes the same weights to every proxy. Use
            `Contributions` if possible: it can be saved to disk.
        spread: (K,) float64 standard deviation over the proxy's own seeds, or standard error of a
            score that was estimated; not an interval for a new real sample.
        p_values: (K,) float64 permutation p-values, if requested; never used to rank.
        example_scores: Function from the position of a candidate to the realness of each of its
            examples, (N,) float64, higher is more realistic. None if the proxy scores no examples.
        mixture: Function from weights of the K candidates, (K,) float64 that sum to 1, to the
            score of that mixture, at the common size of the ranking if there is one, without
            concatenating data. None if the score can only be computed from a sample of the
            mixture.
        messages: Facts that a reader of the scores must know, such as that they are unreliable for
            a sample of this size, or undefined for some candidates.
        reliable: Whether a consensus may use the scores; if False they are only shown, with their
            messages.
        details: Further results for a report, as plain values; a ranking stores them per proxy.
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
    """Base class of all proxies; a subclass sets the class attributes and implements `score`.

    The options of a proxy are the keyword arguments of its constructor, stored as attributes of
    the same names. `options` returns them, so that a ranking file records what was computed.

    Attributes:
        key: Unique name of the proxy in the registry, in configs and in reports.
        higher_is_better: Orientation of the raw score.
        version: Version of the score, raised when the same input gets another score; 1 at first.
            Cached scores and run records of another version are not used.
        unit: Unit of the score.
        source: Reference for the formula.
        family: Group of proxies that measure similar things; a default consensus uses one proxy
            per family.
        needs_embeddings: Whether the proxy needs `ProxyInput.embeddings`.
        needs_records: Whether the proxy reads `ProxyInput.records`; its scores are not cached.
        needs_labels: Whether the proxy reads `ProxyInput.labels`, so that it can be used only if
            all candidates have labels. Such proxies are columns of their own, never in a consensus.
        modalities: Modalities that the proxy can score.
    """

    key: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    source: ClassVar[str]
    family: ClassVar[Family]
    version: ClassVar[int] = 1
    needs_embeddings: ClassVar[bool] = True
    needs_records: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset(("text", "image"))

    def options(self) -> Mapping[str, Any]:
        """Return the constructor's arguments as plain values (str, number, bool, None, list)."""
        return dict(vars(self))

    @abstractmethod
    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        """Score all candidates of a ranking at once.

        `rank` calls this once per ranking. It has checked that the real sample and each candidate
        have at least 2 examples, that all have the same modality, which the proxy supports, and,
        if `needs_embeddings` is set, that their embeddings are finite and of the same dimension.
        All candidates are scored in one call because a bandwidth or a common sample size belongs
        to the ranking, not to a pair. The global random state must not be changed: derive
        randomness from `seed`.

        Args:
            real: The real sample.
            candidates: The K candidates.
            seed: Random seed.
            device: Device to compute on.

        Returns:
            The scores, in the order of the candidates.

        Raises:
            ProxyError: The proxy cannot score this input; the message says why.
        """

    def mixture_score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> Callable[[torch.Tensor], float] | None:
        """Return `ProxyScores.mixture` without scoring the candidates.

        With it, a mixture of candidates whose scores are cached is scored without scoring them
        again. The arguments are those of `score`.

        Returns:
            The function; None if it needs the scores of all candidates.
        """
        return None

    def on_executor(self, executor: Executor) -> BaseProxy:
        """Return the proxy with its models on an executor; the proxy itself if it has none.

        Args:
            executor: Where the models answer.
        """
        return self

    def close(self) -> None:  # noqa: B027 - a hook that need not be filled
        """Free the models that were passed to the proxy; called before training starts.

        The proxy can still score: a freed model is loaded again when it is needed.
        """
