"""What scoring finds beside the order: gaps, label checks, whether more real examples would pay.

Each is a JSON file of the run's folder, written when candidates are selected.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synque_select.data.preview import shown_view
from synque_select.errors import ConfigError, ProxyError
from synque_select.records.run_folder import read_json, to_jsonable, write_json
from synque_select.selection.gaps import gap_map
from synque_select.selection.labels import LabelCheck
from synque_select.selection.sample_size import RealSize, sample_size_analysis
from synque_select.selection.scoring import Scoring

__all__ = [
    "FINDINGS",
    "copy_findings",
    "gaps_state",
    "label_messages",
    "labels_state",
    "real_size_state",
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
        found["real_size"] = real_size_state(
            sample_size_analysis(scoring, top_k=top_k, rank_by=rank_by)
        )
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


def labels_state(checks: Sequence[LabelCheck]) -> dict[str, Any]:
    """Return label checks as plain values."""
    return {"version": 1, "checks": [to_jsonable(dataclasses.asdict(check)) for check in checks]}


def real_size_state(found: RealSize) -> dict[str, Any]:
    """Return what `sample_size_analysis` found as plain values."""
    state: dict[str, Any] = to_jsonable(dataclasses.asdict(found))
    extrapolated = [{"n": n, "border_error": e} for n, e in found.extrapolated.items()]
    return {"version": 1, **state, "extrapolated": extrapolated}
