"""`labels.json`, `gaps.json`, `real_size.json` and the other files beside a ranking."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from synque_select.errors import RecordError
from synque_select.records.dropped_labels_file import (
    DROPPED_LABELS,
    load_dropped_labels,
    save_dropped_labels,
)
from synque_select.records.run_folder import check_name_length, file_beside, read_json, write_json
from synque_select.types import Findings, Gaps, LabelChecks, SampleSizeAnalysis

__all__ = [
    "FINDINGS",
    "check_findings_targets",
    "copy_findings",
    "load_findings",
    "remove_findings",
    "save_findings",
]

FINDINGS = ("labels", "gaps", "real_size")
_T = TypeVar("_T")


def save_findings(
    run_dir: str | Path,
    findings: Findings,
    *,
    ranking: str = "ranking.json",
    relabel: bool = False,
) -> list[Path]:
    """Write each finding as `<name>.json` and return the paths.

    Args:
        run_dir: The run's directory; created if it is missing.
        findings: The findings; one that is None is not written.
        ranking: Name of the ranking's file, with which the names begin if it has one of its own.
        relabel: Whether dropped labels were replaced, for their file.

    Raises:
        RecordError: A file cannot be written.
    """
    path = Path(run_dir) / ranking
    parts = {name: getattr(findings, name) for name in FINDINGS}
    written = [
        write_json(file_beside(path, f"{name}.json"), part.to_dict())
        for name, part in parts.items()
        if part is not None
    ]
    if findings.dropped is not None:
        target = file_beside(path, DROPPED_LABELS)
        written.append(save_dropped_labels(target, findings.dropped, relabel=relabel))
    return written


def load_findings(run_dir: str | Path, *, ranking: str = "ranking.json") -> Findings:
    """Read the findings in a run's directory; one without a file is None.

    Args:
        run_dir: The run's directory.
        ranking: Name of the ranking's file, as for `save_findings`.

    Raises:
        RecordError: A file cannot be read; the message names it and the field.
    """
    path = Path(run_dir) / ranking
    return Findings(
        labels=_labels(file_beside(path, "labels.json")),
        gaps=_gaps(file_beside(path, "gaps.json")),
        real_size=_real_size(file_beside(path, "real_size.json")),
    )


def check_findings_targets(ranking: Path, names: Collection[str]) -> None:
    """Before anything is computed, reject files that a run would replace although they are others'.

    Args:
        ranking: The JSON file of the ranking.
        names: Names of the files that the run may write beside it, such as "labels.json".

    Raises:
        RecordError: A file is there and is not a finding of that name.
    """
    for name in names:
        path = file_beside(ranking, name)
        check_name_length(path)
        if path.exists():
            try:
                _READERS[name](path)
            except RecordError as error:
                raise RecordError(f"{error}: not replaced; give another path") from error


def remove_findings(ranking: Path) -> None:
    """Remove what an earlier run found, which is not true of a new ranking.

    Files of these names that are not findings are left alone.

    Args:
        ranking: The JSON file of the ranking.

    Raises:
        RecordError: A file cannot be removed.
    """
    for name, read in _READERS.items():
        path = file_beside(ranking, name)
        try:
            read(path)
        except RecordError:
            continue
        if not os.path.lexists(path):
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(
                f"{path} is a finding about another ranking and cannot be removed: {error}"
            ) from error


def copy_findings(source: str | Path, run_dir: str | Path) -> None:
    """Copy the findings of one directory into another.

    Raises:
        RecordError: A file cannot be read or written.
    """
    save_findings(run_dir, load_findings(source))


def _load(path: Path, read: Callable[[object], _T]) -> _T | None:
    if not os.path.exists(path):  # also if its name is longer than any file's
        return None
    state = read_json(path)
    try:
        return read(state)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def _labels(path: Path) -> LabelChecks | None:
    return _load(path, LabelChecks.from_dict)


def _gaps(path: Path) -> Gaps | None:
    return _load(path, Gaps.from_dict)


def _real_size(path: Path) -> SampleSizeAnalysis | None:
    return _load(path, SampleSizeAnalysis.from_dict)


_READERS: Mapping[str, Callable[[Path], object]] = {
    "labels.json": _labels,
    "gaps.json": _gaps,
    "real_size.json": _real_size,
    DROPPED_LABELS: load_dropped_labels,
}
