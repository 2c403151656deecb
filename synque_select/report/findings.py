"""What scoring finds beside the order: gaps, label checks, whether more real examples would pay.

Each is a JSON file of the run's folder, written when candidates are selected, and a table.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, ProxyError
from synque_select.records.run_folder import plain, read_json, write_json
from synque_select.report.formats import format_number
from synque_select.report.parts import shown_view
from synque_select.report.table import Column, Table, shorten
from synque_select.selection.gaps import gap_map
from synque_select.selection.labels import LabelCheck
from synque_select.selection.real_size import RealSize, how_many_real
from synque_select.selection.scoring import Scoring

__all__ = [
    "FINDINGS",
    "copy_findings",
    "gaps_state",
    "gaps_table",
    "label_messages",
    "labels_state",
    "labels_table",
    "real_size_state",
    "real_size_table",
    "save_findings",
    "scoring_findings",
]

FINDINGS = ("gaps", "labels", "real_size")


def scoring_findings(
    scoring: Scoring, checks: Sequence[LabelCheck] | None, *, top_k: int, rank_by: str | None
) -> dict[str, dict[str, Any]]:
    """Return all that can be found, by the name of its file; what cannot is left out.

    Args:
        scoring: What `score` gave.
        checks: What `check_labels` gave; None where candidates carry no labels.
        top_k: How many are selected.
        rank_by: As in `rank`.
    """
    found = {} if checks is None else {"labels": labels_state(checks)}
    if scoring.real.embeddings is not None:
        found["gaps"] = gaps_state(scoring)
    # not where all are selected, or where what ranks has no contributions
    with contextlib.suppress(ConfigError, ProxyError):
        found["real_size"] = real_size_state(how_many_real(scoring, top_k=top_k, rank_by=rank_by))
    return found


def save_findings(
    folder: str | Path, findings: Mapping[str, Mapping[str, Any]], *, prefix: str = ""
) -> list[Path]:
    """Write each finding as `<prefix><name>.json` and return the paths.

    Raises:
        RecordError: A file cannot be written.
    """
    folder = Path(folder)
    return [write_json(folder / f"{prefix}{n}.json", state) for n, state in findings.items()]


def copy_findings(source: Path, folder: Path) -> None:
    """Copy the findings that a folder holds into another.

    Raises:
        RecordError: A file is broken, or cannot be written.
    """
    for name in FINDINGS:
        if (source / f"{name}.json").is_file():
            write_json(folder / f"{name}.json", read_json(source / f"{name}.json"))


def label_messages(checks: Sequence[LabelCheck]) -> tuple[str, ...]:
    """Return the warnings of label checks, or the sentence that there is none."""
    warnings = tuple(warning for check in checks for warning in check.warnings)
    return warnings or (f"The labels of {len(checks)} candidates were checked: no warning.",)


def gaps_state(scoring: Scoring, *, n_shown: int = 8) -> dict[str, Any]:
    """Return what no candidate covers as plain values: counts, and the worst with both examples.

    Args:
        scoring: What `score` gave, with embeddings.
        n_shown: At most so many real examples with their views.

    Raises:
        ProxyError: The scoring has no embeddings.
    """
    gaps = gap_map(scoring)
    parts = {part.name: part for part in scoring.candidates}
    uncovered = [gap for gap in gaps if not gap.covered]
    rows = [
        {
            **dataclasses.asdict(gap),
            "real_view": shown_view(scoring.real.views[gap.real]),
            "synthetic_view": shown_view(parts[gap.candidate].views[gap.synthetic]),
        }
        for gap in uncovered[:n_shown]
    ]
    return {"version": 1, "n_real": len(gaps), "n_uncovered": len(uncovered), "gaps": rows}


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


def labels_state(checks: Sequence[LabelCheck]) -> dict[str, Any]:
    """Return label checks as plain values."""
    return {"version": 1, "checks": [plain(dataclasses.asdict(check)) for check in checks]}


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


def real_size_state(found: RealSize) -> dict[str, Any]:
    """Return what `how_many_real` found as plain values."""
    state: dict[str, Any] = plain(dataclasses.asdict(found))
    extrapolated = [{"n": n, "border_error": e} for n, e in found.extrapolated.items()]
    return {"version": 1, **state, "extrapolated": extrapolated}


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
