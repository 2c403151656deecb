"""Tables of what scoring finds beside the order: gaps, label checks, sample size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synque_select.report.formats import format_number
from synque_select.report.table import Column, Table, shorten

__all__ = [
    "gaps_table",
    "labels_table",
    "real_size_table",
]


def gaps_table(state: Mapping[str, Any]) -> Table:
    """Return the worst gaps as a table."""
    n, n_real, shown = state["n_uncovered"], state["n_real"], state["gaps"]
    notes = [
        "distance: to the nearest synthetic example of any candidate; allowed: to the k-th nearest "
        "other real example, k = min(5, √n). One that is further away does not cover it"
    ]
    if n > len(shown):
        notes.append(f"shown are the worst {len(shown)} of {n}")
    return Table(
        title=f"{n} of {n_real:,} real examples are covered by no candidate",
        columns=(
            Column("real example", is_name=True),
            Column("nearest synthetic example", is_name=True),
            Column("of"),
            Column("distance", stays=True),
            Column("allowed", stays=True),
        )
        if shown
        else (),
        rows=tuple(
            (
                _words(gap["real"], gap["real_view"]),
                _words(gap["synthetic"], gap["synthetic_view"]),
                str(gap["candidate"]),
                format_number(gap["distance"], 3),
                format_number(gap["radius"], 3),
            )
            for gap in shown
        ),
        notes=tuple(notes),
    )


def _words(position: int, view: Any) -> str:
    return shorten(f"{position}: {view}", 36) if isinstance(view, str) else f"image {position}"


def labels_table(state: Mapping[str, Any]) -> Table:
    """Return the label checks as a table, with their warnings."""
    checks = state["checks"]
    return Table(
        title="Labels of the candidates, predicted from their inputs",
        columns=(
            Column("candidate", is_name=True),
            Column("examples"),
            Column("classes"),
            Column("own folds"),
            Column("other candidates"),
            Column("mix against real"),
        ),
        rows=tuple(
            (
                str(check["name"]),
                f"{check['n']:,}",
                str(len(check["mix"])),
                format_number(check["agreement"]),
                format_number(check["others_agreement"]),
                format_number(_distance(check["mix"], check["real_mix"])),
            )
            for check in checks
        ),
        notes=(
            "own folds, other candidates: share of the labels that a classifier predicts which was "
            "trained on the candidate's other folds, or on another candidate (balanced over "
            "classes)",
            "mix against real: total variation between the candidate's class mix and the one that "
            "its classifier predicts on the real sample",
            *[warning for check in checks for warning in check["warnings"]],
        ),
    )


def _distance(mix: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    if not other:
        return None
    return sum(abs(mix.get(key, 0) - other.get(key, 0)) for key in {*mix, *other}) / 2


def real_size_table(state: Mapping[str, Any]) -> Table:
    """Return the agreement of disjoint halves as a table, what is extrapolated marked as such."""
    measured = [
        (f"{row['m']:,}", *(format_number(row[k]) for k in ("overlap", "spearman")), row)
        for row in state["measured"]
    ]
    rows = [(n, "measured", a, b, f"{row['border_error']:.3g}") for n, a, b, row in measured]
    rows += [
        (f"{row['n']:,}", "extrapolated as 1/√n", "", "", f"{row['border_error']:.3g}")
        for row in state["extrapolated"]
    ]
    return Table(
        title=f"How many real examples: the top {state['k']} of two disjoint samples of n each",
        columns=(
            Column("n", is_name=True),
            Column("", is_name=True),
            Column("overlap"),
            Column("Spearman"),
            Column("error of the gap"),
        ),
        rows=tuple(rows),
        notes=(
            f"overlap: share of the top {state['k']} that both choose; by chance "
            f"{format_number(state['chance'])}. Mean over {state['measured'][0]['n_pairs']} random "
            "pairs a size",
            f"error of the gap: standard error of the gap between places {state['k']} and "
            f"{state['k'] + 1}, which is {state['gap']:.3g} on the whole real sample, in units of "
            "what ranks. More real examples pay while the error is not small against the gap",
            "what is extrapolated was not measured: it holds if further real examples are like "
            "those at hand",
        ),
    )
