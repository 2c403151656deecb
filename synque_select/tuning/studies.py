"""Optuna's studies: how they are opened and continued, and the plan of their trials."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from synque_select.errors import ConfigError, DependencyError, RecordError
from synque_select.tuning.changes import Content
from synque_select.types import is_surrogate
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = [
    "EARLIER",
    "MISSED_HEARTBEATS",
    "REPEATS",
    "ROLE",
    "START",
    "SUPERFLUOUS",
    "UNDEFINED",
    "Beginning",
    "Plan",
    "Role",
    "direction_of",
    "is_done",
    "is_earlier",
    "is_finished",
    "is_own_attribute",
    "is_prior",
    "newest_comparable",
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
EARLIER = "earlier"  # where a trial that another study or sweep has run comes from
UNDEFINED = "undefined"  # the value of a trial that is NaN or infinite
# all attributes that a study sets on its trials, and the beginnings of those that are only shown
_OWN = ("ended", "hyper_parameters", "mixture", "seconds", "synque_select_crc32", "worker")
_SHOWN = ("proxy/", "weight/")
MISSED_HEARTBEATS = 3  # a worker that has missed as many counts as killed
_STAMP = "synque_select"
# 1 had other names of parameters, and seeds by the numbers of trials; 2 no contents of candidates
_VERSION = 3
# settings that may differ between a study and the one whose trials are its priors
_CANDIDATES = ("candidates", "k_range", "reuse")
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
class Beginning:
    """What a new study begins with.

    Args:
        starts: Name to parameters of the trials that come first.
        trials: Trials that were run before, to be added.
        summary: What was taken from where; empty if nothing was.
    """

    starts: Mapping[str, Mapping[str, float]]
    trials: Sequence[FrozenTrial] = ()
    summary: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a study tries at which place; the same however often it is interrupted.

    A place is the position of a point among all points that the study tries. A trial that a worker
    has left unfinished is repeated at its place, under another number.

    Args:
        study_id: Unique id of the study.
        starts: Name to parameters of the points that come first.
        n_startup: Number of random points after them.
        earlier: What the study has taken from earlier fits; empty if nothing.
    """

    study_id: str
    starts: Mapping[str, Mapping[str, float]]
    n_startup: int
    earlier: JsonObject = field(default_factory=dict)

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
    begin: Callable[[], Beginning],
    n_startup: int,
    contents: Mapping[str, Content] = MappingProxyType({}),
) -> tuple[Study, Plan]:
    """Create a study, or continue the one of this name; return it and its plan.

    Args:
        storage: Storage of the study.
        name: Name of the study.
        mode: "max" or "min".
        stamp: Settings that all trials of the study must share, as plain values.
        begin: Returns what a new study begins with; called only for one.
        n_startup: Number of random trials after the starts.
        contents: Candidate to its content, by which a later study finds what has changed; empty if
            none may take trials from this one.

    Raises:
        ConfigError: The study was created with another stamp; the message lists the differences.
        RecordError: The storage is damaged.
    """
    import optuna

    # before the study is created: it may take long, and others wait only shortly for a stamp
    beginning = None if _is_stamped(storage, name) else begin()
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction_of(mode))
    except ValueError as error:  # a damaged journal fails when it is written to
        raise RecordError(f"the storage of studies is damaged: {error}") from error
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        # another worker may have created the study a moment ago and not stamped it yet
        _wait_for_stamp(study)
    # a worker that was killed before it had stamped the study has left it without own trials
    is_new = not study.user_attrs and all(map(is_earlier, study.get_trials(deepcopy=False)))
    if is_new and study.direction.name.lower() == direction_of(mode):
        beginning = beginning or begin()
        _add_missing(study, beginning.trials)
        # one attribute, so that it is there as a whole or not at all
        state = {
            "version": _VERSION,
            "id": uuid4().hex,
            "created": datetime.now(UTC).isoformat(),
            "stamp": stamp,
            "starts": {start: dict(point) for start, point in beginning.starts.items()},
            "contents": {name: list(content) for name, content in contents.items()},
            "earlier": beginning.summary,
        }
        study.set_user_attr(_STAMP, state)
    known = _checked_state(name, study.user_attrs.get(_STAMP), stamp)
    return study, Plan(known["id"], known["starts"], n_startup, known["earlier"])


def _is_stamped(storage: BaseStorage, name: str) -> bool:
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return _STAMP in storage.get_study_user_attrs(study_id)


def _add_missing(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Add the earlier trials that a killed worker has not added."""
    there = [trial.user_attrs[EARLIER] for trial in study.get_trials(deepcopy=False)]
    for trial in trials:
        if trial.user_attrs[EARLIER] not in there:
            study.add_trial(trial)


def _wait_for_stamp(study: Study) -> None:
    deadline, n = time.monotonic() + _STAMP_TIMEOUT_S, 0
    while not study.user_attrs.get(_STAMP) and time.monotonic() < deadline:
        time.sleep(0.2)
        n_now = len(study.get_trials(deepcopy=False))
        if n_now > n:  # the other worker adds earlier trials
            deadline, n = time.monotonic() + _STAMP_TIMEOUT_S, n_now


def newest_comparable(
    storage: BaseStorage, name: str, stamp: JsonObject
) -> tuple[Study, dict[str, Content]] | None:
    """Return the newest study with trials whose settings differ only in its candidates.

    A surrogate validation set consists of candidates: with one, it may differ, too.

    Args:
        storage: Storage of the studies.
        name: Name of the new study, which is left out.
        stamp: Its settings.

    Returns:
        The study, and the contents of its candidates; None if there is none.
    """
    import optuna

    free = {*_CANDIDATES, *(["validation"] if is_surrogate(str(stamp["tuned for"])) else [])}
    # Any: values of a user attribute, whose version is checked
    known: dict[str, dict[str, Any]] = {
        other.study_name: other.user_attrs[_STAMP]
        for other in storage.get_all_studies()
        if other.study_name != name and _is_current(other.user_attrs.get(_STAMP))
    }
    for other in sorted(known, key=lambda other: known[other]["created"], reverse=True):
        state = known[other]
        settings = {*state["stamp"], *stamp} - free
        if any(state["stamp"].get(field) != stamp.get(field) for field in settings):
            continue
        study = optuna.load_study(storage=storage, study_name=other)
        if state["contents"] and any(map(is_finished, study.get_trials(deepcopy=False))):
            return study, {n: Content(*hashes) for n, hashes in state["contents"].items()}
    return None


def _is_current(state: object) -> bool:
    return isinstance(state, dict) and state.get("version") == _VERSION


def _checked_state(name: str, state: Any, stamp: JsonObject) -> dict[str, Any]:
    # Any: values of a user attribute, which this function has checked or written
    if state is None:
        raise ConfigError(
            f"study_name={name!r}: the storage has a study of this name that synque-select did not "
            "create; give another name"
        )
    if not _is_current(state):
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
    """Return the place of a trial's point in the study's plan, counted from 0.

    Earlier trials have none; they come before all others.
    """
    origin = origin_of(trial)
    trials = [other for other in study.get_trials(deepcopy=False) if not is_earlier(other)]
    return sum(other.number < origin and origin_of(other) == other.number for other in trials)


def is_earlier(trial: FrozenTrial) -> bool:
    """Return whether a trial was run before the study began, by another one or by a sweep."""
    return EARLIER in trial.user_attrs


def is_prior(trial: FrozenTrial) -> bool:
    """Return whether an earlier trial was run on other data, and only guides the sampler."""
    return is_earlier(trial) and bool(trial.user_attrs[EARLIER]["is_prior"])


def is_own_attribute(name: str) -> bool:
    """Return whether a study keeps something of its own in an attribute of a trial.

    Example:
        >>> is_own_attribute("mixture"), is_own_attribute("weight/a"), is_own_attribute("note")
        (True, True, False)
    """
    marks = (*_OWN, EARLIER, REPEATS, ROLE, START, SUPERFLUOUS, UNDEFINED)
    return name in marks or name.startswith(_SHOWN)


def is_done(study: Study, n_trials: int) -> bool:
    """Return whether enough trials are finished: complete, pruned, or with an undefined value."""
    return sum(map(is_finished, study.get_trials(deepcopy=False))) >= n_trials


def is_finished(trial: FrozenTrial) -> bool:
    """Return whether a trial of the study itself is finished, and not to be repeated."""
    if is_earlier(trial):
        return False
    return trial.state.name in ("COMPLETE", "PRUNED") or UNDEFINED in trial.user_attrs
