"""Probes that are stopped early: after each part of the budget, only the best third goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synque_select.execution import Executor
from synque_select.probing.probes import Probe, check_weights, probe_pool, tell_reused
from synque_select.records.store import RunStore
from synque_select.report.formats import figure_decimals, format_number
from synque_select.report.table import Column, Table
from synque_select.training.bookkeeping import store_record
from synque_select.training.short_fit import ModelFactory, ShortFits
from synque_select.types import Mixture, RunRecord
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

__all__ = ["HalvedProbe", "best_third", "budgets", "probes_table", "train_and_stop_probes"]

_FACTOR = 3  # of the budgets, and of the probes that are stopped at each
_N_STOPS = 2


@dataclass(frozen=True)
class HalvedProbe:
    """What is known of a probe.

    Args:
        name: Name of the candidate.
        step: Optimizer step after which it was measured.
        value: The monitored metric at this step.
        is_finished: Whether this step is the end of the budget.
    """

    name: str
    step: int
    value: float
    is_finished: bool


def budgets(max_steps: int) -> list[int]:
    """Return the steps after which probes are measured: a ninth, a third and all of the budget.

    Example:
        >>> budgets(300)
        [33, 100, 300]
        >>> budgets(2)
        [1, 2]
    """
    parts = [max_steps // _FACTOR**i for i in range(_N_STOPS, -1, -1)]
    return sorted({max(1, part) for part in parts})


def train_and_stop_probes(
    fits: ShortFits,
    model_factory: ModelFactory,
    store: RunStore,
    *,
    progress: bool,
    n_workers: int = 1,
    executor: Executor | None = None,
) -> list[HalvedProbe]:
    """Train on each candidate alone, and stop those that are not among the best third.

    All are measured after a ninth of the steps; of these, the best third after a third of the
    steps; and of these, the best third at the end (successive halving, with factor 3). Shares are
    rounded up, and equal values stop or go on together. Each part is trained from the start, so
    that a probe that goes on is the same fit as without stopping; together they take a third of the
    steps, and more for few candidates. Records are of kind "trial": as they are chosen by the
    metric, no correlation counts them.

    Returns:
        One per candidate, best first: those that were stopped last before the others.

    Source:
        Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
        Optimization", AISTATS 2016.
    """
    sign = -1 if fits.options.mode == "max" else 1
    names = [row.name for row in fits.ranking.candidates]
    known: dict[str, HalvedProbe] = {}
    records: list[RunRecord] = []
    first = budgets(fits.max_steps)[0]
    tell_reused(fits, model_factory, store, None if first == fits.max_steps else first)
    with probe_pool(fits, model_factory, store, n_workers, executor) as pool:
        for step in budgets(fits.max_steps):
            is_last = step == fits.max_steps
            with ProgressBar(
                total=len(names),
                desc=f"probes, {counted(step, 'step')}",
                unit="probe",
                disable=not progress,
            ) as bar:
                probes = [Probe(name, None if is_last else step) for name in names]
                for probe, (fit, key) in pool.map(probes):
                    check_weights(key, records)
                    details = {"startup": False, **({} if is_last else {"stopped_after": step})}
                    mixture = Mixture.equal([probe.name], "probe")
                    records.append(fits.record(fit, key, mixture, kind="trial", details=details))
                    store_record(store, records[-1])
                    value = fit.metrics[fits.monitor]
                    known[probe.name] = HalvedProbe(probe.name, step, value, is_last)
                    bar.update()
            if not is_last:
                names = best_third(names, {name: sign * known[name].value for name in names})
    return sorted(known.values(), key=lambda probe: (-probe.step, _loss(sign * probe.value)))


def _loss(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def best_third(names: Sequence[str], losses: Mapping[str, float]) -> list[str]:
    """Return the third of the names with the lowest losses, and what is equal to its last.

    Example:
        >>> best_third(["a", "b", "c", "d"], {"a": 0.3, "b": 0.1, "c": 0.3, "d": float("nan")})
        ['a', 'b', 'c']
    """
    order = sorted(_loss(losses[name]) for name in names)
    limit = order[math.ceil(len(names) / _FACTOR) - 1]
    return [name for name in names if _loss(losses[name]) <= limit]


def probes_table(probes: Sequence[HalvedProbe], monitor: str) -> Table:
    """Return a table of probes of which some were stopped; these have no figure at the end."""
    decimals = figure_decimals([probe.value for probe in probes])
    rows = tuple(
        (probe.name, format_number(probe.value, decimals), "")
        if probe.is_finished
        else (
            probe.name,
            "",
            f"stopped at step {probe.step} ({format_number(probe.value, decimals)})",
        )
        for probe in probes
    )
    finished = [probe for probe in probes if probe.is_finished]
    columns = (Column("trained on", is_name=True), Column(monitor), Column("stopped", is_name=True))
    notes = (
        f"{counted(len(finished), 'probe')} of {len(probes)} trained to step {finished[0].step}; "
        "a figure at an earlier step is compared only with others at that step",
        "no correlation: which probes were trained to the end was chosen by their own metric",
    )
    return Table("Validation of each probe", columns, rows, notes)
