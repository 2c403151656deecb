"""The result of a study, as values that can be stored, shown, and passed to a DataModule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from synque_select.errors import LightningError, ProxyError, SynqueError
from synque_select.records.tuning_result import TrialRow, TuningResult
from synque_select.tuning.options import TuneOptions
from synque_select.tuning.studies import (
    EARLIER,
    ROLE,
    START,
    SUPERFLUOUS,
    UNDEFINED,
    Plan,
    Role,
    is_prior,
    origin_of,
    place_of,
)
from synque_select.types import Mixture, Ranking
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["MIXTURE", "PARAMETERS", "SECONDS", "TrialRow", "TuningResult", "result_of"]

MIXTURE, PARAMETERS, SECONDS = "mixture", "hyper_parameters", "seconds"


_STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
}


def result_of(
    study: Study,
    plan: Plan,
    options: TuneOptions,
    *,
    storage: str,
    budget: JsonObject,
    messages: Sequence[str],
    ranking: Ranking,
) -> TuningResult:
    """Return the result of a study.

    Args:
        study: The study.
        plan: Its plan.
        options: Its options.
        storage: Path, URL or class of its storage.
        budget: Budget of a trial, and the settings of the search.
        messages: What a reader must know beside what the trials tell.
        ranking: The ranking of the candidates.

    Raises:
        LightningError: No trial is complete.
    """
    rows: list[TrialRow] = []
    priors: list[TrialRow] = []
    best: TrialRow | None = None
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "WAITING" or SUPERFLUOUS in trial.user_attrs:
            continue
        row = _row(study, trial, plan, None if best is None else best.value)
        if is_prior(trial):
            priors.append(replace(row, best_so_far=None))
            continue
        is_complete = row.state == "complete"
        if is_complete and (best is None or _is_better(row.value, best.value, options.mode)):
            best = row = replace(row, best_so_far=row.value)
        rows.append(row)
    n_undefined = sum(UNDEFINED in t.user_attrs for t in study.get_trials(deepcopy=False))
    if best is None or best.value is None:
        raise _without_result(study, rows, n_undefined, options)
    n_complete = sum(row.state == "complete" for row in rows)
    source = f"tuned: best of {n_complete} complete trials of the study {study.study_name}"
    return TuningResult(
        mixture=Mixture(dict(best.weights), source),
        value=best.value,
        hyper_parameters=best.hyper_parameters,
        metric=options.monitor,
        mode=options.mode,
        study_name=study.study_name,
        storage=storage,
        budget=budget,
        trials=tuple(rows),
        messages=(
            *messages,
            *_messages(rows, options, n_complete, n_undefined),
        ),
        ranking=ranking,
        priors=tuple(priors),
    )


def _without_result(
    study: Study, rows: Sequence[TrialRow], n_undefined: int, options: TuneOptions
) -> SynqueError:
    n_pruned = sum(row.state == "pruned" for row in rows)
    kind: type[SynqueError] = LightningError if options.proxy is None else ProxyError
    remedy = (
        "Check that training converges (a smaller learning rate) and what the module logs"
        if options.proxy is None
        else "Check what the proxy says of the candidates: `synque-select rank`"
    )
    return kind(
        f"no trial of the study {study.study_name} has a finite {options.monitor}: in "
        f"{counted(n_undefined, 'trial')} it is NaN or infinite, {n_pruned} were pruned. "
        f"{remedy}; then give another study_name, as this study keeps its trials"
    )


def _row(study: Study, trial: FrozenTrial, plan: Plan, best: float | None) -> TrialRow:
    attributes, origin = trial.user_attrs, origin_of(trial)
    place = place_of(study, trial)
    earlier = attributes.get(EARLIER)
    role: Role | Literal["reused", "prior"] = attributes.get(ROLE, plan.role(place))
    if earlier is not None:
        role = "prior" if earlier["is_prior"] else "reused"
    value = trial.value if trial.values else None
    return TrialRow(
        number=trial.number,
        state=_STATES[trial.state.name],
        role=role,
        start="" if earlier is not None else str(attributes.get(START, plan.start(place))),
        value=None if value is None or not math.isfinite(value) else float(value),
        best_so_far=best,
        weights=dict(attributes.get(MIXTURE, {})),
        hyper_parameters=dict(attributes.get(PARAMETERS, {})),
        seconds=attributes.get(SECONDS),
        retry_of=None if origin == trial.number else origin,
        source="" if earlier is None else str(earlier["source"]),
    )


def _is_better(value: float | None, best: float | None, mode: str) -> bool:
    if value is None or best is None:
        return value is not None
    return value > best if mode == "max" else value < best


def _messages(
    rows: Sequence[TrialRow], options: TuneOptions, n_complete: int, n_undefined: int
) -> list[str]:
    trials, metric = counted(n_complete, "trial"), options.monitor
    chosen = f"the best {metric} is the best of {trials}, and the mixture was chosen by it"
    if options.proxy is None:
        n_random = sum(row.role == "random" and row.state == "complete" for row in rows)
        entering = f"only the {counted(n_random, 'complete trial')} drawn at random may enter"
        if not n_random:
            entering = "no trial was drawn at random, so none may enter"
        messages = [
            f"{chosen}: the value is optimistic; measure the mixture on a test split",
            f"{entering} a correlation of proxies with validation: mixtures that were chosen to "
            "do well bias it",
        ]
    else:
        messages = [f"{chosen}; nothing was trained, so its validation metric is unknown"]
    if n_undefined:
        messages.append(
            f"{counted(n_undefined, 'trial')} failed because {metric} was NaN or infinite"
        )
    n_repeated = sum(row.retry_of is not None for row in rows)
    if n_repeated:
        messages.append(
            f"{counted(n_repeated, 'trial repeats', 'trials repeat')} one whose worker was killed, "
            "or that ended with an error in an earlier call"
        )
    unfinished = sum(row.state == "running" for row in rows)
    if unfinished:
        messages.append(
            f"{counted(unfinished, 'trial was', 'trials were')} still running elsewhere, or the "
            "worker was killed"
        )
    return messages
