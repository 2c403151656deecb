"""A study of mixtures in a report: every trial, the best value so far, and the study's notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synque_select.report.formats import UNDEFINED, figure_decimals, format_number
from synque_select.report.table import Column, Table
from synque_select.report.untrained import UNTRAINED_NAME
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

__all__ = ["Trial", "study_table", "trials_of"]

_ABOUT_PRIORS = (
    "a prior was trained on other candidates, or was not validated at the same steps as a trial: "
    "its mixture is what is left of that fit's, its value only guides the sampler, and it is "
    "neither counted nor chosen"
)
_MAX_MIXTURE = 40  # characters: with longer mixtures, each trial would take many lines


@dataclass(frozen=True)
class Trial:
    """One trial of a `study.json`; NaN where a value is undefined.

    Args:
        number: Number of the trial.
        state: "complete", "pruned", "failed", …
        role: As in `TrialRow`.
        value: Value of the objective; of a pruned trial, the last one reported.
        best_so_far: Best value up to this trial.
        weights: Candidate to its weight.
        origin: Where the mixture comes from.
        seconds: Wall time; NaN without fits.
        hyper_parameters: Name to value.
    """

    number: int
    state: str
    role: str
    value: float
    best_so_far: float
    weights: Mapping[str, float]
    origin: str
    seconds: float
    hyper_parameters: Mapping[str, object]


def trials_of(fields: JsonFields) -> tuple[Trial, ...]:
    """Read the trials of a `study.json`.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    return tuple(map(_trial, fields.objects("trials")))


def _priors_of(fields: JsonFields) -> tuple[Trial, ...]:
    """Read the priors of a `study.json`; older files have none."""
    return tuple(map(_trial, fields.objects("priors"))) if "priors" in fields else ()


def _trial(fields: JsonFields) -> Trial:
    parameters = fields.object("hyper_parameters")
    origin = fields.optional_text("source") or fields.optional_text("start") or fields.text("role")
    if fields.value("retry_of") is not None:
        origin = f"{origin}, again #{fields.integer('retry_of')}"
    return Trial(
        number=fields.integer("number"),
        state=fields.text("state"),
        role=fields.text("role"),
        value=fields.number("value"),
        best_so_far=fields.number("best_so_far"),
        weights=fields.numbers("weights"),
        origin=origin,
        seconds=fields.number("seconds"),
        hyper_parameters={name: parameters.value(name) for name in parameters},
    )


def study_table(state: JsonObject) -> Table:
    """Return the trials of a study as a table, and after them its priors.

    The value of a pruned trial is the last one that it reported; it is in brackets, as the trial
    did not use its whole budget. So is that of a prior, which was measured on other data. Long
    names have short keys in the rows, and a note for each.

    Args:
        state: The content of `study.json`.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    fields = JsonFields(state)
    trials, metric, budget = trials_of(fields), fields.text("metric"), fields.object("budget")
    priors = _priors_of(fields)
    shown = (*trials, *priors)
    values = [trial.value for trial in shown if math.isfinite(trial.value)]
    decimals = figure_decimals(values) if values else 3
    untrained = fields.optional_number("untrained")
    has_parameters = any(trial.hyper_parameters for trial in shown)
    keys = _keys(shown)
    fits = budget.value("max_steps") is not None
    heads = ("from", metric, "best so far", *["seconds"] * fits)
    columns = (
        Column("#", is_name=True),
        Column("mixture", is_name=True),
        *map(Column, heads),
        *[Column("hyper-parameters")] * has_parameters,
    )
    rows = []
    for trial in shown:
        row = [str(trial.number), _mixture(trial.weights, keys), trial.origin]
        row += [_value(trial, decimals), format_number(trial.best_so_far, decimals)]
        if fits:
            row.append(format_number(trial.seconds, 1))
        if has_parameters:
            row.append(_named(trial.hyper_parameters))
        rows.append(tuple(row))
    if untrained is not None:
        row = [UNDEFINED, UNTRAINED_NAME, "no training", format_number(untrained, decimals)]
        rows.append(tuple(row + [UNDEFINED] * (len(columns) - len(row))))
    better = "higher" if fields.text("mode") == "max" else "lower"
    legend = [f"{key}: {name}" for name, key in keys.items() if key != name]
    notes = (
        *legend,
        _what_was_tried(trials, budget),
        *([_ABOUT_PRIORS] if priors else []),
        *fields.texts("messages"),
    )
    title = f"Study {fields.text('study_name')}: {metric} ({better} is better) of each trial"
    return Table(title, columns, tuple(rows), notes)


def _keys(trials: Sequence[Trial]) -> dict[str, str]:
    """Return what each candidate is called in a row: c1, c2, … if the names are too long for it."""
    names = sorted({name for trial in trials for name in trial.weights})
    if len(_mixture(dict.fromkeys(names, 1.0), {name: name for name in names})) <= _MAX_MIXTURE:
        return {name: name for name in names}
    return {name: f"c{i}" for i, name in enumerate(names, 1)}


def _mixture(weights: Mapping[str, float], keys: Mapping[str, str]) -> str:
    parts = sorted(weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{keys[name]}={weight:.2f}" for name, weight in parts) or UNDEFINED


def _value(trial: Trial, decimals: int) -> str:
    if trial.role == "prior":
        return f"({format_number(trial.value, decimals)}) prior"
    if trial.state == "complete":
        return format_number(trial.value, decimals)
    if trial.state == "pruned" and not math.isnan(trial.value):
        return f"({format_number(trial.value, decimals)}) pruned"
    return trial.state


def _named(parameters: Mapping[str, object]) -> str:
    shown = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in parameters.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _what_was_tried(trials: Sequence[Trial], budget: JsonFields) -> str:
    """Say where the mixtures of the trials came from, and what each trial cost."""
    sampler, pruner = budget.value("sampler"), budget.value("pruner")
    roles = {
        "start": "suggested by the proxies",
        "random": "drawn at random",
        "adaptive": f"chosen by the sampler ({sampler})",
        "reused": "measured before the study began",
    }
    if any(trial.origin.startswith("earlier best") for trial in trials):
        roles["start"] += " and earlier trials"
    counts = {words: sum(t.role == role for t in trials) for role, words in roles.items()}
    sources = [f"{n} {words}" for words, n in counts.items() if n]
    low, high = map(int, budget.number_list("k_range"))
    of = counted(high, "candidate") if low == high else f"{low} to {counted(high, 'candidate')}"
    fit = "nothing was trained"
    if budget.value("max_steps") is not None:
        steps = counted(budget.count("max_steps"), "step")
        fit = f"each a fit of {steps} from the same weights, pruner {pruner}"
    return (
        f"{counted(len(trials), 'trial')} of mixtures of {of}: {', '.join(sources)}; {fit}; seed "
        f"{budget.value('seed')}"
    )
