"""Rankings of candidates, and their JSON form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from synque_select.errors import ConfigError, did_you_mean
from synque_select.types.decision import Decision
from synque_select.types.findings import Findings
from synque_select.types.label_filter import LabelFilterRecord
from synque_select.types.mixture import Mixture
from synque_select.types.modality import Modality
from synque_select.types.run_info import RunInfo
from synque_select.utils.display import BLUE, GREY, INK, Shown, drawable, new_axes, set_names
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted, listed, places

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "OLD_STABILITY",
    "EncoderInfo",
    "ProxyInfo",
    "ProxyScore",
    "RankOrigin",
    "RankedCandidate",
    "Ranking",
]

# written beside the new key for one version; where it is alone, it was computed another way
OLD_STABILITY = "p_top_k_by_proxy"  # old name

# families of proxies that describe a candidate alone
_WITHOUT_REAL = ("baseline", "diversity")
# families of proxies whose scores, if lower is better, are distances to the real sample
_OF_DISTANCES = ("coverage", "divergence", "domain", "kernel")
# what version 0.1 said of pairs; the words are in its files
_OLD_COMPARISON = re.compile(r"^(\d+ of \d+ pairs|The candidates) .*told apart")  # old name
_ALONE = "95 % intervals of each candidate alone: do not compare by overlap"
_OLDER = (
    "This ranking was made by an older version of synque-select. Its comparison of candidates and "
    "its selection stability are not shown: that version found differences between equal "
    "candidates. Its intervals are those of that version, too. Rank again to replace them."
)


@dataclass(frozen=True)
class ProxyScore:
    """One proxy's score of one candidate: the raw value, whose sign is never flipped.

    Args:
        value: The score; NaN if undefined.
        low: Lower end of the 95 % interval over new real samples; None without an interval.
        high: Upper end of the interval; None without an interval.
        spread: Standard deviation over the proxy's own seeds; not an interval.
        p_value: p-value of a test that the real sample and the candidate come from one
            distribution; None if not requested. It shrinks with the number of examples and is
            never used to rank.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ProxyInfo:
    """What is needed to read a proxy's scores: orientation, options, unit, cost.

    Args:
        key: Key of the proxy.
        higher_is_better: Orientation.
        options: Options of the proxy.
        unit: Unit of the score.
        family: Family of the proxy.
        in_consensus: Whether it is one of the proxies of the consensus.
        seconds: Wall time of scoring.
        reference: About what a candidate of further real examples would score, at the candidates'
            common size, estimated from the real sample alone; None if that is not possible.
        version: Version of the score; scores of different versions cannot be compared.
    """

    key: str
    higher_is_better: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    family: str = ""
    in_consensus: bool = False
    seconds: float = 0.0
    reference: float | None = None
    version: int = 1

    @property
    def reads_real(self) -> bool:
        """Whether the scores depend on the real sample."""
        return self.family not in _WITHOUT_REAL

    @property
    def is_distance(self) -> bool:
        """Whether a score says how far a candidate is from the real sample."""
        return not self.higher_is_better and self.family in _OF_DISTANCES

    @property
    def reads_labels(self) -> bool:
        """Whether the scores compare labels of the candidates on inputs like the real ones."""
        return self.family == "labels"


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
        name: Name of the candidate.
        n: Number of examples.
        sha256: Hash of the content.
        scores: Proxy key to score.
        ranks: Proxy key (and "consensus") to rank: 1 is best, ties are averaged, NaN if undefined.
        selection_stability: Estimated share of new real samples of the same size in which the
            candidate is in the top k; see `synque_select.selection.uncertainty.new_sample_scores`.
            It is not the probability of being truly best. None if unknown.
        mean_rank: Mean of the mid-ranks by the proxies of the consensus; None without a consensus.
        source: Where the candidate was loaded from, such as a path; empty for an object in memory.
        view: Field, position or dotted name of the view; None for a function without a name.
        label: Field, position or dotted name of the label; None without one.
    """

    name: str
    n: int
    sha256: str
    scores: Mapping[str, ProxyScore]
    ranks: Mapping[str, float]
    selection_stability: float | None = None
    mean_rank: float | None = None
    source: str = ""
    view: str | int | None = None
    label: str | int | None = None

    def __repr__(self) -> str:
        ranks = ", ".join(f"{key} {rank:g}" for key, rank in self.ranks.items())
        return f"<RankedCandidate {self.name!r}: {counted(self.n, 'example')}; ranks: {ranks}>"


@dataclass(frozen=True)
class RankOrigin:
    """Where and how a ranking was made: what its data is found by, and the command that repeats it.

    Args:
        working_dir: Absolute path of the directory that relative sources start from.
        real_source: Where the real sample was loaded from, such as a path; empty for an object in
            memory.
        real_view: View of the real sample, as `RankedCandidate.view`.
        options: Options of `synque-select rank`, with underscores, that are not the default and
            that no other part of a ranking says: "family", "real_groups", "lens", "mixture",
            "temperature", "label_filter", "relabel", "answers".
    """

    working_dir: str = ""
    real_source: str = ""
    real_view: str | int | None = None
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Ranking(Shown):
    """Candidates ordered by a proxy or by the consensus of several.

    `print` and a notebook show the decision and one row per candidate; `to_frame` has all figures.

    Args:
        candidates: One row per candidate, in the order in which they were given.
        proxies: Proxy key to the description of the proxy.
        rank_by: The proxy key, or "consensus", that orders the candidates.
        top_k: Number of candidates to select, if it was given; None for what is recommended.
        n_real: Size of the real sample.
        real_sha256: Hash of the content of the real sample.
        modality: "text" or "image".
        encoder: The encoder; None if no proxy used embeddings.
        seed: Random seed of the scores.
        packages: Package name to version.
        messages: Sentences that a reader of the ranking must see.
        wall_s: Stage ("encode", "score") to its wall time in seconds.
        details: Proxy key to its details as plain values (for LENS, rubrics and judged examples).
        mixture: The mixture to train on, in rankings of old files; None for the best `top_k` with
            equal weights, or if there is a decision.
        n_groups: Number of groups of the real sample, n_real if its examples are independent; None
            for a ranking of a version that knew no groups.
        effective_n: n_real² / Σ n_g² over groups of n_g examples (Kish), at most `n_groups`; None
            if `n_groups` is.
        decision: The advice and the mixture that follows from it; None in rankings of old files.
        label_filter: What the label filter did to the selected candidates; None without one.
        origin: Where and how it was made; empty in rankings of old files.
        made_by: The command or the call that made the ranking; None if it is unknown, or if the
            `run.json` beside it has it.
        findings: What `rank` found beside the order: label checks, and gaps and a sample-size
            analysis on request. Not a part of `ranking.json`: `save_ranking` writes them beside it.

    Raises:
        ConfigError: The mixture names an unknown candidate, or there are both a mixture and a
            decision.
    """

    candidates: tuple[RankedCandidate, ...]
    proxies: Mapping[str, ProxyInfo]
    rank_by: str
    top_k: int | None
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
    n_groups: int | None = None
    effective_n: float | None = None
    decision: Decision | None = None
    label_filter: LabelFilterRecord | None = None
    origin: RankOrigin = field(default_factory=RankOrigin, compare=False)
    made_by: RunInfo | None = field(default=None, compare=False)
    findings: Findings = field(default_factory=Findings, compare=False)

    def __post_init__(self) -> None:
        if self.mixture is not None and self.decision is not None:
            raise ConfigError("a ranking's mixture is that of its decision: give one of them")
        own = self.mixture if self.decision is None else self.decision.mixture
        for name in () if own is None else own.names:
            self[name]

    def __getitem__(self, name: str) -> RankedCandidate:
        if name in self._by_name:
            return self._by_name[name]
        raise ConfigError(
            f"no candidate {name!r} in the ranking; {did_you_mean(name, self._by_name)}"
        )

    @cached_property
    def _by_name(self) -> dict[str, RankedCandidate]:
        return {row.name: row for row in self.candidates}

    def __iter__(self) -> Iterator[RankedCandidate]:
        return iter(self.order())

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        selected = f"; selected: {listed(self.selected)}" if self.selected else ""
        return f"<Ranking of {counted(len(self), 'candidate')} {self.by_words}{selected}>"

    @property
    def headlines(self) -> tuple[str, ...]:
        """The decision with its reasons, and what is ranked."""
        title = f"Ranking of {counted(len(self), 'candidate')} {self.by_words}"
        return (*(() if self.decision is None else self.decision.headlines), title)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns mean, the messages, and what was found."""
        stated = f"Reliability of {self.rank_by} on your task is unknown."
        if any(row.selection_stability is not None for row in self.candidates):
            stated = f"{self.stability_words}. {stated}"
        return (stated, *self.messages, *self.findings.unsaid)

    @property
    def stability_words(self) -> str:
        """What `selection_stability` is, and is not: to be said wherever it is shown."""
        return (
            "selection_stability: estimated share of new real samples in which it is in the top "
            f"{self.stability_k}, not the chance of being truly best"
        )

    @property
    def selected(self) -> tuple[str, ...]:
        """The selected candidates; empty if too few candidates have a defined rank."""
        return tuple(self._weights)

    @property
    def _weights(self) -> Mapping[str, float]:
        """The selected candidates; none if too few candidates have a defined rank."""
        try:
            return self.top().weights
        except ConfigError:
            return {}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate, best first; undefined numbers are NaN.

        The index is the candidate's name. The columns are `rank`, `selected`, `weight`,
        `selection_stability`, `mean_rank` and `n`; for each proxy its value under its key, the ends
        of its interval (`pad_low`, `pad_high`), its `pad_spread` over seeds and its `pad_rank`; and
        the rank by anything else (`consensus_rank`). A column that no candidate has is left out.

        Example:
            >>> row = RankedCandidate("near", 9, "", {"pad": ProxyScore(1.5)}, {"pad": 1.0})
            >>> info = ProxyInfo("pad", higher_is_better=False)
            >>> ranking = Ranking((row,), {"pad": info}, "pad", 1, 20, "", "text")
            >>> ranking.to_frame()[["rank", "pad"]].to_dict("index")
            {'near': {'rank': 1.0, 'pad': 1.5}}
        """
        import pandas as pd

        weights, rows = self._weights, []
        for row in self.order():
            values: dict[str, Any] = {
                "candidate": row.name,
                "rank": row.ranks[self.rank_by],
                "selected": row.name in weights,
                "weight": weights.get(row.name, 0.0),
                "selection_stability": _nan(row.selection_stability),
                "mean_rank": _nan(row.mean_rank),
                "n": row.n,
            }
            for key, score in row.scores.items():
                ends = {"low": score.low, "high": score.high, "spread": score.spread}
                values |= {key: score.value, **{f"{key}_{end}": _nan(v) for end, v in ends.items()}}
                values[f"{key}_rank"] = row.ranks[key]
            values |= {f"{key}_rank": rank for key, rank in row.ranks.items()}
            rows.append(values)
        frame = pd.DataFrame(rows).set_index("candidate")
        empty = [name for name in frame.columns if frame[name].isna().all()]
        kept = {*self.proxies, "rank"}
        return frame.drop(columns=[name for name in empty if name not in kept])

    def plot(self, by: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the candidates, best on top, with the intervals that there are.

        Args:
            by: A proxy key, to draw its values; "consensus", to draw the mean ranks; None for the
                ranking's own `rank_by`.
            ax: Axes of matplotlib to draw on; None for new ones.

        Returns:
            The axes. Selected candidates are blue; a dotted line is about what further real
            examples would score.

        Raises:
            ConfigError: The ranking has no such column.
            DependencyError: matplotlib is not installed.
        """
        by = self.rank_by if by is None else by
        order, info = self.order(by), self.proxies.get(by)
        ax, weights = new_axes(ax, n_rows=len(order)), self._weights
        notes = []
        for height, row in enumerate(order, start=1):
            color = BLUE if row.name in weights else GREY
            value = row.mean_rank if info is None else row.scores[by].value
            low, high = (None, None) if info is None else (row.scores[by].low, row.scores[by].high)
            if low is not None and high is not None:
                notes = [_ALONE]
                ax.plot([low, high], [-height, -height], color=color, lw=2, alpha=0.45)
            ax.plot([_nan(value)], [-height], "o", color=color, ms=6)
        set_names(ax, [row.name for row in order])
        words = f"mean rank by the proxies of the {by}; lower is better"
        if info is not None:
            if info.reference is not None:
                ax.axvline(info.reference, color=INK, lw=0.8, ls=":")
                notes.append("dotted: about what further real examples would score")
            words = f"{drawable(by)}; {'higher' if info.higher_is_better else 'lower'} is better"
        ax.set_xlabel("\n".join([words, *notes]), parse_math=False)
        ax.set_title(f"{counted(len(order), 'candidate')} against {self.real_words}")
        return ax

    def _table(self) -> pd.DataFrame:
        """Return the columns that were decided by, for print and notebooks."""
        frame = self.to_frame()
        table = super()._table()
        table.insert(0, "#", places([row.ranks[self.rank_by] for row in self.order()]))
        names = ["selected", "weight", "selection_stability", *self.proxies]
        if self.own_mixture is None:
            names.remove("weight")
        return table[["#", "candidate", *(name for name in names if name in frame.columns)]]

    @property
    def by_words(self) -> str:
        """What orders the candidates, and whether it reads the real sample, for titles."""
        info = self.proxies.get(self.rank_by)
        if info is None or info.reads_real:
            return f"by {self.rank_by} against {self.real_words}"
        return f"by {self.rank_by}, which does not read the {self.real_words}"

    @property
    def real_words(self) -> str:
        """The size of the real sample: "60 real examples in 20 groups (effective n 18.5)"."""
        words = counted(self.n_real, "real example")
        if self.n_groups is None or self.effective_n is None or self.n_groups == self.n_real:
            return words
        return f"{words} in {counted(self.n_groups, 'group')} (effective n {self.effective_n:,.1f})"

    @property
    def distinguished(self) -> tuple[tuple[str, str], ...] | None:
        """The pairs of candidates that are distinguished: (better, worse), the best first.

        The comparison is by `rank_by` and simultaneous at 95 % over all pairs. It leaves out copies
        of the real sample, and pairs whose order by the mean rank is the reverse. None if the
        candidates were not compared, as with fewer than 20 real examples.
        """
        evidence = None if self.decision is None else self.decision.evidence
        if evidence is None or evidence.n_apart is None:
            return None
        pairs = tuple((a, b) for a, worse in evidence.shown_better.items() for b in worse)
        # a file may have their number alone
        return pairs if len(pairs) == evidence.n_apart else None

    @property
    def excluded(self) -> tuple[str, ...]:
        """The candidates that are not selected whatever their rank.

        They are the copies of the real sample, the candidates without a score, and those that do
        not resemble the real data, whose labels stand out, or against whom answers speak, if they
        are left out for that: a given `top_k` selects them.
        """
        decision = self.decision
        if decision is None:
            return ()
        evidence = decision.evidence
        doubtful: list[str] = [] if self.top_k is not None else [*evidence.dissimilar]
        if self.top_k is None and decision.opening in ("labels", "answers"):
            doubtful += () if evidence.camps else evidence.contradicted
            doubtful += () if evidence.answers is None else evidence.answers.left_out
        left_out = [name for name in doubtful if name not in decision.mixture.names]
        return tuple(dict.fromkeys((*evidence.copies, *evidence.undefined, *left_out)))

    def order(self, by: str | None = None) -> tuple[RankedCandidate, ...]:
        """Return the rows, best first; ties keep their order, and undefined ranks come last.

        Args:
            by: A proxy key or "consensus"; None for the ranking's own `rank_by`.

        Raises:
            ConfigError: The ranking has no such column.
        """
        by = self.rank_by if by is None else by
        known = self.candidates[0].ranks
        if by not in known:
            raise ConfigError(f"the ranking has no column {by!r}; {did_you_mean(by, known)}")

        def place(row: RankedCandidate) -> float:
            return math.inf if math.isnan(row.ranks[by]) else row.ranks[by]

        return tuple(sorted(self.candidates, key=place))

    def top(self, k: int | None = None, by: str | None = None) -> Mixture:
        """Return the mixture to train on: that of the decision, or the best k with equal weights.

        Args:
            k: Number of candidates, at most all; None for as many as the ranking selects.
            by: A proxy key or "consensus"; None for the ranking's own `rank_by`. If `k` or
                `by` is given, the weights are equal, and copies of the real sample are passed over.

        Raises:
            ConfigError: k is less than 1, or fewer than k candidates have a defined rank.
        """
        own = self.mixture if self.decision is None else self.decision.mixture
        if own is not None and k is None and by is None:
            return own
        if k is None:
            k = self.top_k or (self.stability_k if own is None else len(own.names))
        by = by or self.rank_by
        if k < 1:
            raise ConfigError(f"top_k={k}: allowed is 1 to {len(self)}, the number of candidates")
        copies = () if self.decision is None else self.decision.evidence.copies
        best = [row for row in self.order(by) if row.name not in copies][:k]
        undefined = [row.name for row in best if math.isnan(row.ranks[by])]
        if undefined:
            reasons = [message for message in self.messages if "undefined" in message]
            message = "; ".join([f"{by} is undefined for {', '.join(undefined)}", *reasons])
            raise ConfigError(f"top_k={k}: {message}")
        source = f"top {k} by {by}"
        if k > len(self):
            source = f"all {len(best)} by {by}, as top_k={k} was given"
        return Mixture.equal([row.name for row in best], source)

    @property
    def own_mixture(self) -> Mixture | None:
        """The mixture, if its weights were chosen; None if the selected candidates weigh equal."""
        if self.decision is None:
            return self.mixture
        return None if self.decision.weighting == "equal" else self.decision.mixture

    @property
    def stability_k(self) -> int:
        """The k of `selection_stability` and of the sample-size analysis.

        It is `top_k` if that was given; else the number of selected candidates; and the better half
        of the candidates, rounded up, if all are selected: a candidate is never in or out then, and
        the middle is the border at which the order says most.
        """
        if self.top_k is not None:
            return self.top_k
        n_left = len(self) - len(self.excluded)
        half = (n_left + 1) // 2
        if self.decision is None:
            return half
        if self.decision.evidence.stability_k is not None:
            return self.decision.evidence.stability_k
        n_selected = len(self.decision.mixture.names)
        return n_selected if n_selected < n_left else half

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `ranking.json`: plain values, None for undefined ones.

        Version 3 has the decision. Without one, as in rankings of old files, it is version 2 if the
        ranking has a mixture of its own, which "selected_as" describes: a reader of version 1 would
        take its weights for an error. Otherwise it is version 1.
        """
        selected = self.top()
        own: dict[str, Any] = {}
        if self.decision is not None:
            own = {"decision": self.decision.to_dict()}
        elif self.mixture is not None:
            own = {"selected_as": self.mixture.source}
        return {
            "version": self._version(),
            "packages": dict(self.packages),
            "seed": self.seed,
            "modality": self.modality,
            "real": _real_to_dict(self),
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
                    **({} if info.reference is None else {"reference": info.reference}),
                    **({} if info.version == 1 else {"version": info.version}),
                }
                for key, info in self.proxies.items()
            },
            "candidates": [_row_to_dict(row) for row in self.candidates],
            "selected": [{"name": n, "weight": w} for n, w in selected.weights.items()],
            "origin": {**vars(self.origin), "options": dict(self.origin.options)},
            **own,
            **({} if self.label_filter is None else {"label_filter": self.label_filter.to_dict()}),
            "messages": list(self.messages),
            "wall_s": dict(self.wall_s),
            **({"details": dict(self.details)} if self.details else {}),
            **({} if self.made_by is None else {"made_by": self.made_by.to_dict()}),
        }

    def _version(self) -> int:
        if self.decision is not None:
            return 3
        return 1 if self.mixture is None else 2

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Ranking:
        """Return the ranking that `to_dict` wrote.

        The stability in a file of version 0.1, which is under another key, and its message on pairs
        of candidates are left out, because both were wrong too often. A message says so.

        Raises:
            ConfigError: The version is unknown, or a field is missing.
            RecordError: A field of the decision is missing or of the wrong type.
        """
        if state.get("version") not in (1, 2, 3):
            version = state.get("version")
            raise ConfigError(f"a ranking of version {version!r}; allowed are 1, 2 and 3")
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
                messages=_messages(state),
                wall_s=state["wall_s"],
                mixture=_own_mixture(state),
                details=state.get("details", {}),
                n_groups=state["real"].get("n_groups"),
                effective_n=state["real"].get("effective_n"),
                decision=_decision(state),
                label_filter=_label_filter(state),
                origin=RankOrigin(**state.get("origin", {})),
                made_by=_made_by(state),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a ranking: {type(error).__name__}: {error}") from error


def _real_to_dict(ranking: Ranking) -> dict[str, Any]:
    groups = {"n_groups": ranking.n_groups, "effective_n": ranking.effective_n}
    known = {name: value for name, value in groups.items() if value is not None}
    return {"n": ranking.n_real, **known, "sha256": ranking.real_sha256}


def _own_mixture(state: Mapping[str, Any]) -> Mixture | None:
    if state["version"] != 2:
        return None
    weights = {row["name"]: row["weight"] for row in state["selected"]}
    return Mixture(weights, state["selected_as"])


def _decision(state: Mapping[str, Any]) -> Decision | None:
    if state["version"] < 3:
        return None
    return Decision.from_fields(JsonFields(state["decision"], "decision"))


def _messages(state: Mapping[str, Any]) -> tuple[str, ...]:
    messages = tuple(state["messages"])
    kept = tuple(message for message in messages if _OLD_COMPARISON.search(message) is None)
    is_old = len(kept) < len(messages) or any(
        row.get(OLD_STABILITY) is not None and "selection_stability" not in row
        for row in state["candidates"]
    )
    return (*kept, _OLDER) if is_old else kept


def _made_by(state: Mapping[str, Any]) -> RunInfo | None:
    fields = JsonFields(state)
    return RunInfo.from_fields(fields.object("made_by")) if "made_by" in fields else None


def _label_filter(state: Mapping[str, Any]) -> LabelFilterRecord | None:
    if state.get("label_filter") is None:
        return None
    return LabelFilterRecord.from_fields(JsonFields(state["label_filter"], "label_filter"))


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
        "selection_stability": _null(row.selection_stability),
        OLD_STABILITY: _null(row.selection_stability),
        "mean_rank": _null(row.mean_rank),
        "source": row.source,
        "view": row.view,
        "label": row.label,
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
        row.get("selection_stability"),
        row["mean_rank"],
        # rankings of older versions do not say where their candidates are
        row.get("source", ""),
        row.get("view"),
        row.get("label"),
    )


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
