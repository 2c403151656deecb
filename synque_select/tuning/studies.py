"""Optuna's studies: storages, samplers and pruners by name, and who takes which trial."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np

from synque_select.errors import ConfigError, DependencyError, RecordError, did_you_mean

__all__ = [
    "PRUNERS",
    "ROLE",
    "SAMPLERS",
    "START",
    "STUDY_ID",
    "heartbeat_of",
    "is_done",
    "open_storage",
    "open_study",
    "optuna_module",
    "origin_of",
    "quiet_optuna",
    "requeue_on_failure",
    "role_of",
    "study_pruner",
    "study_sampler",
    "wait_for_work",
]

START, ROLE, STUDY_ID = "start", "role", "synque_select_id"
_STAMP, _READY = "synque_select", "synque_select_ready"
SAMPLERS = ("cmaes", "gp", "qmc", "random", "tpe")
PRUNERS = ("hyperband", "median", "none", "successive_halving")
_GRACE = 3  # heartbeats that a worker may miss
_MAX_RETRIES = 3  # of one trial: what kills each worker that tries it must end
_JOURNALS = (".journal", ".log", ".jsonl")
_PATIENCE_S = 30.0
_STAMP_S = 5.0
_T = TypeVar("_T")


def optuna_module() -> Any:
    """Import optuna, or name the extra that brings it."""
    try:
        import optuna
    except ImportError as error:
        raise DependencyError("optuna", extra="tune", purpose="tuning a mixture") from error
    return optuna


def open_storage(storage: Any, heartbeat_s: int) -> Any:
    """Return Optuna's storage for a path, a URL or a storage.

    Args:
        storage: A path of a SQLite file, or of a journal where it ends in .journal, .log or .jsonl;
            a URL of any database that SQLAlchemy knows; or a storage of Optuna's.
        heartbeat_s: How often a worker says that it lives; a journal cannot hold it.

    Raises:
        RecordError: The storage cannot be opened.
    """
    optuna = optuna_module()
    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    is_url = "://" in str(storage)
    if not is_url:
        try:
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            if Path(storage).suffix in _JOURNALS:
                return _journal(optuna, str(storage))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RecordError(f"storage of studies {storage}: {error}") from error
    url = str(storage) if is_url else f"sqlite:///{Path(storage).resolve()}"
    # of several workers that make the tables at once, all but one fail once
    return _patiently(lambda: _database(optuna, url, heartbeat_s), _without_password(url))


def _journal(optuna: Any, path: str) -> Any:
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(path))


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):.*@", r"\1:…@", url)


def _database(optuna: Any, url: str, heartbeat_s: int) -> Any:
    is_sqlite = url.startswith("sqlite")
    with _without_experimental():
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if is_sqlite else {},
            heartbeat_interval=heartbeat_s,
            grace_period=_GRACE * heartbeat_s,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(
                max_retry=_MAX_RETRIES
            ),
        )
    if is_sqlite:
        _lock_from_the_first_read(storage.engine)
    return storage


def _lock_from_the_first_read(engine: Any) -> None:
    """Make each transaction of a SQLite engine hold the write lock from its beginning.

    Optuna takes a waiting trial by reading its state and then setting it. SQLite knows no "SELECT
    … FOR UPDATE", and by itself locks only with the first write: two workers would take the same
    trial.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 itself begins no transaction any more

    @event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened without this


def _patiently(work: Callable[[], _T], where: str) -> _T:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    for pause_s in (0.2, 0.5, 1.0, 2.0, None):
        try:
            return work()
        except (OptunaError, SQLAlchemyError) as error:
            if pause_s is None:
                reason = str(error).partition("\n")[0]
                raise RecordError(f"storage of studies {where}: {reason}") from error
            time.sleep(pause_s)
        except (ImportError, OSError) as error:
            raise RecordError(f"storage of studies {where}: {error}") from error
    raise RecordError(f"storage of studies {where}: not opened")  # pragma: no cover


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's lines on each trial away: a table shows them, and errors are raised."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def _without_experimental() -> Iterator[None]:
    """Heartbeats and multivariate TPE are marked experimental: that is not the user's concern."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def open_study(
    storage: Any,
    name: str,
    mode: str,
    stamp: Mapping[str, Any],
    starts: Mapping[str, Mapping[str, Any]],
) -> Any:
    """Make a study and enqueue its first trials, or go on with the one of this name.

    Args:
        storage: Of Optuna's.
        name: Of the study.
        mode: "max" or "min".
        stamp: Plain values: what must be equal for trials to belong to one study.
        starts: Name to parameters of the trials that come first.

    Raises:
        ConfigError: The study was made with another stamp; the message says where they differ.
        RecordError: The storage is damaged.
    """
    optuna = optuna_module()
    direction = "maximize" if mode == "max" else "minimize"
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    except ValueError as error:  # a journal shows that it is damaged when more is written to it
        raise RecordError(f"the storage of studies is damaged: {error}") from error
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        # who made it is still at the next line, unless it is somebody else's
        _wait_for(study, _STAMP, _STAMP_S)
        _check_stamp(name, study.user_attrs.get(_STAMP), stamp)
        # who made it is still filling it, or was killed before it had
        _wait_for(study, _READY, _PATIENCE_S)
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
    study: Any, trial: Any, starts: Mapping[str, Mapping[str, Any]]
) -> Iterator[None]:
    """Enqueue a start again that an error or Ctrl-C ends in here: the next call tries it anew.

    Args:
        study: Of the trial.
        trial: Under way.
        starts: Name to parameters, as `open_study` took them.
    """
    from optuna import TrialPruned

    try:
        yield
    except TrialPruned:
        raise
    except BaseException:
        start = trial.user_attrs.get(START)
        if start in starts:
            study.enqueue_trial(dict(starts[start]), user_attrs={START: start})
        raise


def _wait_for(study: Any, attribute: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not study.user_attrs.get(attribute) and time.monotonic() < deadline:
        time.sleep(0.2)


def _check_stamp(name: str, known: Mapping[str, Any] | None, stamp: Mapping[str, Any]) -> None:
    if known is None:
        raise ConfigError(
            f"study_name={name!r}: the storage has a study of this name that is not of "
            "synque-select; give another name"
        )
    other = [
        f"{field} {known.get(field)!r}, now {value!r}"
        for field, value in stamp.items()
        if known.get(field) != value
    ]
    if other:
        raise ConfigError(
            f"study_name={name!r} was made with other settings, its trials cannot be compared: "
            f"{'; '.join(other)}. Give another name, or None for one of its own"
        )


def origin_of(trial: Any) -> int:
    """Return the trial's number, or that of the trial of a killed worker that it repeats."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def role_of(study: Any, trial: Any, n_startup: int) -> str:
    """Return where a trial's parameters come from: "start", "random" or "adaptive".

    The first `n_startup` trials that are not enqueued are random.
    """
    if ROLE in trial.user_attrs:
        return str(trial.user_attrs[ROLE])
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


def study_sampler(sampler: Any, n_startup: int, seed: int) -> Any:
    """Return a sampler that begins with random trials and goes on with the one that is meant.

    One by name is made anew for each trial, seeded by the seed and the trial's number: workers that
    share a study draw apart from each other, and a resumed study draws as one that was not stopped.
    (CMA-ES and quasi-random sequences go on from trial to trial, so they keep one seed.)

    Raises:
        ConfigError: There is no such sampler.
    """
    optuna = optuna_module()
    if isinstance(sampler, optuna.samplers.BaseSampler):
        return _trial_sampler(lambda _: sampler, n_startup, seed)
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler={sampler!r}: {did_you_mean(str(sampler), SAMPLERS)}; or a sampler of Optuna's"
        )
    make: dict[str, Callable[[int], Any]] = {
        "cmaes": lambda _: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda number: optuna.samplers.GPSampler(
            seed=_seed(seed, number), n_startup_trials=1, deterministic_objective=True
        ),
        "qmc": lambda _: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda number: optuna.samplers.RandomSampler(seed=_seed(seed, number)),
        "tpe": lambda number: optuna.samplers.TPESampler(
            seed=_seed(seed, number), n_startup_trials=1, multivariate=True, constant_liar=True
        ),
    }
    return _trial_sampler(make[sampler], n_startup, seed)


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _trial_sampler(make: Callable[[int], Any], n_startup: int, seed: int) -> Any:
    from optuna.samplers import BaseSampler, RandomSampler

    class TrialSampler(BaseSampler):
        """Hands each trial to the sampler that is its own."""

        def before_trial(self, study: Any, trial: Any) -> None:
            is_random = role_of(study, trial, n_startup) == "random"
            origin = origin_of(trial)
            with _without_experimental():
                self._own = RandomSampler(seed=_seed(seed, origin)) if is_random else make(origin)
                self._own.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._own.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._own.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self._own.sample_independent(study, trial, name, distribution)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self._own.after_trial(study, trial, state, values)

    return TrialSampler()


def study_pruner(pruner: Any, max_steps: int, n_reports: int) -> Any:
    """Return a pruner that spares random trials, for what is left of them would be selected.

    Raises:
        ConfigError: There is no such pruner.
    """
    optuna = optuna_module()
    pruners = optuna.pruners
    if isinstance(pruner, pruners.BasePruner):
        return _sparing(pruner)
    make: dict[str, Callable[[], Any]] = {
        "hyperband": lambda: pruners.HyperbandPruner(
            min_resource=max(1, max_steps // n_reports), max_resource=max_steps
        ),
        "median": pruners.MedianPruner,
        "none": pruners.NopPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
    }
    if pruner not in PRUNERS:
        raise ConfigError(
            f"pruner={pruner!r}: {did_you_mean(str(pruner), PRUNERS)}; or a pruner of Optuna's"
        )
    return _sparing(make[pruner]())


def _sparing(pruner: Any) -> Any:
    from optuna.pruners import BasePruner

    class SparingPruner(BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.user_attrs.get(ROLE) != "random" and bool(pruner.prune(study, trial))

    return SparingPruner()


def is_done(study: Any, n_trials: int) -> bool:
    """Whether as many trials as wanted are complete or pruned."""
    return _count(study, "COMPLETE", "PRUNED") >= n_trials


def heartbeat_of(storage: Any) -> int | None:
    """Return how often workers say in this storage that they live; None where it cannot hold it."""
    interval = getattr(storage, "get_heartbeat_interval", lambda: None)()
    return None if interval is None else int(interval)


def wait_for_work(study: Any, n_trials: int, heartbeat_s: int | None) -> bool:
    """Wait until there is a trial to run, and return whether there is.

    Where other workers run all that is left, their trials are waited for: one of a killed worker
    becomes free when its heartbeat has been missing for long enough. Who neither finishes nor dies
    is left alone after twice that time.
    """
    optuna = optuna_module()
    deadline = time.monotonic() + 2 * _GRACE * (heartbeat_s or 0)
    while not is_done(study, n_trials):
        with _without_experimental():
            optuna.storages.fail_stale_trials(study)
        taken = _count(study, "RUNNING") if heartbeat_s else 0
        finished = _count(study, "COMPLETE", "PRUNED")
        if _count(study, "WAITING") or finished + taken < n_trials:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return False


def _count(study: Any, *states: str) -> int:
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name in states for trial in trials)
