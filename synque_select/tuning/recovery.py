"""Trials that a worker has left unfinished: they are found, and repeated at their places."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from synque_select.errors import RecordError
from synque_select.tuning.result import PARAMETERS
from synque_select.tuning.studies import (
    REPEATS,
    SUPERFLUOUS,
    UNDEFINED,
    Plan,
    is_done,
    is_finished,
    origin_of,
    place_of,
    without_experimental_warnings,
)
from synque_select.tuning.study_checks import store_checksum
from synque_select.utils.process_identity import has_ended, is_local, process_identity
from synque_select.utils.wording import one_line

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["LeftOut", "Worker"]

_Chosen = TypeVar("_Chosen")

_WORKER, _ENDED = "worker", "ended"
_ERROR, _INTERRUPTION = "error", "interruption"
_NOT_TOLD = "Should not reach."  # what Optuna asserts where the end of a trial cannot be stored
_MAX_SHOWN = 200  # characters of an error
_MAX_REPETITIONS = 3  # of one trial: a trial that kills each worker that tries it must end


class LeftOut(Exception):
    """Ends a trial without a value; the study goes on."""


def _not_written(error: Exception) -> RecordError:
    """Return the error of a study whose storage takes no trial; finished ones are in it."""
    first: BaseException = error
    while cause := first.__cause__ or (first.__context__ if first is error else None):
        first = cause
    reason = one_line(f"{type(first).__name__}: {first}", _MAX_SHOWN)
    return RecordError(
        f"the study cannot be written ({reason}): free the disk, or end what locks the study, and "
        "start it again: it goes on after the trials that have finished"
    )


class Worker:
    """A process that works on a study, alone or with others.

    Args:
        study: The study.
        plan: Its plan.
        n_trials: Number of finished trials at which the study ends.
        silence_s: Seconds without a sign of life after which a worker counts as killed.
        has_heartbeats: Whether the storage holds signs of life.
    """

    def __init__(
        self,
        study: Study,
        plan: Plan,
        *,
        n_trials: int,
        silence_s: float,
        has_heartbeats: bool,
    ) -> None:
        self._study, self._plan, self._n_trials = study, plan, n_trials
        self._silence_s, self._has_heartbeats = silence_s, has_heartbeats
        self._identity = process_identity()
        self._number: int | None = None  # of the trial that it runs
        self._begun: dict[int, int] = {}  # numbers and ids of the trials that others train for it
        # when this process first saw a running trial that nobody had signed
        self._unsigned_since: dict[int, float] = {}

    def wait_for_work(self) -> bool:
        """Wait until there is a trial to run, and return whether there is one.

        Trials of workers that have ended are repeated first, so that the study goes on as if it had
        not been disturbed. If other workers run all remaining trials, this waits for them; for one
        that neither finishes nor dies, twice as long as a worker may be silent, and no longer.
        """
        deadline = time.monotonic() + 2 * self._silence_s
        while not is_done(self._study, self._n_trials):
            self._recover()
            trials = self._study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state.name == "RUNNING"]
            taken = sum(self._is_watched(trial) for trial in running)
            is_free = any(trial.state.name == "WAITING" for trial in trials)
            is_free |= sum(map(is_finished, trials)) + taken < self._n_trials
            # a trial that nobody has signed yet may turn out to have been left
            if is_free and all(_WORKER in trial.user_attrs for trial in running):
                return True
            if time.monotonic() > deadline:
                return is_free
            time.sleep(0.2)
        return False

    def try_one(self, objective: Callable[[Trial], float]) -> bool:
        """Run a trial, and return whether it has stayed that of this worker.

        On a machine that is too busy for heartbeats, another worker may believe that this one is
        dead, and repeat its trial. Then the other's result counts.

        Raises:
            RecordError: The study cannot be written, as on a full disk.
        """
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

        self._number = None
        run = partial(self._run, objective)
        try:
            self._study.optimize(run, n_trials=1, catch=(LeftOut,))
        # an AssertionError, because Optuna itself takes this for impossible
        except (ValueError, AssertionError, UpdateFinishedTrialError) as error:
            if self._has_lost_trial():
                return False
            if str(error) == _NOT_TOLD:
                raise _not_written(error) from error
            raise
        except StorageInternalError as error:
            raise _not_written(error) from error
        return True

    def begin(self, choose: Callable[[Trial], _Chosen]) -> tuple[Trial, _Chosen] | None:
        """Ask the study for a trial and let it choose; None if those that run are enough.

        It runs until `end` or `give_up`.

        Args:
            choose: Takes the trial and returns what it has chosen.
        """
        while True:
            trials = self._study.get_trials(deepcopy=False)
            running = sum(trial.state.name == "RUNNING" for trial in trials)
            waits = any(trial.state.name == "WAITING" for trial in trials)
            if not waits and sum(map(is_finished, trials)) + running >= self._n_trials:
                return None
            with warnings.catch_warnings():
                # `beat` gives the signs of life that `Study.optimize` would
                warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
                trial = self._study.ask()
            self._begun[trial.number] = trial._trial_id
            self._sign(trial)
            if self._is_superfluous(self._study.get_trials(deepcopy=False)[trial.number]):
                trial.set_user_attr(SUPERFLUOUS, True)
                self._tell(trial, None)
                continue
            try:
                return trial, choose(trial)
            except BaseException as error:
                self.give_up(trial, error)
                raise

    def end(self, trial: Trial, finish: Callable[[], float]) -> bool:
        """Store the value of a trial, and return whether it has stayed that of this worker.

        Args:
            trial: A trial of `begin`.
            finish: Stores the results of its fit, and returns its value.
        """
        value = finish()
        if math.isfinite(value):
            store_checksum(trial, value)
            return self._tell(trial, value)
        trial.set_user_attr(UNDEFINED, str(value))
        self._tell(trial, None)
        return True

    def give_up(self, trial: Trial, error: BaseException) -> None:
        """Note that a trial of `begin` has ended without a value; it will be repeated."""
        with suppress(Exception):  # the error itself is raised
            is_error = isinstance(error, Exception)
            trial.set_user_attr(_ENDED, _ERROR if is_error else _INTERRUPTION)
            self._tell(trial, None)

    def beat(self) -> None:
        """Write a sign of life of each trial of `begin`."""
        if self._has_heartbeats:
            for trial_id in [*self._begun.values()]:
                with suppress(Exception):  # a busy storage; the next sign may succeed
                    self._study._storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]

    def _tell(self, trial: Trial, value: float | None) -> bool:
        """Tell the study the end of a trial of `begin`; False if another worker repeats it.

        Raises:
            RecordError: The study cannot be written.
        """
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
        from optuna.trial import TrialState

        self._begun.pop(trial.number, None)
        try:
            if value is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, value)
        except (ValueError, UpdateFinishedTrialError):
            return False
        except (AssertionError, StorageInternalError) as error:
            raise _not_written(error) from error
        return True

    def _has_lost_trial(self) -> bool:
        from optuna.exceptions import StorageInternalError

        if self._number is None:
            return False
        try:
            trial = self._study.get_trials(deepcopy=False)[self._number]
        except StorageInternalError:
            return False
        marks = (_ENDED, UNDEFINED, SUPERFLUOUS)  # of trials that this worker itself has failed
        return trial.state.name == "FAIL" and not any(mark in trial.user_attrs for mark in marks)

    def _run(self, objective: Callable[[Trial], float], trial: Trial) -> float:
        """Run the objective of a trial that Optuna has given to this process.

        Raises:
            LeftOut: The value is NaN or infinite, or another worker repeats the same trial.
        """
        from optuna import TrialPruned

        self._number = trial.number
        self._sign(trial)
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        if self._is_superfluous(frozen):
            trial.set_user_attr(SUPERFLUOUS, True)
            raise LeftOut
        try:
            value = objective(trial)
        except TrialPruned:
            store_checksum(trial, None)
            raise
        except Exception:
            trial.set_user_attr(_ENDED, _ERROR)
            raise
        except BaseException:
            trial.set_user_attr(_ENDED, _INTERRUPTION)
            raise
        if not math.isfinite(value):
            trial.set_user_attr(UNDEFINED, str(value))
            raise LeftOut
        store_checksum(trial, value)
        return value

    def _sign(self, trial: Trial) -> None:
        """Write who runs a trial, and before that a heartbeat.

        Optuna writes the first heartbeat in another thread, and never looks for a trial without
        one: a worker that was killed before it would leave its trial running for ever.
        """
        if self._has_heartbeats:
            storage = self._study._storage
            storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        trial.set_user_attr(_WORKER, self._identity)

    def _is_watched(self, trial: FrozenTrial) -> bool:
        """Return whether it will be noticed if the worker of a running trial ends."""
        return self._has_heartbeats or is_local(trial.user_attrs.get(_WORKER, ""))

    def _recover(self) -> None:
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        with without_experimental_warnings():
            fail_stale_trials(self._study)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and self._is_left(trial):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        by_origin: dict[int, list[FrozenTrial]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            by_origin.setdefault(origin_of(trial), []).append(trial)
        for origin, attempts in by_origin.items():
            if self._is_to_repeat(attempts):
                chosen = [trial.params for trial in attempts if PARAMETERS in trial.user_attrs]
                # a worker that was killed while it chose has chosen a part: all is drawn again
                params = chosen[-1] if chosen else {}
                self._study.enqueue_trial(params, user_attrs={REPEATS: origin})

    def _is_left(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if trial.number in self._begun:
            return False
        if worker is not None:
            return bool(worker == self._identity or has_ended(worker))
        # by the clock of this process: that of another machine may be wrong
        since = self._unsigned_since.setdefault(trial.number, time.monotonic())
        return time.monotonic() - since > self._silence_s

    def _is_to_repeat(self, attempts: Sequence[FrozenTrial]) -> bool:
        """Return whether all attempts at one place have failed, but not too often."""
        failed = [trial for trial in attempts if trial.state.name == "FAIL"]
        failed = [trial for trial in failed if SUPERFLUOUS not in trial.user_attrs]
        if any(UNDEFINED in trial.user_attrs for trial in failed):
            return False
        if any(trial.state.name != "FAIL" for trial in attempts):
            return False
        is_start = self._plan.role(place_of(self._study, attempts[0])) == "start"
        # an error at a start is one of the user's code, not of the point: it is tried until it runs
        harmless = (_INTERRUPTION, _ERROR) if is_start else (_INTERRUPTION,)
        bad = [trial for trial in failed if trial.user_attrs.get(_ENDED) not in harmless]
        return len(bad) <= _MAX_REPETITIONS

    def _is_superfluous(self, trial: FrozenTrial) -> bool:
        """Return whether two workers have found the same unfinished trial, and this one is late."""
        origin = origin_of(trial)
        return any(
            origin_of(other) == origin
            and other.number < trial.number
            and (other.state.name != "FAIL" or UNDEFINED in other.user_attrs)
            for other in self._study.get_trials(deepcopy=False)
        )
