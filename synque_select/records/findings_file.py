"""`labels.json`, `gaps.json` and `real_size.json`: the findings of a run as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from synque_select.errors import RecordError
from synque_select.records.run_folder import read_json, write_json
from synque_select.types import Findings, Gaps, LabelChecks, SampleSizeAnalysis

__all__ = ["FINDINGS", "copy_findings", "load_findings", "save_findings"]

FINDINGS = ("labels", "gaps", "real_size")
_T = TypeVar("_T")


def save_findings(run_dir: str | Path, findings: Findings, *, prefix: str = "") -> list[Path]:
    """Write each finding as `<prefix><name>.json` and return the paths.

    Args:
        run_dir: The run's directory; created if it is missing.
        findings: The findings; one that is None is not written.
        prefix: What the file names begin with.

    Raises:
        RecordError: A file cannot be written.
    """
    parts = {name: getattr(findings, name) for name in FINDINGS}
    return [
        write_json(Path(run_dir) / f"{prefix}{name}.json", part.to_dict())
        for name, part in parts.items()
        if part is not None
    ]


def load_findings(run_dir: str | Path) -> Findings:
    """Read the findings in a run's directory; one without a file is None.

    Raises:
        RecordError: A file cannot be read; the message names it and the field.
    """
    run_dir = Path(run_dir)
    return Findings(
        labels=_load(run_dir / "labels.json", LabelChecks.from_dict),
        gaps=_load(run_dir / "gaps.json", Gaps.from_dict),
        real_size=_load(run_dir / "real_size.json", SampleSizeAnalysis.from_dict),
    )


def copy_findings(source: str | Path, run_dir: str | Path) -> None:
    """Copy the findings of one directory into another.

    Raises:
        RecordError: A file cannot be read or written.
    """
    save_findings(run_dir, load_findings(source))


def _load(path: Path, read: Callable[[object], _T]) -> _T | None:
    if not path.is_file():
        return None
    state = read_json(path)
    try:
        return read(state)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
