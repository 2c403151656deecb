"""Tables of what scoring finds beside the order: gaps, label checks, sample size."""

from __future__ import annotations

from synque_select.report.formats import UNDEFINED, format_number
from synque_select.report.table import Column, Table
from synque_select.types import Gaps, LabelChecks, SampleSizeAnalysis, ShownView
from synque_select.types.decision import LEAST_REAL
from synque_select.utils.wording import percent

__all__ = ["gaps_table", "labels_table", "sample_size_table"]

_TEXT = 30  # characters: two texts, a candidate's name and a figure fit a line of 100


def gaps_table(gaps: Gaps) -> Table:
    """Return the worst gaps as a table."""
    shown = gaps.worst
    return Table(
        title=gaps.headlines[0].removesuffix("."),
        columns=(
            Column("real example", is_name=True),
            Column("nearest synthetic example", is_name=True),
            Column("candidate", is_name=True),
            Column("distance"),
        )
        if shown
        else (),
        rows=tuple(
            (
                _words(gap.real, gap.real_view),
                _words(gap.synthetic, gap.synthetic_view),
                gap.candidate,
                f"{format_number(gap.distance / gap.radius)}x" if gap.radius > 0 else UNDEFINED,
            )
            for gap in shown
        ),
        notes=gaps.notes,
    )


def _words(position: int, view: ShownView) -> str:
    if not isinstance(view, str):
        return f"image {position}"
    # cut at its end: a text is read from its beginning, unlike a name
    words = f"{position}: {' '.join(view.split())}"
    return words if len(words) <= _TEXT else f"{words[: _TEXT - 3]}..."


def labels_table(labels: LabelChecks) -> Table:
    """Return the label checks as a table, with their warnings."""
    return Table(
        title="Labels of the candidates, predicted from their inputs",
        columns=(
            Column("candidate", is_name=True),
            Column("examples"),
            Column("classes"),
            Column("own folds"),
            Column("other candidates"),
            Column("contradicted"),
            Column("mix against real"),
        ),
        rows=tuple(
            (
                check.name,
                f"{check.n:,}",
                str(len(check.mix)),
                format_number(check.agreement),
                format_number(check.others_agreement),
                "" if check.contradicted is None else f"{percent(check.contradicted)}",
                format_number(check.mix_distance),
            )
            for check in labels.checks
        ),
        notes=(
            "own folds, other candidates: share of the candidate's labels that a classifier "
            "predicts which was trained on its other folds, or on another candidate (mean over "
            "classes)",
            "contradicted: share of its labels that the other candidates' classifiers together "
            "contradict, without those of its family",
            "mix against real: total variation between the classes that its classifiers predict "
            f"for its own held-out examples and for the real sample (from {LEAST_REAL} real "
            "examples on)",
            *labels.messages,
        ),
    )


def sample_size_table(analysis: SampleSizeAnalysis) -> Table:
    """Return the agreement of disjoint samples by size; extrapolated rows are marked."""
    top_k = analysis.top_k
    rows = [
        (
            f"{row.m:,}",
            "measured",
            format_number(row.overlap),
            format_number(row.spearman),
            f"{row.border_error:.3g}",
        )
        for row in analysis.measured
    ]
    rows += [
        (f"{n:,}", "extrapolated as 1/√n", "", "", f"{error:.3g}")
        for n, error in analysis.extrapolated.items()
    ]
    meaning = "More real examples help as long as this error is not small against the gap"
    if analysis.gap <= 0:
        meaning = (
            f"By the differences between the scores, place {top_k} is not better than place "
            f"{top_k + 1}: either may be selected, and this does not say whether more real "
            "examples would help"
        )
    return Table(
        title=f"How many real examples: the top {top_k} of two disjoint samples of n each",
        columns=(
            Column("n", is_name=True),
            Column("", is_name=True),
            Column("overlap"),
            Column("Spearman"),
            Column("error of the gap"),
        ),
        rows=tuple(rows),
        notes=(
            f"overlap: share of the top {top_k} that both samples select; by chance "
            f"{format_number(analysis.chance)}. Mean over {analysis.measured[0].n_pairs} random "
            "pairs per size",
            f"error of the gap: standard error of the gap between places {top_k} and "
            f"{top_k + 1}, which is {analysis.gap:.3g} on the whole real sample, in "
            f"{analysis.unit or 'units of what ranks'}. {meaning}",
            analysis.no_extrapolation
            or "extrapolated rows were not measured: they hold if further real examples resemble "
            "the present ones",
        ),
    )
