"""`influence.json`: the influence of each candidate, in the directory of a run."""

from __future__ import annotations

from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.run_folder import read_json, write_json
from synque_select.types.influence import InfluenceResult
from synque_select.utils.json_fields import JsonFields

__all__ = ["INFLUENCE_FILE", "load_influence", "save_influence"]

INFLUENCE_FILE = "influence.json"


def save_influence(result: InfluenceResult, run_dir: str | Path) -> Path:
    """Write `influence.json` into a run's directory and return its path.

    Raises:
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / INFLUENCE_FILE, result.to_dict())


def load_influence(run_dir: str | Path) -> InfluenceResult:
    """Read `influence.json` from a run's directory.

    Raises:
        RecordError: The file is missing, damaged or of an unknown version; the message names it.
    """
    path = Path(run_dir) / INFLUENCE_FILE
    state = read_json(path)
    try:
        return InfluenceResult.from_dict(JsonFields(state).content)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
