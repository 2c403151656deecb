"""Cache of the answers of language models, so that a killed run asks only for the rest."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from synque_select.errors import RecordError
from synque_select.lens.answer_exchange import AnswerExchange, exchange_of
from synque_select.utils.atomic import atomic_path
from synque_select.utils.cache_dir import (
    default_cache_dir,
    is_disk_full,
    note_not_written,
    temporary_twin,
    writable_twin,
)
from synque_select.utils.checksums import DamagedFileError, checked_text, text_with_checksum
from synque_select.utils.file_state import file_state
from synque_select.utils.sqlite_files import (
    check_database_path,
    damage_of,
    has_application_id,
    is_damage,
    readable_rows,
    set_aside_database,
)
from synque_select.utils.wording import counted

__all__ = ["AnswerCache", "AnswerSession", "answer_key", "default_answers_path"]

_log = logging.getLogger(__name__)

_APPLICATION_ID = 0x5351414E  # "SQAN"
_BUSY_TIMEOUT_S = 60.0
_MAX_VARIABLES = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


def default_answers_path() -> Path:
    """Return `answers.sqlite` in the default cache folder."""
    return default_cache_dir() / "answers.sqlite"


def answer_key(model: str, prompt: str, decoding: Mapping[str, object]) -> str:
    """Return the cache key of an answer: a hash of the model, the prompt and the decoding options.

    Nothing else is part of the key: no rank, no candidate name and no version of this library, so
    answers are reused across runs, machines and releases.

    Args:
        model: Id and revision of the model (`BaseLLM.key`).
        prompt: Text of the prompt.
        decoding: Options that change the answer, such as the temperature.

    Example:
        >>> answer_key("m", "p", {"seed": 0}) == answer_key("m", "p", {"seed": 1})
        False
    """
    body = json.dumps([model, prompt, dict(decoding)], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


class AnswerCache:
    """Answers in one SQLite file that several processes may share.

    An answer is handed to the operating system before `put` returns, so a kill loses only the
    answers in flight. Each answer has a checksum. The object holds nothing but a path and can be
    sent to other processes.

    Once per process the file is checked. Damaged answers are left out and asked for again; if the
    file itself is damaged, the answers that can be read go into a new one, and it is renamed. If
    the folder cannot be written, or its disk is full, a temporary copy of the file is used, with a
    note; answers that nothing can store are kept in memory.

    Args:
        path: The file, created on first use; None for `default_answers_path()`.

    Example:
        >>> import tempfile
        >>> cache = AnswerCache(Path(tempfile.mkdtemp()) / "answers.sqlite")
        >>> cache.put({"k": [0.25, 0.75]})
        >>> cache.get(["k", "other"])
        {'k': [0.25, 0.75]}
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_answers_path() if path is None else Path(path)

    @contextmanager
    def session(self) -> Iterator[AnswerSession]:
        """Open the file for several calls of `get` and `put`.

        Raises:
            RecordError: The file cannot be read or written, or is not an answer cache.
        """
        try:
            with closing(self._opened()) as connection:
                exchange = exchange_of(self.path)
                if exchange is not None:
                    exchange.begin(connection)
                yield AnswerSession(connection, self.path, exchange)
        except (sqlite3.Error, OSError) as error:
            raise RecordError(
                f"the answer cache {self.path} cannot be used: {error}; choose another path"
            ) from error

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers in the cache, by key; raises the errors of `session`."""
        with self.session() as session:
            return session.get(keys)

    def put(self, answers: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
        """Store JSON values by key; raises the errors of `session`."""
        with self.session() as session:
            session.put(answers)

    def send(self) -> None:
        """Send new answers to the store that the cache is in, if it is in one."""
        exchange = exchange_of(self.path)
        if exchange is not None:
            with self.session() as session:
                session.send(exchange)

    def _opened(self) -> sqlite3.Connection:
        check_database_path(self.path)
        path = self._in_folder(self._writable_folder())
        try:
            self._check(path)
            return self._connect(path)
        except (sqlite3.Error, OSError) as error:
            if path != self.path or not _is_full(error):
                raise
            note_not_written(self.path, _FULL)
        twin = temporary_twin(self.path.parent)
        twin.mkdir(parents=True, exist_ok=True)
        path = self._in_folder(twin)
        self._check(path)
        return self._connect(path)

    def _writable_folder(self) -> Path:
        """Return the folder, or a temporary one if it or the file is read-only."""
        folder = writable_twin(self.path.parent)
        if folder == self.path.parent and self.path.exists() and not os.access(self.path, os.W_OK):
            note_not_written(self.path, PermissionError(13, "Permission denied"))
            folder = temporary_twin(folder)
        return folder

    def _in_folder(self, folder: Path) -> Path:
        """Return the path of the file in a folder, where it is copied to if it is not there."""
        copy = folder / self.path.name
        if folder != self.path.parent and self.path.exists() and not copy.exists():
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists():  # answers of a killed process that are not in the file yet
                with atomic_path(copy.with_name(f"{copy.name}-wal")) as part:
                    shutil.copyfile(log, part)
            with atomic_path(copy) as part:
                shutil.copyfile(self.path, part)
        return copy

    def _check(self, path: Path) -> None:
        """Check a file that this process has not checked yet, and repair it."""
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            return
        key = (str(path), file_state(path).inode)
        if key in _CHECKED:
            return
        reason: object = "it is a directory"
        if path.is_file():
            try:
                with closing(self._connect(path)) as connection:
                    reason = damage_of(connection, quick=True)
                    if reason is None:
                        self._remove_damaged_rows(connection)
            except (sqlite3.Error, DamagedFileError) as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                reason = error
        if reason is not None:
            self._salvage(path, reason)
        _CHECKED.add((str(path), file_state(path).inode))

    def _remove_damaged_rows(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = bytes
        rows = connection.execute("SELECT rowid, key, answer FROM answers NOT INDEXED")
        damaged = [(number,) for number, *row in rows if _answer_of(*row) is None]
        if damaged:
            with connection:
                connection.executemany("DELETE FROM answers WHERE rowid = ?", damaged)
            _log.warning(
                "%s: %s damaged: asked for again",
                *(self.path, counted(len(damaged), "answer is", "answers are")),
            )

    def _salvage(self, path: Path, reason: object) -> None:
        """Put the answers that can be read into a new file, and the damaged one aside."""
        rows = readable_rows(path, "answers", "key, answer")
        # without a checksum, an answer in a damaged file may be any
        kept: list[tuple[str, str]] = []
        for key, stored in rows:
            text = _answer_of(key, stored, needs_checksum=True)
            if text is not None and isinstance(key, bytes):
                kept.append((key.decode(), text_with_checksum(key.decode(), text)))
        is_ours = path.name == default_answers_path().name and path.parent in (
            default_cache_dir(),
            temporary_twin(default_cache_dir()),
        )
        if not (rows or is_ours or has_application_id(path, _APPLICATION_ID)):
            raise RecordError(
                f"the answer cache {self.path} cannot be used: it is not a database of answers, "
                f"or is damaged beyond reading ({reason}); choose another path, or move the file "
                "away"
            )
        aside = set_aside_database(path)
        with closing(self._connect(path)) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", kept)
        _log.warning(
            "%s is damaged (%s): %s could be read and are used, the others are asked for again. "
            "The damaged file is kept as %s",
            *(path, reason, counted(len(kept), "answer"), aside),
        )

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
        try:
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            if application_id != _APPLICATION_ID:
                self._create(connection, application_id)
            # in this mode a killed process loses nothing; only a power failure may
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection, application_id: int) -> None:
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # another process may have created it since the first look
        id_now = connection.execute("PRAGMA application_id").fetchone()[0]
        if (application_id or n_tables) and id_now != _APPLICATION_ID:
            columns = connection.execute("SELECT name FROM pragma_table_info('answers')")
            if [name for (name,) in columns] == ["key", "answer"]:
                raise DamagedFileError("its application id is missing")
            raise RecordError(
                f"{self.path} is a SQLite file of another program: choose another path for answers"
            )
        with suppress(sqlite3.OperationalError):  # in use by another process: slower, still right
            connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
# what SQLite says of a full disk: also where it cannot write its log, or the file beside it
_FULL_CODES = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_CANTOPEN,
)


def _is_full(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return is_disk_full(error)
    return getattr(error, "sqlite_errorcode", None) in _FULL_CODES


# path of a cache to the answers that this process could not store in it
_UNSTORED: dict[Path, dict[str, str]] = {}
# path and inode of the files that this process has checked
_CHECKED: set[tuple[str, int]] = set()


def _answer_of(key: object, stored: object, *, needs_checksum: bool = False) -> str | None:
    """Return the JSON of an answer; None if its row is damaged."""
    try:
        name = key.decode() if isinstance(key, bytes) else str(key)
        text = checked_text(name, stored)
        if needs_checksum and isinstance(stored, bytes) and text.encode() == stored:
            return None
        json.loads(text)
    except (ValueError, RecursionError):  # also damaged rows and broken UTF-8
        return None
    return text


class AnswerSession:
    """The answer cache while its file is open."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, exchange: AnswerExchange | None = None
    ) -> None:
        connection.text_factory = bytes
        self._connection = connection
        self._path = path
        self._exchange = exchange

    def send(self, exchange: AnswerExchange) -> None:
        """Send new answers to a store."""
        exchange.send(self._connection)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers in the cache, by key."""
        answers: dict[str, Any] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = tuple(keys[start : start + _MAX_VARIABLES])
            places = ",".join("?" * len(part))
            query = f"SELECT key, answer FROM answers WHERE key IN ({places})"
            rows = self._connection.execute(query, part).fetchall()
            for stored_key, stored in rows:
                text = _answer_of(stored_key, stored)
                if text is not None:
                    answers[stored_key.decode()] = json.loads(text)
        unstored = _UNSTORED.get(self._path, {})
        return answers | {key: json.loads(unstored[key]) for key in keys if key in unstored}

    def put(self, answers: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
        """Store JSON values by key."""
        texts = [(key, json.dumps(answer)) for key, answer in dict(answers).items()]
        rows = [(key, text_with_checksum(key, text)) for key, text in texts]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            if self._exchange is not None:
                self._exchange.send_if_due(self._connection)
        except sqlite3.Error as error:
            if not _is_full(error):
                raise
            # they cost money: the run goes on with them
            note_not_written(self._path, _FULL)
            _UNSTORED.setdefault(self._path, {}).update(texts)
