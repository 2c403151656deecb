"""`correlations.json`: the points and coefficients behind a run's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.run_folder import read_json, write_json
from synque_select.utils.json_fields import JsonFields

__all__ = ["load_correlations", "save_correlations"]


def save_correlations(correlations: Sequence[KeyCorrelations], run_dir: str | Path) -> Path:
    """Write `correlations.json` into a run's directory and return its path.

    Raises:
        RecordError: The file cannot be written.
    """
    entries = [entry.to_dict() for entry in correlations]
    return write_json(Path(run_dir) / "correlations.json", {"version": 1, "correlations": entries})


def load_correlations(run_dir: str | Path) -> list[KeyCorrelations]:
    """Read `correlations.json` from a run's directory.

    Raises:
        RecordError: The file is missing, damaged or of an unknown version; the message names it.
    """
    path = Path(run_dir) / "correlations.json"
    state = read_json(path)
    try:
        fields = JsonFields(state)
        fields.version(1)
        return [KeyCorrelations.from_fields(entry) for entry in fields.objects("correlations")]
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
