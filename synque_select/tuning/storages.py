"""Storages of studies: a SQLite file, a journal, the URL of a database, or Optuna's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import RecordError
from synque_select.tuning.studies import MISSED_HEARTBEATS, without_experimental_warnings
from synque_select.tuning.study_checks import named_storage, prepare_database

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["heartbeat_of", "open_storage", "shown_storage"]

_JOURNALS = (".journal", ".log", ".jsonl")
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)


def open_storage(storage: str | Path | BaseStorage, heartbeat_s: int) -> BaseStorage:
    """Return Optuna's storage for a path, a URL or a storage.

    Args:
        storage: The path of a SQLite file, or of a journal if it ends in .journal, .log or .jsonl;
            the URL of any database that SQLAlchemy supports; or a storage of Optuna.
        heartbeat_s: Seconds between two signs of life of a worker; a journal cannot hold them.

    Raises:
        RecordError: The storage cannot be opened.
    """
    from optuna.storages import BaseStorage

    if isinstance(storage, BaseStorage):
        return storage
    is_url = "://" in str(storage)
    if not is_url:
        with named_storage(str(storage)):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            if Path(storage).suffix in _JOURNALS:
                return _journal(str(storage))
            prepare_database(Path(storage), partial(_create_tables, heartbeat_s=heartbeat_s))
    url = str(storage) if is_url else _sqlite_url(Path(storage))
    # if several workers create the tables at once, all but one fail once
    return _with_retries(lambda: _database(url, heartbeat_s), shown_storage(url))


def shown_storage(storage: str | Path | BaseStorage) -> str:
    """Return the name of a storage, without the password and the query that its URL may hold.

    Example:
        >>> shown_storage("postgresql://me:secret@host/db")
        'postgresql://host/db'
    """
    if not isinstance(storage, str | Path):
        return type(storage).__name__
    scheme, separator, rest = str(storage).partition("://")
    if not separator:
        return str(storage)
    rest, query, _ = rest.partition("?")
    return f"{scheme}://{rest.rpartition('@')[2]}{'?…' if query else ''}"


def heartbeat_of(storage: BaseStorage) -> int | None:
    """Return the seconds between signs of life in a storage; None if it cannot hold them."""
    interval = getattr(storage, "get_heartbeat_interval", lambda: None)()
    return None if interval is None else int(interval)


def _journal(path: str) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    content = Path(path).read_bytes() if Path(path).exists() else b""
    if content and not content.endswith(b"\n"):  # what is appended would become a part of that line
        raise ValueError("its last line is incomplete")
    return JournalStorage(JournalFileBackend(path))


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def _create_tables(path: Path, heartbeat_s: int) -> None:
    _database(_sqlite_url(path), heartbeat_s).engine.dispose()


def _database(url: str, heartbeat_s: int) -> RDBStorage:
    from optuna.storages import RDBStorage

    is_sqlite = url.startswith("sqlite")
    with without_experimental_warnings():
        storage = RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if is_sqlite else {},
            heartbeat_interval=heartbeat_s,
            grace_period=MISSED_HEARTBEATS * heartbeat_s,
        )
    if is_sqlite:
        _lock_from_the_first_read(storage.engine)
    return storage


def _lock_from_the_first_read(engine: Engine) -> None:
    """Make each transaction of a SQLite engine hold the write lock from its beginning.

    Optuna takes a waiting trial by reading its state and then setting it. SQLite has no "SELECT …
    FOR UPDATE", and by itself locks only at the first write: two workers would take the same trial.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # sqlite3 itself no longer begins transactions

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened without this


def _with_retries(work: Callable[[], RDBStorage], where: str) -> RDBStorage:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    for pause_s in (*_PAUSES_S, None):
        try:
            return work()
        except (OptunaError, SQLAlchemyError) as error:
            if pause_s is None:
                reason = str(error).partition("\n")[0]
                raise RecordError(f"storage of studies {where}: {reason}") from None
            time.sleep(pause_s)
        except (ImportError, OSError) as error:
            raise RecordError(f"storage of studies {where}: {error}") from None
    raise AssertionError("the last attempt returns or raises")
