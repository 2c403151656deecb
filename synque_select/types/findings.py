"""What scoring finds beside the order of the candidates, and the form that files keep of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeAlias

from synque_select.types.label_filter import DroppedLabel
from synque_select.types.label_warning import LabelWarning, shown_worst, warning_lines
from synque_select.utils.display import BLUE, GREY, Shown, new_axes
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import UNDEFINED, counted, listed, one_line, percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "ContestedExample",
    "DoubtfulLabel",
    "Findings",
    "Gap",
    "Gaps",
    "LabelCheck",
    "LabelChecks",
    "SampleSizeAgreement",
    "SampleSizeAnalysis",
    "ShownGap",
    "ShownView",
]

_OLD_FORECAST = (
    "nothing is extrapolated: an older version made this analysis, whose forecasts did not hold"
)
_ENOUGH = 100  # real examples: below, three in a hundred uncovered ones can all be missed
_MOST_CHARACTERS = 100  # of an example in a table
_LEAST_COMPARED = 3  # candidates: of two that disagree, neither stands out

# how the page shows examples: a text as it is, an image as {"png": base64}
ShownView: TypeAlias = str | Mapping[str, str]


@dataclass(frozen=True)
class Gap:
    """One real example and the synthetic example nearest to it, among all candidates.

    Args:
        real: Position in the real sample.
        candidate: Name of the candidate that holds the nearest example.
        synthetic: Position of the nearest example in that candidate.
        distance: Euclidean distance between the two embeddings.
        radius: Distance from the real example to its k-th nearest other real example.
    """

    real: int
    candidate: str
    synthetic: int
    distance: float
    radius: float

    @property
    def covered(self) -> bool:
        """Whether a synthetic example lies within the real example's own neighborhood."""
        return self.distance <= self.radius


@dataclass(frozen=True)
class ShownGap(Gap):
    """A gap with both examples, ready to be shown.

    Args:
        real_view: The real example.
        synthetic_view: The nearest synthetic example.
    """

    real_view: ShownView = ""
    synthetic_view: ShownView = ""

    def to_dict(self) -> dict[str, Json]:
        """Return the gap as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ShownGap:
        """Read one entry of `gaps.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            real=fields.integer("real", least=0),
            candidate=fields.text("candidate"),
            synthetic=fields.integer("synthetic", least=0),
            distance=fields.number("distance"),
            radius=fields.number("radius"),
            real_view=_shown_view(fields, "real_view"),
            synthetic_view=_shown_view(fields, "synthetic_view"),
        )


def _shown_view(fields: JsonFields, name: str) -> ShownView:
    if isinstance(fields.value(name), str):
        return fields.text(name)
    return {"png": fields.object(name).text("png")}


def _words(position: int, view: ShownView) -> str:
    return f"{position}: {view}" if isinstance(view, str) else f"image {position}"


@dataclass(frozen=True, repr=False)
class Gaps(Shown):
    """The real examples that no candidate covers.

    Args:
        n_real: Size of the real sample.
        n_uncovered: How many real examples no candidate covers.
        worst: The worst covered real examples, the worst first; at most `n_uncovered`.
    """

    n_real: int
    n_uncovered: int
    worst: tuple[ShownGap, ...]

    @property
    def headlines(self) -> tuple[str, ...]:
        """How many real examples no candidate covers."""
        n, real = self.n_uncovered, counted(self.n_real, "real example")
        if n == 0:
            return (f"Each of the {real} is covered by a candidate.",)
        verb = "is" if n == 1 else "are"
        return (f"{n:,} of {real} {verb} not covered by any candidate.",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a distance is, and what is not shown."""
        notes = [
            "distance: to the nearest synthetic example of any candidate, as a multiple of that to "
            "the k-th nearest other real example, k = min(5, √n); above 1, it does not cover the "
            "real one"
        ]
        if self.n_uncovered == 0:
            # the rule of three: with no case among n, the one-sided 95 % bound is about 3 / n
            bound = percent(min(1.0, 3 / self.n_real))
            few = f"; {self.n_real} are too few to say that nothing is missing"
            notes.insert(
                0,
                f"none among {self.n_real:,}: up to {bound} of all such examples may be uncovered"
                f"{few if self.n_real < _ENOUGH else ''}",
            )
        if self.n_uncovered > len(self.worst):
            notes.append(f"shown are the worst {len(self.worst)} of {self.n_uncovered:,}")
        return tuple(notes)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per gap, the worst first; see `ShownGap` for the columns."""
        import pandas as pd

        columns = [each.name for each in fields(ShownGap)]
        return pd.DataFrame([gap.to_dict() for gap in self.worst], columns=columns)

    def _table(self) -> pd.DataFrame:
        """Return what the table of the command line has; of an image, its position alone."""
        import pandas as pd

        rows = [
            {
                "real example": _words(gap.real, gap.real_view),
                "nearest synthetic example": _words(gap.synthetic, gap.synthetic_view),
                "candidate": gap.candidate,
                "distance": f"{gap.distance / gap.radius:.2f}x" if gap.radius > 0 else UNDEFINED,
            }
            for gap in self.worst
        ]
        return pd.DataFrame(rows).map(lambda text: one_line(text, _MOST_CHARACTERS))

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `gaps.json`."""
        return {
            "version": 1,
            "n_real": self.n_real,
            "n_uncovered": self.n_uncovered,
            "gaps": [gap.to_dict() for gap in self.worst],
        }

    @classmethod
    def from_dict(cls, state: object) -> Gaps:
        """Read the content of `gaps.json`.

        Raises:
            RecordError: The version is unknown, or a field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        fields.version(1)
        return cls(
            n_real=fields.count("n_real"),
            n_uncovered=fields.integer("n_uncovered", least=0),
            worst=tuple(map(ShownGap.from_fields, fields.objects("gaps"))),
        )


@dataclass(frozen=True)
class DoubtfulLabel:
    """An example of a candidate whose labels stand out, with the classes that contradict its label.

    Args:
        position: Its position in the candidate, from 0.
        view: The example, ready to be shown.
        label: Its label.
        others: What most classifiers of the other candidates call it; None if none of them has the
            class of the label, or if they agree with it.
        votes: Their mean probability of that class; None without one.
        held_out: What a classifier trained on the candidate's other folds calls it; None if that
            is its label, or without such a classifier.
    """

    position: int
    view: ShownView
    label: str
    others: str | None
    votes: float | None
    held_out: str | None

    def to_dict(self) -> dict[str, Json]:
        """Return the example as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> DoubtfulLabel:
        """Read one doubtful label of `labels.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            position=fields.integer("position", least=0),
            view=_shown_view(fields, "view"),
            label=fields.text("label"),
            others=fields.optional_text("others"),
            votes=fields.optional_number("votes"),
            held_out=fields.optional_text("held_out"),
        )


@dataclass(frozen=True)
class LabelCheck:
    """What a classifier on embeddings finds in the labels of one candidate.

    Args:
        name: Name of the candidate.
        n: Number of labeled examples used.
        agreement: Balanced accuracy on the candidate's labels of classifiers trained on its other
            folds; NaN where it cannot be computed.
        others_agreement: Mean balanced accuracy on the candidate's labels of classifiers trained
            on each of the other candidates; NaN if no other candidate has the same classes.
        mix: Class to its share of the candidate's labels.
        real_mix: Class to its share of what the candidate's classifier predicts on the real
            sample; empty without a classifier.
        warnings: Plain sentences.
        contradicted: Share of its labels that the heads of the other families contradict; None if
            it was not measured.
        outlier: Whether that share, or the agreement, stands out among the candidates.
        mix_distance: Total variation between what classifiers trained on the candidate predict for
            its own held-out examples and for the real sample; None if it was not measured, or if an
            older version did not show it to be above 0.3.
        is_mix_far: Whether it is shown to be above 0.3.
        reasons: What each of the warnings is about; empty if an older version made the check.
        rare: Class to its number of examples, for classes with too few of them to be used.
        unchecked: Why labels of several classes were not predicted from the candidate's own inputs;
            None if they were.
        doubtful: Examples of an outlier whose labels are contradicted, the most doubtful first.
    """

    name: str
    n: int
    agreement: float
    others_agreement: float
    mix: Mapping[str, float]
    real_mix: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    contradicted: float | None = None
    outlier: bool = False
    mix_distance: float | None = None
    is_mix_far: bool = False
    reasons: tuple[LabelWarning, ...] = ()
    rare: Mapping[str, int] = field(default_factory=dict)
    unchecked: str | None = None
    doubtful: tuple[DoubtfulLabel, ...] = ()

    @classmethod
    def without(cls, name: str, reason: str) -> LabelCheck:
        """Return the entry of a candidate whose labels are not checked at all.

        Args:
            name: Name of the candidate.
            reason: Why not.
        """
        return cls(name, 0, math.nan, math.nan, {}, {}, unchecked=reason)

    def is_of_majority(self, i: int) -> bool:
        """Return whether warning `i` says only that most other candidates contradict the labels."""
        return bool(self.reasons) and self.reasons[i].kind == "contradicted"

    def to_dict(self) -> dict[str, Json]:
        """Return the check as JSON values, None for NaN."""
        measured: dict[str, Json] = {}
        if self.contradicted is not None:
            measured = {"contradicted": self.contradicted, "outlier": self.outlier}
        return {
            "name": self.name,
            "n": self.n,
            "agreement": null_if_undefined(self.agreement),
            "others_agreement": null_if_undefined(self.others_agreement),
            "mix": dict(self.mix),
            "real_mix": dict(self.real_mix),
            "warnings": list(self.warnings),
            **measured,
            **self._mix_to_dict(),
            **({"reasons": [each.to_dict() for each in self.reasons]} if self.reasons else {}),
            **({"rare": dict(self.rare)} if self.rare else {}),
            **({} if self.unchecked is None else {"unchecked": self.unchecked}),
            **({"doubtful": [e.to_dict() for e in self.doubtful]} if self.doubtful else {}),
        }

    def _mix_to_dict(self) -> dict[str, Json]:
        if self.mix_distance is None:
            return {}
        return {"mix_distance": self.mix_distance, "mix_far": self.is_mix_far}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> LabelCheck:
        """Read one entry of `labels.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        warnings = fields.texts("warnings")
        reasons = fields.objects("reasons") if "reasons" in fields else ()
        fields.expect(len(reasons) in (0, len(warnings)), "reasons", "one per warning")
        return cls(
            name=fields.text("name"),
            n=fields.integer("n", least=0),
            agreement=fields.number("agreement"),
            others_agreement=fields.number("others_agreement"),
            mix=fields.numbers("mix"),
            real_mix=fields.numbers("real_mix"),
            warnings=warnings,
            contradicted=fields.optional_number("contradicted"),
            outlier=fields.flag("outlier", False),
            mix_distance=fields.optional_number("mix_distance"),
            # older versions wrote the distance only where it is far
            is_mix_far=fields.flag("mix_far", fields.optional_number("mix_distance") is not None),
            reasons=tuple(map(LabelWarning.from_fields, reasons)),
            rare={k: int(n) for k, n in fields.numbers("rare").items()} if "rare" in fields else {},
            unchecked=fields.text("unchecked") if "unchecked" in fields else None,
            doubtful=tuple(map(DoubtfulLabel.from_fields, fields.objects("doubtful")))
            if "doubtful" in fields
            else (),
        )


@dataclass(frozen=True)
class ContestedExample:
    """An example that two camps of candidates read differently.

    Args:
        candidate: Name of the candidate that holds it.
        position: Its position in that candidate, from 0.
        view: The example, ready to be shown.
        label: Its label, as the candidate's camp reads it.
        read_as: What most classifiers of the other camp call it.
    """

    candidate: str
    position: int
    view: ShownView
    label: str
    read_as: str

    def to_dict(self) -> dict[str, Json]:
        """Return the example as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ContestedExample:
        """Read one contested example of `labels.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            candidate=fields.text("candidate"),
            position=fields.integer("position", least=0),
            view=_shown_view(fields, "view"),
            label=fields.text("label"),
            read_as=fields.text("read_as"),
        )


@dataclass(frozen=True, repr=False)
class LabelChecks(Shown):
    """The label checks of all candidates.

    Args:
        checks: One per candidate, in the order of the candidates.
        has_camps: Whether there are two camps of candidates whose labels contradict each other.
        contested: Examples that the two camps read differently, at most 20, those first on which
            the other camp's classifiers agree most.
    """

    checks: tuple[LabelCheck, ...]
    has_camps: bool = False
    contested: tuple[ContestedExample, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """The warnings, or that there are none."""
        return self.messages

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate, whose name is the index; see `LabelCheck` for the columns.

        The shares of the classes are left out.
        """
        import pandas as pd

        names = ("n", "agreement", "others_agreement", "contradicted", "outlier")
        rows = [{name: getattr(check, name) for name in names} for check in self.checks]
        index = pd.Index([check.name for check in self.checks], name="candidate")
        return pd.DataFrame(rows, index=index)

    @property
    def messages(self) -> tuple[str, ...]:
        """The warnings, or a sentence on what it means that there are none; what was left out.

        What several candidates are warned of is one line. Of two camps, each contradicts the other,
        and it is not the labels of the smaller one that are wrong.
        """
        lines = warning_lines({check.name: check.reasons for check in self.checks})
        warnings = tuple(
            dict.fromkeys(
                lines.get(check.reasons[i].kind, sentence) if check.reasons else sentence
                for check in self.checks
                for i, sentence in enumerate(check.warnings)
                if not (self.has_camps and check.is_of_majority(i))
            )
        )
        n, n_all = sum(not math.isnan(check.agreement) for check in self.checks), len(self.checks)
        if n < _LEAST_COMPARED:
            words = "without a warning, but 3 candidates are needed to see labels that stand out."
        elif self.has_camps:
            words = "no single candidate's labels stand out, but two camps contradict each other."
        else:
            words = (
                "no candidate's labels stand out. An error that most of them share cannot be seen."
            )
        checked = (
            counted(n, "candidate") if n == n_all else f"{n:,} of {counted(n_all, 'candidate')}"
        )
        if n and not warnings:
            warnings = (f"The labels of {checked} were checked: {words}",)
        return (*warnings, *self._unchecked, *self._rare, *self._mix)

    @property
    def _unchecked(self) -> tuple[str, ...]:
        """One line for each reason why candidates were not checked against their own inputs."""
        names: dict[tuple[bool, str], list[str]] = {}
        for check in self.checks:
            if check.unchecked is not None:
                kind = (check.contradicted is None, check.unchecked)
                names.setdefault(kind, []).append(check.name)
        return tuple(
            f"The labels of {listed(group)} were "
            + (
                "not checked"
                if alone
                else "only compared with what other candidates' classifiers say"
            )
            + f": {reason}."
            for (alone, reason), group in names.items()
        )

    @property
    def _rare(self) -> tuple[str, ...]:
        """One line on all examples of classes that are too rare to be used."""
        rare = {check.name: check.rare for check in self.checks if check.rare}
        if not rare:
            return ()
        n = sum(sum(counts.values()) for counts in rare.values())
        each = [
            f"{name} ({listed([f'{label!r}: {k:,}' for label, k in counts.items()])})"
            for name, counts in rare.items()
        ]
        return (
            f"The label checks leave out {counted(n, 'example')} of classes that are too rare: "
            f"{listed(each)}.",
        )

    @property
    def _mix(self) -> tuple[str, ...]:
        """One line on all candidates whose class mix is not that of the real sample."""
        far = {
            c.name: c.mix_distance
            for c in self.checks
            if c.is_mix_far and c.mix_distance is not None
        }
        if not far:
            return ()
        order = sorted(far, key=lambda name: -far[name])
        shown = shown_worst([f"{name} {far[name]:.2f}" for name in order])
        return (
            f"The class mix of {len(far)} of {counted(len(self.checks), 'candidate')} differs from "
            "what their classifiers predict for the real sample, which says nothing against their "
            f"labels (total variation: {shown}).",
        )

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `labels.json`."""
        camps: dict[str, Json] = {}
        if self.has_camps:
            camps = {"camps": True, "contested": [each.to_dict() for each in self.contested]}
        return {"version": 1, "checks": [check.to_dict() for check in self.checks], **camps}

    @classmethod
    def from_dict(cls, state: object) -> LabelChecks:
        """Read the content of `labels.json`.

        Raises:
            RecordError: The version is unknown, or a field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        fields.version(1)
        checks = tuple(map(LabelCheck.from_fields, fields.objects("checks")))
        contested = fields.objects("contested") if "contested" in fields else ()
        return cls(
            checks, fields.flag("camps", False), tuple(map(ContestedExample.from_fields, contested))
        )


@dataclass(frozen=True)
class SampleSizeAgreement:
    """How far two disjoint real samples of size m agree.

    Args:
        m: Size of each sample.
        n_pairs: Number of random pairs of samples.
        overlap: Mean share of the top k that both samples select; k / K by chance.
        spearman: Mean Spearman correlation of the two orders.
        border_error: Standard error, at size m, of the gap between the candidates at places k and
            k + 1 of the whole sample.
    """

    m: int
    n_pairs: int
    overlap: float
    spearman: float
    border_error: float

    def to_dict(self) -> dict[str, Json]:
        """Return the row as JSON values, None for NaN."""
        return {
            "m": self.m,
            "n_pairs": self.n_pairs,
            "overlap": null_if_undefined(self.overlap),
            "spearman": null_if_undefined(self.spearman),
            "border_error": null_if_undefined(self.border_error),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> SampleSizeAgreement:
        """Read one measured size of `real_size.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            m=fields.count("m"),
            n_pairs=fields.count("n_pairs"),
            overlap=fields.number("overlap"),
            spearman=fields.number("spearman"),
            border_error=fields.number("border_error"),
        )


@dataclass(frozen=True, repr=False)
class SampleSizeAnalysis(Shown):
    """Whether more real examples would change the selection.

    Args:
        measured: One row per size, smallest first; at least one.
        extrapolated: Size to standard error of the gap, extrapolated as 1/√n from the largest
            measured size: valid only if further real examples resemble the present ones. Empty if
            the measured errors do not fall that way.
        gap: The gap at the border of the top k on the whole real sample, in the same unit.
        chance: Expected overlap of two random selections, k / K.
        top_k: How many candidates are selected.
        unit: Unit of the gap and its errors; None in files of 0.1.0, whose gaps of the consensus
            are in mean ranks.
        no_extrapolation: Why nothing is extrapolated; None if something is.
    """

    measured: tuple[SampleSizeAgreement, ...]
    extrapolated: Mapping[int, float]
    gap: float
    chance: float
    top_k: int
    unit: str | None = None
    no_extrapolation: str | None = None

    @property
    def headlines(self) -> tuple[str, ...]:
        """How far disjoint real samples of the largest measured size agree."""
        last = self.measured[-1]
        sentence = (
            f"Two disjoint real samples of {last.m} select {percent(last.overlap)} of the top "
            f"{self.top_k} alike (mean of {counted(last.n_pairs, 'pair')}); "
            f"{percent(self.chance)} by chance."
        )
        return (sentence, *(() if self.no_extrapolation is None else (self.no_extrapolation,)))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per measured size; see `SampleSizeAgreement` for the columns."""
        import pandas as pd

        return pd.DataFrame([vars(row) for row in self.measured])

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the share of the top k that two disjoint real samples select alike, by their size.

        Args:
            ax: Axes of matplotlib to draw on; None for new ones.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        ax = new_axes(ax)
        sizes = [row.m for row in self.measured]
        ax.plot(sizes, [row.overlap for row in self.measured], "o-", color=BLUE, label="measured")
        ax.axhline(self.chance, color=GREY, ls=":", label="by chance")
        ax.set_ylim(0, 1.05)
        ax.set_xlabel("real examples in each of the two samples")
        ax.set_ylabel(f"share of the top {self.top_k} that both select")
        ax.legend(frameon=False)
        return ax

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `real_size.json`."""
        return {
            "version": 1,
            "measured": [row.to_dict() for row in self.measured],
            "extrapolated": [
                {"n": n, "border_error": null_if_undefined(error)}
                for n, error in self.extrapolated.items()
            ],
            "gap": null_if_undefined(self.gap),
            "chance": self.chance,
            "k": self.top_k,
            "unit": self.unit,
            "no_extrapolation": self.no_extrapolation,
        }

    @classmethod
    def from_dict(cls, state: object) -> SampleSizeAnalysis:
        """Read the content of `real_size.json`.

        What version 0.1 extrapolated is left out: its forecasts did not hold.

        Raises:
            RecordError: The version is unknown, or a field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        fields.version(1)
        measured = tuple(map(SampleSizeAgreement.from_fields, fields.objects("measured")))
        fields.expect(len(measured) > 0, "measured", "a list with at least one size")
        extrapolated = {
            row.count("n"): row.number("border_error") for row in fields.objects("extrapolated")
        }
        is_old = "unit" not in fields
        return cls(
            measured=measured,
            extrapolated={} if is_old else extrapolated,
            gap=fields.number("gap"),
            chance=fields.number("chance"),
            top_k=fields.count("k"),
            unit=fields.optional_text("unit"),
            no_extrapolation=_OLD_FORECAST
            if is_old and extrapolated
            else fields.optional_text("no_extrapolation"),
        )


@dataclass(frozen=True, repr=False)
class Findings(Shown):
    """Everything that scoring found beside the order; None for what was not computed.

    Args:
        labels: The label checks.
        gaps: The real examples that no candidate covers.
        real_size: Whether more real examples would change the selection.
        dropped: Candidate to its examples that the label filter dropped or relabeled; None if the
            filter is off or closed.
    """

    labels: LabelChecks | None = None
    gaps: Gaps | None = None
    real_size: SampleSizeAnalysis | None = None
    dropped: Mapping[str, Sequence[DroppedLabel]] | None = field(default=None, repr=False)

    @property
    def headlines(self) -> tuple[str, ...]:
        """What was found, and what each finding says."""
        parts = self._parts
        sentences = [text for part in parts.values() for text in part.headlines]
        names = [*parts, *(() if self.dropped is None else ("dropped",))]
        if not names:
            return (
                "No findings: neither labels, gaps nor the size of the real sample were checked",
            )
        return (f"What was found: {listed(names)}", *sentences)

    @property
    def unsaid(self) -> tuple[str, ...]:
        """What the gaps and the sample-size analysis say; labels are in the ranking's messages."""
        shown = (self.gaps, self.real_size)
        return tuple(text for part in shown if part is not None for text in part.headlines)

    @property
    def _parts(self) -> dict[str, Shown]:
        parts: dict[str, Shown | None] = {
            "labels": self.labels,
            "gaps": self.gaps,
            "real_size": self.real_size,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per example that the label filter dropped or relabeled.

        The columns are `candidate`, `position`, `label`, `voted` and `contradicted`; see
        `DroppedLabel`. `labels`, `gaps` and `real_size` each have a frame of their own.
        """
        import pandas as pd

        names = ["candidate", *(each.name for each in fields(DroppedLabel))]
        rows = [
            {"candidate": name, **vars(each)}
            for name, part in (self.dropped or {}).items()
            for each in part
        ]
        return pd.DataFrame(rows, columns=names)
