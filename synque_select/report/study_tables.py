"""A study of mixtures in a report: every trial, the best so far, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from synque_select.report.formats import figure_decimals, format_number
from synque_select.report.table import Column, Table

__all__ = ["study_table"]

_MAX_MIXTURE = 40  # characters: a longer one is cut, and names of a kind look the same


def study_table(state: Mapping[str, Any]) -> Table:
    """Return the trials of a study, in the form that `study.json` has them.

    The value of a pruned trial is the last one that it reported; it is in brackets, as it is no
    figure of the whole budget. Long names have short keys in the rows, and a note for each.
    """
    trials = state["trials"]
    values = [t["value"] for t in trials if t["value"] is not None and math.isfinite(t["value"])]
    decimals = figure_decimals(values) if values else 3
    has_parameters = any(trial["hyper_parameters"] for trial in trials)
    keys = _keys(trials)
    fits = state["budget"]["max_steps"] is not None
    heads = ("from", state["metric"], "best so far", *["seconds"] * fits)
    columns = (
        Column("#", is_name=True),
        Column("mixture", is_name=True, is_whole=True),
        *map(Column, heads),
        *[Column("hyper-parameters")] * has_parameters,
    )
    rows = []
    for trial in trials:
        row = [str(trial["number"]), _mixture(trial["weights"], keys), _origin(trial)]
        row += [_value(trial, decimals), format_number(trial["best_so_far"], decimals)]
        if fits:
            row.append(format_number(trial["seconds"], 1))
        if has_parameters:
            row.append(_named(trial["hyper_parameters"]))
        rows.append(tuple(row))
    better = "higher" if state["mode"] == "max" else "lower"
    legend = [f"{key}: {name}" for name, key in keys.items() if key != name]
    notes = (*legend, _budget(state["budget"]), *state["messages"])
    title = f"Study {state['study_name']}: {state['metric']} ({better} is better) of each trial"
    return Table(title, columns, tuple(rows), notes)


def _keys(trials: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what each candidate is called in a row: c1, c2, … where names are too long for it."""
    names = sorted({name for trial in trials for name in trial["weights"]})
    if len(_mixture(dict.fromkeys(names, 1.0), {name: name for name in names})) <= _MAX_MIXTURE:
        return {name: name for name in names}
    return {name: f"c{i}" for i, name in enumerate(names, 1)}


def _mixture(weights: Mapping[str, float], keys: Mapping[str, str]) -> str:
    parts = sorted(weights.items(), key=lambda item: -item[1])
    return " + ".join(f"{keys[name]} {weight:.2f}" for name, weight in parts) or "-"


def _origin(trial: Mapping[str, Any]) -> str:
    words = trial["start"] or trial["role"]
    return words if trial["retry_of"] is None else f"{words}, again #{trial['retry_of']}"


def _value(trial: Mapping[str, Any], decimals: int) -> str:
    if trial["state"] == "complete":
        return format_number(trial["value"], decimals)
    if trial["state"] == "pruned" and trial["value"] is not None:
        return f"({format_number(trial['value'], decimals)}) pruned"
    return str(trial["state"])


def _named(parameters: Mapping[str, Any]) -> str:
    shown = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in parameters.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _budget(budget: Mapping[str, Any]) -> str:
    steps = budget["max_steps"]
    cost = "no fits" if steps is None else f"each a fit of {steps} steps from the same weights"
    low, high = budget["k_range"]
    return (
        f"{cost}; {low} to {high} candidates, sampler {budget['sampler']}, pruner "
        f"{budget['pruner']}, {budget['n_startup']} random trials after the starts, seed "
        f"{budget['seed']}"
    )
