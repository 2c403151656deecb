"""What a ranking advises: a sentence, the mixture that follows, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from synque_select.types.answers import AnswerEvidence
from synque_select.types.mixture import Mixture
from synque_select.utils.display import Shown
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LEAST_REAL", "Decision", "Evidence", "Farness", "Opening", "Weighting"]

Opening: TypeAlias = Literal[
    "clear", "tie", "small", "labels", "far", "untested", "tuned", "answers"
]
Weighting: TypeAlias = Literal["equal", "proportional", "mmd_optimal", "tuned"]

# The simulations of the uncertainty (docs/calibration.md) start at 20 real examples: below that,
# nothing is known about how often a difference is found where there is none.
LEAST_REAL = 20


@dataclass(frozen=True)
class Farness:
    """How well a linear classifier separates the real sample from the candidates.

    Args:
        candidate: The candidate that the classifier separates least well.
        accuracy: Mean probability that the classifier gives to the right side of a held-out
            example, 1 − ε of PAD; 0.5 is chance. NaN if nearest neighbors alone were enough.
        low: Lower end of the 95 % interval of `accuracy` over new real samples.
        halves: The same accuracy between two halves of the real sample; NaN if not measured.
        is_far: Whether the rule calls every candidate far.
        nearest: Largest share of the real examples, over the candidates, whose nearest example is
            a synthetic one, of as many real as synthetic ones; 0.5 for one distribution. None in
            files of earlier versions.
        each: The candidates that are shown to be far one by one, and the accuracy for each.
    """

    candidate: str
    accuracy: float
    low: float
    halves: float
    is_far: bool
    nearest: float | None = None
    each: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Json]:
        """Return the values as JSON, None for NaN."""
        return {
            "candidate": self.candidate,
            "accuracy": null_if_undefined(self.accuracy),
            "low": null_if_undefined(self.low),
            "halves": null_if_undefined(self.halves),
            "is_far": self.is_far,
            "nearest": self.nearest,
            "each": dict(self.each),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Farness:
        """Read what `to_dict` wrote.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            candidate=fields.text("candidate"),
            accuracy=fields.number("accuracy"),
            low=fields.number("low"),
            halves=fields.number("halves"),
            is_far=fields.flag("is_far"),
            nearest=fields.optional_number("nearest"),
            each=fields.numbers("each") if "each" in fields else {},
        )


@dataclass(frozen=True)
class Evidence:
    """What the data say about the choice, whatever `top_k` was given.

    Args:
        rank_by: The proxy's key, or "consensus", by which candidates are compared.
        n_real: Size of the real sample.
        n_effective: Its effective size: n, or less if the real examples come in clusters.
        n_apart: Number of pairs of candidates that are distinguished (simultaneous 95 % over all
            pairs); None if no pair was compared.
        n_pairs: Number of pairs.
        worse: The candidates shown worse than at least half of the others.
        clear_at: The numbers k for which each of the best k is shown better than every other.
        copies: The candidates that are the real sample or a near copy of it.
        undefined: The candidates without a score by `rank_by`.
        contradicted: Candidate whose labels stand out to the share of them that the other
            candidates contradict.
        unpredicted: Those of them for which this share does not stand out, but how few labels
            follow from the candidate's own inputs: to the share that classifiers trained on its
            other folds predict.
        camps: Sentences on two camps of candidates whose labels contradict each other: who
            contradicts whom, and what to read; empty without.
        far: How far the nearest candidate is; None if not measured.
        answers: What labels of real examples show; None without answers.
        shown_better: Candidate to those that it is shown better than, best first: the pairs that
            are distinguished.
        untested: Why no pair was compared, as a part of a sentence; empty if pairs were, or if the
            real sample is too small.
        stability_k: The k of the `selection_stability` of the candidates; None without it.
        degenerate: Candidate with too few different examples to be compared to the reason, as a
            part of a sentence; these are among `undefined`.
    """

    rank_by: str
    n_real: int
    n_effective: float
    n_apart: int | None = None
    n_pairs: int = 0
    worse: tuple[str, ...] = ()
    clear_at: tuple[int, ...] = ()
    copies: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    contradicted: Mapping[str, float] = field(default_factory=dict)
    unpredicted: Mapping[str, float] = field(default_factory=dict)
    camps: tuple[str, ...] = ()
    far: Farness | None = None
    answers: AnswerEvidence | None = None
    shown_better: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untested: str = ""
    stability_k: int | None = None
    degenerate: Mapping[str, str] = field(default_factory=dict)

    @property
    def dissimilar(self) -> Mapping[str, float]:
        """Those of `Farness.each`, unless all candidates are far."""
        return {} if self.far is None or self.far.is_far else self.far.each

    @property
    def is_small(self) -> bool:
        """Whether the real sample is too small to compare candidates."""
        return self.n_effective < LEAST_REAL

    def to_dict(self) -> dict[str, Json]:
        """Return the values as JSON."""
        return {
            "rank_by": self.rank_by,
            "n_real": self.n_real,
            "n_effective": self.n_effective,
            "n_apart": self.n_apart,
            "n_pairs": self.n_pairs,
            "worse": list(self.worse),
            "clear_at": list(self.clear_at),
            "copies": list(self.copies),
            "undefined": list(self.undefined),
            "contradicted": dict(self.contradicted),
            **({"unpredicted": dict(self.unpredicted)} if self.unpredicted else {}),
            "camps": list(self.camps),
            "far": None if self.far is None else self.far.to_dict(),
            **({} if self.answers is None else {"answers": self.answers.to_dict()}),
            "shown_better": {name: list(worse) for name, worse in self.shown_better.items()},
            "untested": self.untested,
            "stability_k": self.stability_k,
            **({"degenerate": dict(self.degenerate)} if self.degenerate else {}),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Evidence:
        """Read what `to_dict` wrote.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        far = fields.optional_object("far")
        n_apart, answers = fields.value("n_apart"), fields.optional_object("answers")
        k = fields.value("stability_k")
        degenerate = fields.object("degenerate") if "degenerate" in fields else JsonFields({})
        better = JsonFields({}) if "shown_better" not in fields else fields.object("shown_better")
        return cls(
            rank_by=fields.text("rank_by"),
            n_real=fields.count("n_real"),
            n_effective=fields.number("n_effective"),
            n_apart=None if n_apart is None else fields.integer("n_apart", least=0),
            n_pairs=fields.integer("n_pairs", least=0),
            worse=fields.texts("worse"),
            clear_at=tuple(int(k) for k in fields.number_list("clear_at")),
            copies=fields.texts("copies"),
            undefined=fields.texts("undefined"),
            contradicted=fields.numbers("contradicted"),
            unpredicted=fields.numbers("unpredicted") if "unpredicted" in fields else {},
            camps=fields.texts("camps"),
            far=None if far is None else Farness.from_fields(far),
            answers=None if answers is None else AnswerEvidence.from_fields(answers),
            shown_better={name: better.texts(name) for name in better},
            untested=fields.text("untested", ""),
            stability_k=None if k is None else fields.count("stability_k"),
            degenerate={name: degenerate.text(name) for name in degenerate},
        )


@dataclass(frozen=True)
class Decision(Shown):
    """The advice of a ranking and the mixture that follows from it; they always agree.

    Args:
        opening: Which of the rules decided. "clear": some candidates are shown worse and left out;
            "tie": the real sample separates none; "small": it is too small to choose; "labels": the
            labels of a candidate stand out, or two camps contradict each other; "far": no candidate
            resembles the real data; "untested": the candidates could not be compared; "tuned": a
            search chose the mixture; "answers": labels of real examples show some to be worse.
        sentence: The advice, which is printed first everywhere.
        mixture: The mixture to train on.
        reasons: Further sentences that belong beside the advice.
        evidence: The numbers behind it.
        weighting: How the candidates of the mixture are weighted.

    Example:
        >>> evidence = Evidence("consensus", n_real=60, n_effective=60, n_apart=0, n_pairs=1)
        >>> decision = Decision("tie", "Train on all 2.", Mixture.equal(["a", "b"]), (), evidence)
        >>> Decision.from_fields(JsonFields(decision.to_dict())) == decision
        True
    """

    opening: Opening
    sentence: str
    mixture: Mixture
    reasons: tuple[str, ...]
    evidence: Evidence
    weighting: Weighting = "equal"

    def __repr__(self) -> str:
        return f"<Decision {self.opening!r}: {self.sentence}>"

    @property
    def headlines(self) -> tuple[str, ...]:
        """The sentence and the reasons."""
        return (self.sentence, *self.reasons)

    def to_frame(self) -> pd.DataFrame:
        """Return the mixture: one row per candidate, whose name is the index, with its `weight`."""
        return self.mixture.to_frame()

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame()  # the sentence says it

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the weights of the mixture; see `Mixture.plot`."""
        return self.mixture.plot(ax=ax)

    def to_dict(self) -> dict[str, Json]:
        """Return the decision as JSON values."""
        return {
            "opening": self.opening,
            "sentence": self.sentence,
            "mixture": self.mixture.to_dict(),
            "reasons": list(self.reasons),
            "evidence": self.evidence.to_dict(),
            "weighting": self.weighting,
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Decision:
        """Read the decision of a `ranking.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
            ConfigError: The weights of the mixture are not allowed.
        """
        mixture = fields.object("mixture")
        return cls(
            opening=fields.choice("opening", get_args(Opening)),
            sentence=fields.text("sentence"),
            mixture=Mixture(mixture.numbers("weights"), mixture.text("source", "")),
            reasons=fields.texts("reasons"),
            evidence=Evidence.from_fields(fields.object("evidence")),
            weighting=fields.choice("weighting", get_args(Weighting)),
        )
