"""`correlations.json`: the points and coefficients behind a run's figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synque_select.errors import RecordError
from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations, UnitPoint
from synque_select.records.run_folder import read_json, write_json

__all__ = ["load_correlations", "save_correlations"]


def save_correlations(correlations: Sequence[KeyCorrelations], folder: str | Path) -> Path:
    """Write `correlations.json` into a run's folder and return its path.

    Raises:
        RecordError: It cannot be written.
    """
    entries = [
        {
            **vars(entry),
            "points": [vars(point) for point in entry.points],
            "proxies": {key: found.to_dict() for key, found in entry.proxies.items()},
        }
        for entry in correlations
    ]
    return write_json(Path(folder) / "correlations.json", {"version": 1, "correlations": entries})


def load_correlations(folder: str | Path) -> list[KeyCorrelations]:
    """Read what `save_correlations` wrote.

    Raises:
        RecordError: The file is missing, broken or of another version; the message names it.
    """
    path = Path(folder) / "correlations.json"
    state = read_json(path)
    try:
        if state["version"] != 1:
            raise RecordError(f"{path}: version {state['version']!r}; allowed is 1")
        return [_entry(entry) for entry in state["correlations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _entry(state: Mapping[str, Any]) -> KeyCorrelations:
    points = tuple(
        UnitPoint(**{**point, "scores": {k: _nan(v) for k, v in point["scores"].items()}})
        for point in state["points"]
    )
    proxies = {key: Correlation.from_dict(found) for key, found in state["proxies"].items()}
    state = {**state, "monitor": state.get("monitor", state.get("primary"))}  # version 0.1
    if not isinstance(state["monitor"], str):
        raise TypeError("no name of a metric under 'monitor'")
    fields = {field.name: state[field.name] for field in dataclasses.fields(KeyCorrelations)}
    messages = tuple(state["messages"])
    return KeyCorrelations(**{**fields, "points": points, "proxies": proxies, "messages": messages})


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
