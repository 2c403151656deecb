"""Checks of a study's storage: a damaged one is an error that names it, never another result."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, RecordError, SynqueError
from synque_select.tuning.studies import is_earlier
from synque_select.utils.atomic import create_once
from synque_select.utils.sqlite_files import check_database_path, damage_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = [
    "check_trials",
    "checked_earlier_trial",
    "named_storage",
    "prepare_database",
    "store_checksum",
]

_CHECKSUM = "synque_select_crc32"
_WHAT_TO_DO = "restore a backup, or move the file away to begin its studies again"


@contextmanager
def named_storage(where: str) -> Iterator[None]:
    """Turn whatever a storage raises because its content is damaged into an error that names it.

    Args:
        where: The storage, for the message.

    Raises:
        RecordError: The storage cannot be read.
        ConfigError: Its study is another one; the message names the storage, too.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error} (storage: {where})") from error
    except SynqueError:
        raise
    # Optuna itself raises what its parsers of texts and numbers meet
    except (
        *(OptunaError, SQLAlchemyError, sqlite3.Error, OSError, ValueError, LookupError, TypeError),
        *(AssertionError, AttributeError, RuntimeError),
    ) as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise RecordError(
            f"the storage of studies {where} is damaged or cannot be read: {reason}; {_WHAT_TO_DO}"
        ) from error


def prepare_database(path: Path, create: Callable[[Path], None]) -> None:
    """Create the SQLite file of studies as a whole, or check the one that is there.

    Args:
        path: The file.
        create: Creates the file at a given path.

    Raises:
        RecordError: The file is damaged, empty or not a file.
    """
    check_database_path(path)
    try:
        create_once(path, create)
        if path.is_file() and path.stat().st_size:
            with closing(sqlite3.connect(path, timeout=60)) as connection:
                reason = damage_of(connection)
        else:
            reason = "it is empty" if path.is_file() else "it is not a file"
    except sqlite3.Error as error:
        reason = str(error)
    if reason is not None:
        raise RecordError(
            f"the storage of studies {path} is damaged or cannot be read: {reason}; {_WHAT_TO_DO}"
        )


def store_checksum(trial: Trial, value: float | None) -> None:
    """Store a checksum of a trial that is about to finish.

    Args:
        trial: The running trial.
        value: Its value; None if it is pruned.
    """
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    trial.set_user_attr(_CHECKSUM, _checksum_of(frozen, value))


def checked_earlier_trial(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that is about to be added to a study, with a checksum."""
    trial.set_user_attr(_CHECKSUM, _checksum_of(trial, trial.value))
    return trial


def check_trials(study: Study) -> None:
    """Check the finished trials of a study; those of older versions have no checksum.

    Raises:
        ValueError: A trial is not what was once stored.
    """
    for trial in study.get_trials(deepcopy=False):
        stored = trial.user_attrs.get(_CHECKSUM)
        if stored is None or not trial.state.is_finished() or trial.state.name == "FAIL":
            continue
        value = trial.value if trial.state.name == "COMPLETE" else None
        if stored != _checksum_of(trial, value):
            raise ValueError(f"the checksum of trial {trial.number} does not match")


def _checksum_of(trial: FrozenTrial, value: float | None) -> str:
    attributes = {key: kept for key, kept in trial.user_attrs.items() if key != _CHECKSUM}
    state = [
        # that of an earlier trial is not known before it is added
        None if is_earlier(trial) else trial.number,
        trial.params,
        attributes,
        sorted(trial.intermediate_values.items()),
        None if value is None else float(value),
    ]
    return f"{zlib.crc32(json.dumps(state, sort_keys=True, default=str).encode()):08x}"
