"""Optuna's studies: how they are opened and continued, and who takes which trial."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from synque_select.errors import ConfigError, DependencyError, RecordError
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = [
    "MISSED_HEARTBEATS",
    "ROLE",
    "START",
    "STUDY_ID",
    "Role",
    "direction_of",
    "is_done",
    "open_study",
    "origin_of",
    "quiet_optuna",
    "requeue_on_failure",
    "require_optuna",
    "role_of",
    "wait_for_work",
    "without_experimental_warnings",
]

Role = Literal["start", "random", "adaptive"]

START, ROLE, STUDY_ID = "start", "role", "synque_select_id"
MISSED_HEARTBEATS = 3  # a worker that has missed as many counts as killed
_STAMP, _READY = "synque_select", "synque_select_ready"
_READY_TIMEOUT_S = 30.0
_STAMP_TIMEOUT_S = 5.0


def require_optuna(purpose: str = "tuning a mixture") -> None:
    """Check whether optuna can be imported.

    Raises:
        DependencyError: It cannot; the message names the extra that brings it.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise DependencyError("optuna", extra="tune", purpose=purpose) from error


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Hide Optuna's log lines about each trial: a table shows the trials, and errors are raised."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Ignore that heartbeats and multivariate TPE are marked as experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def direction_of(mode: str) -> Literal["maximize", "minimize"]:
    """Return Optuna's word for "max" or "min"."""
    return "maximize" if mode == "max" else "minimize"


def open_study(
    storage: BaseStorage,
    name: str,
    mode: str,
    stamp: JsonObject,
    starts: Mapping[str, Mapping[str, float]],
) -> Study:
    """Create a study and enqueue its first trials, or continue the one of this name.

    Args:
        storage: Storage of the study.
        name: Name of the study.
        mode: "max" or "min".
        stamp: Settings that all trials of the study must share, as plain values.
        starts: Name to parameters of the trials that come first.

    Raises:
        ConfigError: The study was created with another stamp; the message lists the differences.
        RecordError: The storage is damaged.
    """
    import optuna

    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction_of(mode))
    except ValueError as error:  # a damaged journal fails when it is written to
        raise RecordError(f"the storage of studies is damaged: {error}") from error
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        # another worker may have created the study a moment ago and not stamped it yet
        _wait_for(study, _STAMP, _STAMP_TIMEOUT_S)
        _check_stamp(name, study.user_attrs.get(_STAMP), stamp)
        # that worker may still be enqueueing the first trials, or was killed before it had
        _wait_for(study, _READY, _READY_TIMEOUT_S)
    else:
        study.set_user_attr(_STAMP, dict(stamp))
        study.set_user_attr(STUDY_ID, uuid4().hex)
    if not study.user_attrs.get(_READY):
        for start, params in starts.items():
            study.enqueue_trial(dict(params), user_attrs={START: start}, skip_if_exists=True)
        study.set_user_attr(_READY, True)
    return study


@contextmanager
def requeue_on_failure(
    study: Study, trial: Trial, starts: Mapping[str, Mapping[str, float]]
) -> Iterator[None]:
    """Enqueue a start again if an error or Ctrl-C ends it in here: the next call tries it anew.

    Args:
        study: The study of the trial.
        trial: The running trial.
        starts: Name to parameters, as for `open_study`.
    """
    from optuna import TrialPruned

    try:
        yield
    except TrialPruned:
        raise
    except BaseException:
        start: str = trial.user_attrs.get(START, "")
        if start in starts:
            study.enqueue_trial(dict(starts[start]), user_attrs={START: start})
        raise


def _wait_for(study: Study, attribute: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not study.user_attrs.get(attribute) and time.monotonic() < deadline:
        time.sleep(0.2)


def _check_stamp(name: str, known: JsonObject | None, stamp: JsonObject) -> None:
    if known is None:
        raise ConfigError(
            f"study_name={name!r}: the storage has a study of this name that synque-select did not "
            "create; give another name"
        )
    differences = [
        f"{field} {known.get(field)!r}, now {value!r}"
        for field, value in stamp.items()
        if known.get(field) != value
    ]
    if differences:
        raise ConfigError(
            f"study_name={name!r} was made with other settings, its trials cannot be compared: "
            f"{'; '.join(differences)}. Give another name, or None for a new one"
        )


def origin_of(trial: FrozenTrial) -> int:
    """Return the trial's number, or that of the trial of a killed worker that it repeats."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def role_of(study: Study, trial: FrozenTrial, n_startup: int) -> Role:
    """Return where a trial's parameters come from.

    The first `n_startup` trials that are not enqueued are random.

    Returns:
        "start" (suggested by the proxies), "random" or "adaptive" (by the sampler).
    """
    if ROLE in trial.user_attrs:
        role: Role = trial.user_attrs[ROLE]
        return role
    if START in trial.user_attrs:
        return "start"
    origin = origin_of(trial)
    earlier = [
        other
        for other in study.get_trials(deepcopy=False)
        if other.number < origin
        and START not in other.user_attrs
        and "failed_trial" not in other.system_attrs
    ]
    return "random" if len(earlier) < n_startup else "adaptive"


def is_done(study: Study, n_trials: int) -> bool:
    """Return whether enough trials are complete or pruned."""
    return _count(study, "COMPLETE", "PRUNED") >= n_trials


def wait_for_work(study: Study, n_trials: int, heartbeat_s: int | None) -> bool:
    """Wait until there is a trial to run, and return whether there is one.

    If other workers run all remaining trials, this waits for them: the trial of a killed worker
    becomes free when enough heartbeats are missing. A worker that neither finishes nor dies is
    waited for twice as long, and no longer.

    Args:
        study: The study.
        n_trials: Number of trials, complete or pruned, at which the study ends.
        heartbeat_s: Seconds between signs of life of a worker; None if the storage has none.
    """
    from optuna.storages import fail_stale_trials

    deadline = time.monotonic() + 2 * MISSED_HEARTBEATS * (heartbeat_s or 0)
    while not is_done(study, n_trials):
        with without_experimental_warnings():
            fail_stale_trials(study)
        taken = _count(study, "RUNNING") if heartbeat_s else 0
        finished = _count(study, "COMPLETE", "PRUNED")
        if _count(study, "WAITING") or finished + taken < n_trials:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return False


def _count(study: Study, *states: str) -> int:
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name in states for trial in trials)
