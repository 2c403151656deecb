"""Trials that are trained at the same time, in other processes or on other machines.

This process alone asks the study for trials, stores their results, and writes their run records;
workers get what a trial has chosen, and return the fit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from synque_select.execution import Executor
from synque_select.probing.processes import WorkerPool
from synque_select.training.bookkeeping import known_records
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import ModelFactory, ShortFit, ShortFits
from synque_select.tuning.objectives import FitObjective, TrialPlan
from synque_select.tuning.recovery import Worker
from synque_select.types import Mixture, RunRecord
from synque_select.utils.json_types import JsonObject
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["run_side_by_side"]


@dataclass(frozen=True)
class _TrialFit:
    """Trains what a trial has chosen, unless the same fit has finished before."""

    fits: ShortFits
    model_factory: ModelFactory
    finished: Mapping[str, RunRecord]

    def __call__(self, plan: TrialPlan) -> tuple[ShortFit, JsonObject]:
        """Return the fit of a trial, and its comparability key."""
        return self.fits.run(
            partial(self.model_factory, **plan["hyper_parameters"]),
            Mixture.from_dict(plan["mixture"]),
            finished=self.finished.get,
        )


def run_side_by_side(
    worker: Worker,
    objective: FitObjective,
    *,
    n_workers: int,
    executor: Executor | None,
    heartbeat_s: float,
    bar: ProgressBar,
) -> None:
    """Run trials until the study has enough of them.

    Args:
        worker: This process as a worker of the study.
        objective: What a trial is.
        n_workers: Number of trials at the same time, without an executor.
        executor: Where to train; None for processes of this machine.
        heartbeat_s: Seconds between signs of life of the trials.
        bar: Counts the trials.
    """
    finished = {str(r.details.get("probe")): r for r in known_records(objective.store)}
    fits = replace(objective.fits, datamodule=objective.fits.datamodule.detached())
    begun: dict[int, tuple[Trial, TrialPlan]] = {}

    def chosen() -> Iterator[TrialPlan]:
        while (next_one := worker.begin(objective.sampling.sample)) is not None:
            trial, plan = next_one
            begun[trial.number] = (trial, plan)
            yield plan

    pool = WorkerPool(
        _TrialFit(fits, objective.model_factory, finished),
        n_workers,
        name_of=lambda plan: f"trial {plan['number']}",
        package=package_of(fits.datamodule) or "pytorch_lightning",
        executor=executor,
    )
    with pool, _signs_of_life(worker, heartbeat_s):
        try:
            while worker.wait_for_work():
                for plan, (fit, key) in pool.map(chosen()):
                    trial, _ = begun.pop(plan["number"])
                    worker.end(trial, partial(objective.finish, plan, trial, fit, key))
                    bar.update()
        except BaseException as error:
            for trial, _ in begun.values():
                worker.give_up(trial, error)
            raise


@contextmanager
def _signs_of_life(worker: Worker, seconds: float) -> Iterator[None]:
    """Let other processes know, while this one waits for fits, that its trials are alive."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            worker.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
