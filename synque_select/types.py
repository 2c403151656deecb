"""The plain values that travel between the stages, from candidates to run records."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from synque_select.errors import ConfigError, DataError, DependencyError, did_you_mean
from synque_select.views import (
    Modality,
    Selector,
    View,
    as_view,
    describe,
    digest,
    find_selector,
    infer_selector,
    modality_of,
    select,
)

__all__ = [
    "Candidate",
    "EncoderInfo",
    "Examples",
    "MapDataset",
    "Mixture",
    "ProxyInfo",
    "ProxyScore",
    "RankedCandidate",
    "Ranking",
    "RealSample",
    "RunKind",
    "RunRecord",
    "Views",
]

RunKind = Literal["probe", "mixture", "trial"]


@runtime_checkable
class MapDataset(Protocol):
    """A length and integer indexing: a torch Dataset, a `datasets.Dataset`, a list."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one example."""
        ...


class Views(Sequence[View]):
    """The views of examples, taken when they are asked for; an error names the example.

    A slice is a list. A field of a `datasets.Dataset` is read alone and in blocks.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self.modality: Modality = examples.modality
        self._column = _column(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._block(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        # a negative position is made positive: torch datasets need not know negative ones
        return self._view(int(index) % len(self))

    def __iter__(self) -> Iterator[View]:
        # one image at a time: a block of photographs would not fit into memory
        step = _BLOCK if self.modality == "text" else 1
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def _block(self, positions: range) -> list[View]:
        if self._column is not None and positions.step == 1 and positions:
            values = self._column[positions.start : positions.stop][self._examples.selector]
            # what is no text is left to the slow way, which names the example
            if all(isinstance(value, str) for value in values):
                return [as_view(value, "text") for value in values]
        return [self._view(position) for position in positions]

    def _view(self, position: int) -> View:
        examples = self._examples
        try:
            example = examples.dataset[position]
            value = select(example, examples.selector)
            return as_view(value, examples.modality, example=example)
        except DependencyError:
            raise
        # a dataset or a view function of the user's may raise anything
        except Exception as error:
            raise DataError(
                f"{examples.where}, example {position} (counted from 0): {_reason(error)}"
            ) from error


_BLOCK = 1024


def _column(examples: Examples) -> Any:
    """Return a `datasets.Dataset` with the field of a text view only, None for anything else."""
    dataset: Any = examples.dataset
    if examples.modality != "text" or examples.selector not in getattr(dataset, "column_names", ()):
        return None
    # a format can compute one field from others
    plain = getattr(dataset, "format", {"type": ""})["type"] is None
    return dataset.select_columns([examples.selector]) if plain else None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True, eq=False)
class Examples:
    """A named, map-style dataset and the view that is taken of its examples.

    Args:
        name: Unique among the candidates of a ranking.
        dataset: Anything with a length and integer indexing.
        view: A field name, a position in a tuple, or a function of the example (in a config by
            its dotted name); None where the first example leaves no choice.
        label: Where an example's label stands, if it has one; proxies never read it.
        source: Where it came from (a file), for messages.

    Raises:
        DataError: Fewer than 2 examples, or the view does not exist in the first one.
        ConfigError: No view is given and the first example does not settle it.

    Example:
        >>> a = Candidate("a", [{"text": "x", "label": 0}, {"text": "y", "label": 1}])
        >>> len(a), a.views[1], a.modality
        (2, 'y', 'text')
    """

    name: str
    dataset: MapDataset
    view: Selector | None = None
    label: Selector | None = None
    source: str = ""
    selector: Selector = field(init=False, repr=False)
    modality: Modality = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"a name must be a text that is not empty, found {self.name!r}")
        self._check_dataset()
        try:
            first = self.dataset[0]
            for name, given in (("view", self.view), ("label", self.label)):
                if given is not None:
                    object.__setattr__(self, name, find_selector(first, given))
            selector = infer_selector(first) if self.view is None else self.view
            value = select(first, selector)
            if self.label is not None:
                select(first, self.label)
        except DependencyError:
            raise
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        except Exception as error:
            raise DataError(f"{self.where}: the first example: {_reason(error)}") from error
        modality = modality_of(value)
        if modality is None:
            raise DataError(
                f"{self.where}: the view of the first example must be a text or an image, "
                f"found {describe(value, first)}"
            )
        object.__setattr__(self, "selector", selector)
        object.__setattr__(self, "modality", modality)

    def _check_dataset(self) -> None:
        kind = type(self.dataset).__name__
        if isinstance(self.dataset, str | bytes | Mapping):
            raise DataError(
                f"{self.where}: a {kind} is no dataset; allowed is a list of records or another "
                "map-style dataset (load_candidates reads files)"
            )
        if not isinstance(self.dataset, MapDataset):
            raise DataError(
                f"{self.where}: a {kind} has no length or no indexing; "
                "allowed is a map-style dataset (load_candidates and SynqueDataModule take finite "
                "iterables too)"
            )
        if len(self.dataset) < 2:
            raise DataError(f"{self.where}: {len(self.dataset)} examples; at least 2 are needed")

    @property
    def where(self) -> str:
        """The name, and the source where there is one, for messages."""
        return f"{self.name} ({self.source})" if self.source else self.name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __iter__(self) -> Iterator[Any]:
        # by length: indexing past the end need not raise IndexError
        return (self.dataset[position] for position in range(len(self)))

    @cached_property
    def views(self) -> Views:
        """The views of all examples, lazily."""
        return Views(self)

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each view, (n, 32) uint8; reads every example once."""
        # beside the fields: what is made of these examples by `replace` has other digests
        read = vars(self).get("_read_digests", _computed)
        digests: NDArray[np.uint8] = read(self._hash_views)
        return digests

    def read_digests_with(
        self, read: Callable[[Callable[[], NDArray[np.uint8]]], NDArray[np.uint8]]
    ) -> None:
        """Let a function give the digests: it is called with the one that computes them."""
        vars(self)["_read_digests"] = read

    def _hash_views(self) -> NDArray[np.uint8]:
        joined = b"".join(digest(view) for view in self.views)
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over all views in their order, in hexadecimal."""
        return hashlib.sha256(self.digests.tobytes()).hexdigest()


def _computed(compute: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return compute()


@dataclass(frozen=True, eq=False)
class Candidate(Examples):
    """One synthetic dataset that training may use.

    Args:
        name: See `Examples`, as for the other arguments.
        dataset: See `Examples`.
        view: See `Examples`.
        label: See `Examples`.
        source: See `Examples`.
        example_scores: Proxy key to the realness of each example, (N,), higher is more real; set
            by `synque_select.selection.examples.with_example_scores`.
    """

    example_scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    def filter(self, *, keep: float, by: str) -> Candidate:
        """Return the candidate with only its most real examples, in their order.

        Args:
            keep: Share to keep, above 0 and up to 1, rounded up.
            by: Key of the proxy whose realness decides; ties go to the earlier example.

        Raises:
            ConfigError: The share is not allowed, or there are no scores by that proxy.
            DataError: Fewer than 2 examples would be left.

        Example:
            >>> scores = {"pad": np.array([0.1, 0.9, 0.5, 0.7])}
            >>> a = Candidate("a", [{"text": t} for t in "wxyz"], example_scores=scores)
            >>> list(a.filter(keep=0.5, by="pad").views)
            ['x', 'z']
        """
        if not 0 < keep <= 1:
            raise ConfigError(f"keep={keep}: allowed is a share above 0 and up to 1")
        if by not in self.example_scores:
            known = (
                did_you_mean(by, self.example_scores) if self.example_scores else "there are none"
            )
            raise ConfigError(f"{self.where} has no example scores by {by!r}: {known}")
        order = np.argsort(-self.example_scores[by], kind="stable")
        return self._at(np.sort(order[: math.ceil(keep * len(self))]))

    def weighted(self, weights: Sequence[float] | NDArray[Any], *, seed: int = 0) -> Candidate:
        """Return the candidate with each example as often as its weight says, N in all.

        Example i comes ⌊N·w_i/Σw⌋ or ⌈N·w_i/Σw⌉ times (systematic resampling), so that training
        on it draws the examples by weight.

        Args:
            weights: (N,), not negative, such as `example_scores["pad"]`.
            seed: Of the fractions.

        Raises:
            ConfigError: There is not one finite weight that is not negative for each example, or
                all are 0.

        Example:
            >>> list(Candidate("a", ["x", "y", "z", "w"]).weighted([2, 0, 1, 1]).views)
            ['x', 'x', 'z', 'w']
        """
        given = np.asarray(weights, dtype=np.float64)
        if given.shape != (len(self),) or not np.isfinite(given).all() or (given < 0).any():
            raise ConfigError(
                f"{self.where}: weights must be {len(self)} finite numbers, none below 0"
            )
        if not given.any():
            raise ConfigError(f"{self.where}: all weights are 0")
        steps = np.arange(len(self)) + np.random.default_rng(seed).random()
        ends = np.cumsum(given) / given.sum() * len(self)
        return self._at(np.minimum(np.searchsorted(ends, steps, side="right"), len(self) - 1))

    def _at(self, positions: NDArray[np.int64]) -> Candidate:
        return dataclasses.replace(
            self,
            dataset=_Subset(self.dataset, positions),
            view=self.selector,
            example_scores={key: scores[positions] for key, scores in self.example_scores.items()},
        )


@dataclass(frozen=True, eq=False)
class _Subset:
    """Some examples of a dataset, or some of them several times."""

    dataset: MapDataset
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int, /) -> Any:
        return self.dataset[int(self.positions[index])]


class RealSample(Examples):
    """The unannotated real examples; no label of theirs is ever read."""


@dataclass(frozen=True)
class Mixture:
    """Chosen candidates with weights that sum to 1.

    Args:
        weights: Candidate name to weight, positive.
        source: How it was chosen, for reports ("top 3 by consensus", "equal", …).

    Raises:
        ConfigError: No mapping from names to numbers, no candidate, a weight that is not positive
            and finite, or a sum other than 1.

    Example:
        >>> Mixture.equal(["a", "b"]).weights
        {'a': 0.5, 'b': 0.5}
    """

    weights: Mapping[str, float]
    source: str = ""

    def __post_init__(self) -> None:
        given: Any = self.weights
        if not (isinstance(given, Mapping) and all(map(_is_number, given.values()))):
            raise ConfigError(
                f"a mixture's weights: allowed is a mapping from name to number, found {given!r}"
            )
        weights = {str(name): float(weight) for name, weight in given.items()}
        if not weights:
            raise ConfigError("a mixture needs at least one candidate")
        bad = {name: w for name, w in weights.items() if not (math.isfinite(w) and w > 0)}
        if bad:
            raise ConfigError(f"a mixture's weights must be positive and finite, found {bad}")
        if abs(sum(weights.values()) - 1) > 1e-6:
            raise ConfigError(
                f"a mixture's weights must sum to 1, found {sum(weights.values()):.6g}"
            )
        object.__setattr__(self, "weights", weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The chosen candidates, in the order given."""
        return tuple(self.weights)

    @classmethod
    def equal(cls, names: Sequence[str], source: str = "equal") -> Mixture:
        """Give every name the same weight."""
        if not names:
            raise ConfigError("a mixture needs at least one candidate")
        return cls(dict.fromkeys(names, 1 / len(names)), source)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: {"weights": {name: weight}, "source": text}."""
        return {"weights": dict(self.weights), "source": self.source}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Mixture:
        """Read what `to_dict` wrote."""
        return cls(state["weights"], state.get("source", ""))


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)


@dataclass(frozen=True)
class ProxyScore:
    """One proxy's score of one candidate: the raw value, its sign flipped nowhere.

    Args:
        value: NaN where undefined.
        low: Lower end of the 95 % interval over new real samples; None where there is none.
        high: Upper end.
        spread: Standard deviation over the proxy's own seeds; not an interval.
        p_value: Of a test that real sample and candidate come from one distribution, where the
            proxy was asked for it; it grows small with size, and never ranks.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ProxyInfo:
    """What is needed to read a proxy's scores: orientation, options, unit, cost."""

    key: str
    higher_is_better: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    family: str = ""
    in_consensus: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made the embeddings."""

    id: str
    revision: str
    dim: int


@dataclass(frozen=True)
class RankedCandidate:
    """One candidate's row of a ranking.

    Args:
        name: The candidate.
        n: Its number of examples.
        sha256: Its content hash.
        scores: Proxy key to score.
        ranks: Proxy key (and "consensus") to rank: 1 is best, ties averaged, NaN where undefined.
        p_top_k_by_proxy: How often the candidate is among the top k when the real sample is
            redrawn; a measure of stability, not the chance of being truly best. None if unknown.
        mean_rank: Mean of its mid-ranks by the proxies of the consensus; None without one.
    """

    name: str
    n: int
    sha256: str
    scores: Mapping[str, ProxyScore]
    ranks: Mapping[str, float]
    p_top_k_by_proxy: float | None = None
    mean_rank: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Candidates ordered by a proxy or by the consensus of several.

    Args:
        candidates: One row a candidate, in the order in which they were given.
        proxies: Proxy key to what is known of the proxy.
        rank_by: The proxy key, or "consensus", that orders the candidates.
        top_k: How many are selected.
        n_real: Size of the real sample.
        real_sha256: Its content hash.
        modality: "text" or "image".
        encoder: None where no proxy used embeddings.
        seed: Seed of everything random in the scores.
        packages: Package name to version.
        messages: Plain sentences that a reader of the ranking must see.
        wall_s: Stage ("encode", "score") to seconds.
        details: Proxy key to what else it has to show (rubrics and samples of LENS), plain values.
        mixture: What was chosen to train on; None for the best `top_k` with equal weights.

    Raises:
        ConfigError: The mixture holds a name that is none of the candidates'.
    """

    candidates: tuple[RankedCandidate, ...]
    proxies: Mapping[str, ProxyInfo]
    rank_by: str
    top_k: int
    n_real: int
    real_sha256: str
    modality: Modality
    encoder: EncoderInfo | None = None
    seed: int = 0
    packages: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    wall_s: Mapping[str, float] = field(default_factory=dict)
    mixture: Mixture | None = None
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in () if self.mixture is None else self.mixture.names:
            self[name]

    def __getitem__(self, name: str) -> RankedCandidate:
        for row in self.candidates:
            if row.name == name:
                return row
        names = [row.name for row in self.candidates]
        raise ConfigError(f"no candidate {name!r} in the ranking; {did_you_mean(name, names)}")

    def __iter__(self) -> Iterator[RankedCandidate]:
        return iter(self.order())

    def __len__(self) -> int:
        return len(self.candidates)

    def order(self, by: str | None = None) -> tuple[RankedCandidate, ...]:
        """Return the rows, best first; ties in the order given, undefined last.

        Args:
            by: A proxy key or "consensus"; None for the ranking's own `rank_by`.

        Raises:
            ConfigError: The ranking has no such column.
        """
        by = by or self.rank_by
        known = self.candidates[0].ranks
        if by not in known:
            raise ConfigError(f"the ranking has no column {by!r}; {did_you_mean(by, known)}")

        def place(row: RankedCandidate) -> float:
            return math.inf if math.isnan(row.ranks[by]) else row.ranks[by]

        return tuple(sorted(self.candidates, key=place))

    def top(self, k: int | None = None, by: str | None = None) -> Mixture:
        """Return what to train on: the ranking's own mixture, or the best k with equal weights.

        Args:
            k: How many; None for the ranking's own `top_k`.
            by: A proxy key or "consensus"; None for the ranking's own `rank_by`. Where either is
                given, the weights are equal.

        Raises:
            ConfigError: k is not in 1..K, or fewer than k candidates have a defined rank.
        """
        if self.mixture is not None and k is None and by is None:
            return self.mixture
        k = self.top_k if k is None else k
        by = by or self.rank_by
        if not 1 <= k <= len(self):
            raise ConfigError(f"top_k={k}: allowed is 1 to {len(self)}, the number of candidates")
        best = self.order(by)[:k]
        undefined = [row.name for row in best if math.isnan(row.ranks[by])]
        if undefined:
            reasons = [message for message in self.messages if "undefined" in message]
            said = "; ".join([f"{by} is undefined for {', '.join(undefined)}", *reasons])
            raise ConfigError(f"top_k={k}: {said}")
        return Mixture.equal([row.name for row in best], f"top {k} by {by}")

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking in the form of `ranking.json`: plain values, None for undefined.

        Version 2 has a mixture of its own, which says in "selected_as" what it is: a reader of
        version 1 would take its weights for a mistake. All else is version 1.
        """
        selected = self.top()
        own = {} if self.mixture is None else {"selected_as": self.mixture.source}
        return {
            "version": 1 if self.mixture is None else 2,
            "packages": dict(self.packages),
            "seed": self.seed,
            "modality": self.modality,
            "real": {"n": self.n_real, "sha256": self.real_sha256},
            "encoder": None if self.encoder is None else vars(self.encoder).copy(),
            "rank_by": self.rank_by,
            "top_k": self.top_k,
            "proxies": {
                key: {
                    "higher_is_better": info.higher_is_better,
                    "options": dict(info.options),
                    "unit": info.unit,
                    "family": info.family,
                    "in_consensus": info.in_consensus,
                    "seconds": info.seconds,
                }
                for key, info in self.proxies.items()
            },
            "candidates": [_row_to_dict(row) for row in self.candidates],
            "selected": [{"name": n, "weight": w} for n, w in selected.weights.items()],
            **own,
            "messages": list(self.messages),
            "wall_s": dict(self.wall_s),
            **({"details": dict(self.details)} if self.details else {}),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Ranking:
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: It is of another version, or a part is missing.
        """
        if state.get("version") not in (1, 2):
            raise ConfigError(f"a ranking of version {state.get('version')!r}; allowed are 1 and 2")
        try:
            return cls(
                candidates=tuple(_row_from_dict(row) for row in state["candidates"]),
                proxies={key: ProxyInfo(key=key, **info) for key, info in state["proxies"].items()},
                rank_by=state["rank_by"],
                top_k=state["top_k"],
                n_real=state["real"]["n"],
                real_sha256=state["real"]["sha256"],
                modality=state["modality"],
                encoder=None if state["encoder"] is None else EncoderInfo(**state["encoder"]),
                seed=state["seed"],
                packages=state["packages"],
                messages=tuple(state["messages"]),
                wall_s=state["wall_s"],
                mixture=_own_mixture(state),
                details=state.get("details", {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a ranking: {type(error).__name__}: {error}") from error


def _own_mixture(state: Mapping[str, Any]) -> Mixture | None:
    if state["version"] == 1:
        return None
    weights = {row["name"]: row["weight"] for row in state["selected"]}
    return Mixture(weights, state["selected_as"])


def _null(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _row_to_dict(row: RankedCandidate) -> dict[str, Any]:
    return {
        "name": row.name,
        "n": row.n,
        "sha256": row.sha256,
        "scores": {
            key: {
                name: _null(value)
                for name, value in vars(score).items()
                if name != "p_value" or value is not None
            }
            for key, score in row.scores.items()
        },
        "ranks": {key: _null(value) for key, value in row.ranks.items()},
        "p_top_k_by_proxy": _null(row.p_top_k_by_proxy),
        "mean_rank": _null(row.mean_rank),
    }


def _row_from_dict(row: Mapping[str, Any]) -> RankedCandidate:
    scores = {
        key: ProxyScore(**{**score, "value": _nan(score["value"])})
        for key, score in row["scores"].items()
    }
    ranks = {key: _nan(rank) for key, rank in row["ranks"].items()}
    return RankedCandidate(
        row["name"],
        row["n"],
        row["sha256"],
        scores,
        ranks,
        row["p_top_k_by_proxy"],
        row["mean_rank"],
    )


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True)
class RunRecord:
    """What was chosen, the proxies' scores and the validation figures of one training run.

    Args:
        run_id: Unique; writing a record twice replaces it.
        kind: "probe" (one candidate), "mixture", or "trial" (adaptively sampled).
        key: The comparability key: what must be equal for two records to be compared (task, hash
            of the validation set, metric and mode, model and initial weights, examples drawn,
            steps, hyper-parameters, hash of the real sample, proxies' parameters, encoder).
        unit: The distinct candidate or mixture that was trained on; seeds share it.
        mixture: What was trained on.
        scores: Proxy key to the score of what was trained on, oriented as the proxy is.
        orientation: Proxy key to higher_is_better.
        metrics: Every validation metric at the fixed end of the budget.
        primary: The one metric that correlations are about.
        primary_mode: "max" or "min".
        seed: Training seed.
        created: ISO 8601, UTC.
        details: Anything else worth keeping, plain values.
    """

    run_id: str
    kind: RunKind
    key: Mapping[str, Any]
    unit: str
    mixture: Mixture
    scores: Mapping[str, float]
    orientation: Mapping[str, bool]
    metrics: Mapping[str, float]
    primary: str
    primary_mode: Literal["max", "min"]
    seed: int
    created: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key_hash(self) -> str:
        """SHA-256 of the comparability key, 16 hexadecimal digits."""
        import json

        text = json.dumps(self.key, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
