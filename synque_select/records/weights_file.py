"""`weights.json`: the weights of a training in which they change."""

from __future__ import annotations

from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.run_folder import read_json, write_json
from synque_select.types.weight_trajectory import WeightTrajectory
from synque_select.utils.json_fields import JsonFields

__all__ = ["WEIGHTS", "load_weights", "save_weights"]

WEIGHTS = "weights.json"


def save_weights(run_dir: str | Path, trajectory: WeightTrajectory) -> Path:
    """Write `weights.json` in the directory of a run, and return its path.

    Raises:
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / WEIGHTS, {"version": 1, **trajectory.to_dict()})


def load_weights(run_dir: str | Path) -> WeightTrajectory:
    """Read `weights.json` from the directory of a run.

    Raises:
        RecordError: The file is missing or damaged; the message names the file and the field.
    """
    path = Path(run_dir) / WEIGHTS
    fields_of = read_json(path)
    try:
        fields = JsonFields(fields_of)
        fields.version(1)
        return WeightTrajectory.from_fields(fields)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
