"""Optuna's studies: how they are opened and continued, and the plan of their trials."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from synque_select.errors import ConfigError, DependencyError, RecordError
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = [
    "MISSED_HEARTBEATS",
    "REPEATS",
    "ROLE",
    "START",
    "SUPERFLUOUS",
    "UNDEFINED",
    "Plan",
    "Role",
    "direction_of",
    "is_done",
    "is_finished",
    "is_own_attribute",
    "open_study",
    "origin_of",
    "place_of",
    "quiet_optuna",
    "require_optuna",
    "without_experimental_warnings",
]

Role = Literal["start", "random", "adaptive"]

START, ROLE = "start", "role"
REPEATS = "repeats"  # number of the unfinished trial that a trial repeats
SUPERFLUOUS = "superfluous"  # a repetition that another worker has already begun
UNDEFINED = "undefined"  # the value of a trial that is NaN or infinite
# all attributes that a study sets on its trials, and the beginnings of those that are only shown
_OWN = ("ended", "hyper_parameters", "mixture", "seconds", "synque_select_crc32", "worker")
_SHOWN = ("proxy/", "weight/")
MISSED_HEARTBEATS = 3  # a worker that has missed as many counts as killed
_STAMP = "synque_select"
_VERSION = 2  # 1 had other names of parameters, and seeds by the numbers of trials
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


@dataclass(frozen=True)
class Plan:
    """What a study tries at which place; the same however often it is interrupted.

    A place is the position of a point among all points that the study tries. A trial that a worker
    has left unfinished is repeated at its place, under another number.

    Args:
        study_id: Unique id of the study.
        starts: Name to parameters of the points that come first.
        n_startup: Number of random points after them.
    """

    study_id: str
    starts: Mapping[str, Mapping[str, float]]
    n_startup: int

    def role(self, place: int) -> Role:
        """Return where the point of a place comes from."""
        if place < len(self.starts):
            return "start"
        return "random" if place < len(self.starts) + self.n_startup else "adaptive"

    def start(self, place: int) -> str:
        """Return the name of a start; "" for other places."""
        return list(self.starts)[place] if self.role(place) == "start" else ""

    def point(self, place: int) -> Mapping[str, float]:
        """Return the parameters of a start; none for other places."""
        return self.starts[self.start(place)] if self.role(place) == "start" else {}


def open_study(
    storage: BaseStorage,
    name: str,
    mode: str,
    stamp: JsonObject,
    starts: Mapping[str, Mapping[str, float]],
    n_startup: int,
) -> tuple[Study, Plan]:
    """Create a study, or continue the one of this name; return it and its plan.

    Args:
        storage: Storage of the study.
        name: Name of the study.
        mode: "max" or "min".
        stamp: Settings that all trials of the study must share, as plain values.
        starts: Name to parameters of the trials that come first in a new study.
        n_startup: Number of random trials after them.

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
        _wait_for_stamp(study)
    # a worker that was killed before it had stamped the study has left an empty one
    is_new = not study.user_attrs and not study.get_trials(deepcopy=False)
    if is_new and study.direction.name.lower() == direction_of(mode):
        plain_starts = {start: dict(point) for start, point in starts.items()}
        # one attribute, so that it is there as a whole or not at all
        state = {"version": _VERSION, "id": uuid4().hex, "stamp": stamp, "starts": plain_starts}
        study.set_user_attr(_STAMP, state)
    known = _checked_state(name, study.user_attrs.get(_STAMP), stamp)
    return study, Plan(known["id"], known["starts"], n_startup)


def _wait_for_stamp(study: Study) -> None:
    deadline = time.monotonic() + _STAMP_TIMEOUT_S
    while not study.user_attrs.get(_STAMP) and time.monotonic() < deadline:
        time.sleep(0.2)


def _checked_state(name: str, state: Any, stamp: JsonObject) -> dict[str, Any]:
    # Any: values of a user attribute, which this function has checked or written
    if state is None:
        raise ConfigError(
            f"study_name={name!r}: the storage has a study of this name that synque-select did not "
            "create; give another name"
        )
    if "version" not in state or state["version"] != _VERSION:
        raise ConfigError(
            f"study_name={name!r} was made by another version of synque-select, whose trials have "
            "other parameters: give another name, or None for a new study. Mixtures whose results "
            "are in the run store are not trained again"
        )
    known = state["stamp"]
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
    return dict(state)


def origin_of(trial: FrozenTrial) -> int:
    """Return the trial's number, or that of the unfinished trial that it repeats."""
    # a storage of the user's may itself repeat trials of killed workers
    repeated = trial.user_attrs.get(REPEATS, trial.system_attrs.get("failed_trial"))
    return trial.number if repeated is None else int(repeated)


def place_of(study: Study, trial: FrozenTrial) -> int:
    """Return the place of a trial's point in the study's plan, counted from 0."""
    origin = origin_of(trial)
    trials = study.get_trials(deepcopy=False)
    return sum(other.number < origin and origin_of(other) == other.number for other in trials)


def is_own_attribute(name: str) -> bool:
    """Return whether a study keeps something of its own in an attribute of a trial.

    Example:
        >>> is_own_attribute("mixture"), is_own_attribute("weight/a"), is_own_attribute("note")
        (True, True, False)
    """
    marks = (*_OWN, REPEATS, ROLE, START, SUPERFLUOUS, UNDEFINED)
    return name in marks or name.startswith(_SHOWN)


def is_done(study: Study, n_trials: int) -> bool:
    """Return whether enough trials are finished: complete, pruned, or with an undefined value."""
    return sum(map(is_finished, study.get_trials(deepcopy=False))) >= n_trials


def is_finished(trial: FrozenTrial) -> bool:
    """Return whether a trial is finished, and not to be repeated."""
    return trial.state.name in ("COMPLETE", "PRUNED") or UNDEFINED in trial.user_attrs
