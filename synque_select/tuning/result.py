"""What a study came to: plain values that can be kept, shown, and handed to a DataModule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from synque_select.tuning.studies import START, origin_of, role_of
from synque_select.types import Mixture, Ranking

__all__ = ["MIXTURE", "PARAMETERS", "SECONDS", "TrialRow", "TuningResult", "result_of"]

MIXTURE, PARAMETERS, SECONDS = "mixture", "hyper_parameters", "seconds"


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Args:
        number: Its number in the study.
        state: "complete", "pruned", "failed" or "running".
        role: "start" (from the proxies), "random" (start-up) or "adaptive" (by the sampler).
        start: Name of the start, such as "top 3"; empty for the others.
        value: The metric at the end of the budget; of a pruned trial the last one reported; None
            where there is none.
        best_so_far: Best value of the complete trials up to this one; None before the first.
        weights: The mixture; empty as long as it is not sampled.
        hyper_parameters: The user's.
        seconds: Wall time of its fit.
        retry_of: Number of the trial that it repeats because its worker was killed; else None.
    """

    number: int
    state: str
    role: str
    start: str
    value: float | None
    best_so_far: float | None
    weights: Mapping[str, float]
    hyper_parameters: Mapping[str, Any]
    seconds: float | None
    retry_of: int | None


@dataclass(frozen=True)
class TuningResult:
    """A tuned mixture and the study that it comes from.

    Args:
        mixture: Of the best complete trial; `datamodule.set_mixture(result.mixture)`.
        value: Its metric. It is the best of several, chosen by this very figure: optimistic.
        hyper_parameters: The user's, of the best trial.
        metric: What was tuned for.
        mode: "max" or "min".
        study_name: To go on with, together with the storage.
        storage: Path or URL of the storage; its class where it has neither.
        budget: What one trial costs, and the settings of the search.
        trials: All that were begun, in the order of their numbers.
        messages: What a reader must know.
        ranking: What the proxies said of the candidates.
    """

    mixture: Mixture
    value: float
    hyper_parameters: Mapping[str, Any]
    metric: str
    mode: Literal["max", "min"]
    study_name: str
    storage: str
    budget: Mapping[str, Any]
    trials: tuple[TrialRow, ...]
    messages: tuple[str, ...]
    ranking: Ranking

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `study.json`: plain values, without the ranking."""
        state = {name: value for name, value in vars(self).items() if name != "ranking"}
        return state | {
            "version": 1,
            "mixture": self.mixture.to_dict(),
            "trials": [vars(trial).copy() for trial in self.trials],
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], ranking: Ranking) -> TuningResult:
        """Read what `to_dict` wrote."""
        given = {name: value for name, value in state.items() if name != "version"}
        given["mixture"] = Mixture.from_dict(state["mixture"])
        given["trials"] = tuple(TrialRow(**trial) for trial in state["trials"])
        given["messages"] = tuple(state["messages"])
        return cls(**given, ranking=ranking)


_STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
}


def result_of(
    study: Any,
    *,
    metric: str,
    mode: Literal["max", "min"],
    storage: str,
    budget: Mapping[str, Any],
    n_startup: int,
    messages: Sequence[str],
    ranking: Ranking,
) -> TuningResult:
    """Read a study that has at least one complete trial."""
    rows: list[TrialRow] = []
    best: TrialRow | None = None
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "WAITING":
            continue
        row = _row(study, trial, n_startup, None if best is None else best.value)
        if row.state == "complete" and (best is None or _is_better(row.value, best.value, mode)):
            best = row = replace(row, best_so_far=row.value)
        rows.append(row)
    assert best is not None
    assert best.value is not None
    n_complete = sum(row.state == "complete" for row in rows)
    words = f"tuned: best of {n_complete} complete trials of the study {study.study_name}"
    return TuningResult(
        mixture=Mixture(dict(best.weights), words),
        value=best.value,
        hyper_parameters=best.hyper_parameters,
        metric=metric,
        mode=mode,
        study_name=study.study_name,
        storage=storage,
        budget=budget,
        trials=tuple(rows),
        messages=(
            *messages,
            *_messages(rows, metric, n_complete, fits=budget["max_steps"] is not None),
        ),
        ranking=ranking,
    )


def _row(study: Any, trial: Any, n_startup: int, best: float | None) -> TrialRow:
    attributes, origin = trial.user_attrs, origin_of(trial)
    value = trial.value if trial.values else None
    return TrialRow(
        number=trial.number,
        state=_STATES[trial.state.name],
        role=role_of(study, trial, n_startup),
        start=str(attributes.get(START, "")),
        value=None if value is None or math.isnan(value) else float(value),
        best_so_far=best,
        weights=dict(attributes.get(MIXTURE, {})),
        hyper_parameters=dict(attributes.get(PARAMETERS, {})),
        seconds=attributes.get(SECONDS),
        retry_of=None if origin == trial.number else origin,
    )


def _is_better(value: float | None, best: float | None, mode: str) -> bool:
    if value is None or best is None:
        return value is not None
    return value > best if mode == "max" else value < best


def _messages(rows: list[TrialRow], metric: str, n_complete: int, *, fits: bool) -> list[str]:
    chosen = (
        f"the best {metric} is the best of {n_complete} trials and was chosen by that very figure"
    )
    if fits:
        said = [
            f"{chosen}: it is optimistic; measure the mixture on a test split",
            "trials are sampled adaptively: only random start-up trials may enter a correlation of "
            "proxies with validation, pruned ones never",
        ]
    else:
        said = [f"{chosen}; nothing was trained, and what it is worth in validation is unknown"]
    retried = [row for row in rows if row.retry_of is not None]
    retried_numbers = {row.retry_of for row in retried}
    if retried:
        said.append(f"{len(retried)} trials repeat one whose worker was killed")
    failed = sum(row.state == "failed" and row.number not in retried_numbers for row in rows)
    if failed:
        said.append(
            f"{failed} trials ended with an error in an earlier call, or were interrupted; starts "
            "were tried again"
        )
    unfinished = sum(row.state == "running" for row in rows)
    if unfinished:
        said.append(f"{unfinished} trials were still running elsewhere, or their worker was killed")
    return said
