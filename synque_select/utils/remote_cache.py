"""A cache in a store that fsspec reaches, such as s3://bucket/cache, behind a local folder.

All other code sees the local folder. A file that is missing in it is fetched from the store,
checked, and put in its place by a rename; a file that is written to it is sent to the store. Files
are named after their content or all that it depends on and never change, so nothing has to be
locked: two machines that compute the same file write the same file.

Not every part is shared: databases stay local, because SQLite must not be opened over a network,
and so do files that hold only for this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from synque_select.errors import ConfigError, without_keys
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.cache_files import (
    cache_entries,
    chosen_to_remove,
    in_use_since,
    parse_size,
    register_root,
    remove_entry,
)
from synque_select.utils.wording import counted, one_line

__all__ = [
    "LIMIT_VARIABLE",
    "SHARED",
    "RemoteCache",
    "fetch",
    "is_address",
    "open_remote",
    "publish",
    "remote_of",
    "unsent_files",
]

_log = logging.getLogger(__name__)

LIMIT_VARIABLE = "SYNQUE_CACHE_LIMIT"
# parts of the cache that are named after their content, and so hold on every machine
SHARED = ("answers", "copies", "embeddings", "iterables", "scores", "tables")
_MARKER = "synque-cache.json"
_FORMAT = 1
_UNSENT = ".unsent"
_ADDRESS_FILE = "address.txt"
_PAUSE_S = 60.0  # after a failure, the store is left alone for this long
_MOST_RANGES = 64  # requests at once
_UNSEEN_SHARE = 0.02  # of the limit: measuring the folder after every file would be slow
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
}
# where a file appears when it is complete; elsewhere it is written beside and then renamed
_ATOMIC = frozenset((*_PACKAGES, "memory"))
_USER = re.compile(r"(?<=://)[^/@]*@")


class _Files(Protocol):
    """What is used of a file system of fsspec."""

    def cat_file(self, path: str) -> bytes: ...
    def cat_ranges(
        self, paths: list[str], starts: list[int], ends: list[int], on_error: str = ...
    ) -> list[object]: ...
    def find(self, path: str, detail: bool = ...) -> dict[str, dict[str, object]]: ...
    def get_file(self, rpath: str, lpath: str) -> object: ...
    def invalidate_cache(self) -> object: ...
    def ls(self, path: str, detail: bool = ...) -> list[object]: ...
    def makedirs(self, path: str, exist_ok: bool = ...) -> object: ...
    def mv(self, path1: str, path2: str) -> object: ...
    def pipe_file(self, path: str, value: bytes) -> object: ...
    def put_file(self, lpath: str, rpath: str) -> object: ...
    def rm_file(self, path: str) -> object: ...


def is_address(given: str | Path | None) -> bool:
    """Whether a cache is given as an address of fsspec, not as a folder.

    Example:
        >>> is_address("s3://bucket/cache"), is_address("~/cache")
        (True, False)
    """
    return isinstance(given, str) and "://" in given


class RemoteCache:
    """A store of cache files and the local folder in front of it.

    Args:
        url: Address of the store.
        beside: Local folder in which the folder of this store is.

    Raises:
        ConfigError: The protocol is unknown, its package is missing, or the store cannot be
            reached.
    """

    def __init__(self, url: str, beside: Path) -> None:
        self.address = without_keys(url)
        without_user = _USER.sub("", url.rstrip("/"))
        scheme, _, rest = without_user.partition("://")
        self._protocol = scheme.rpartition("::")[2]
        bucket = re.sub(r"[^\w.-]+", "-", rest.split("?")[0])[:40].strip("-")
        name = f"{self._protocol}-{bucket}-{hashlib.sha256(without_user.encode()).hexdigest()[:12]}"
        self.local = register_root(beside / "remote" / name)
        self._url = url
        self._limit = _limit()
        self._paused_until = 0.0
        self._unusable: set[str] = set()  # damaged in the store, and not to be removed
        self._is_read_only = False
        self._n_unseen_bytes: int | None = None  # written since the folder was last measured
        self._pid = os.getpid()
        self._start()

    @cached_property
    def _opened(self) -> tuple[_Files, str]:
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self._url, **_options(self._protocol))
        except ImportError as error:
            package = _PACKAGES.get(self._protocol)
            how = f"pip install {package}" if package else one_line(str(error))
            raise ConfigError(
                f"cache_dir={self.address!r}: {self._protocol}:// needs a package that is not "
                f"installed: {how}"
            ) from None
        except ValueError as error:
            raise ConfigError(
                f"cache_dir={self.address!r}: {one_line(without_keys(str(error)))}; allowed is a "
                "folder, or an address that fsspec knows, such as s3://bucket/cache, "
                "gs://bucket/cache or file:///mnt/cache"
            ) from None
        except Exception as error:  # whatever the package of the protocol raises
            raise self._unreachable(error) from None
        return files, str(root).rstrip("/")

    def _files(self) -> tuple[_Files, str]:
        if os.getpid() != self._pid:  # connections and threads do not outlive a fork
            import fsspec.asyn

            fsspec.asyn.reset_lock()
            self.__dict__.pop("_opened", None)
            self._pid = os.getpid()
        return self._opened

    def _start(self) -> None:
        """Look at the store once: a wrong address is an error now, not after hours."""
        files, root = self._files()
        try:
            try:
                state = json.loads(files.cat_file(f"{root}/{_MARKER}"))
            except FileNotFoundError:
                state = {"format": _FORMAT}
                self._put_bytes(_MARKER, json.dumps(state).encode())
        except Exception as error:
            raise self._unreachable(error) from None
        version = state.get("format") if isinstance(state, dict) else state
        if version != _FORMAT:
            raise ConfigError(
                f"cache_dir={self.address!r}: {_MARKER} there has the format "
                f"{one_line(repr(version), 40)}, this version writes {_FORMAT}; give another "
                "address"
            )
        with suppress(OSError):
            note = self.local / _ADDRESS_FILE
            if not note.is_file():
                write_text_atomic(note, self.address)
        self.send_unsent()

    def _unreachable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"cache_dir={self.address!r} cannot be used: {_reason(error)}; check the address, the "
            "credentials and the network, or give a local folder"
        )

    def name_of(self, path: Path) -> str | None:
        """Return the name in the store of a local file; None for one that is not shared."""
        if not path.is_relative_to(self.local):
            return None
        inner = path.relative_to(self.local)
        # scores of mixtures are many and quickly computed
        is_shared = inner.parts[:1] and inner.parts[0] in SHARED and path.suffix != ".txt"
        return inner.as_posix() if is_shared and not path.name.startswith(".") else None

    def fetch(self, path: Path, check: Callable[[Path], object]) -> None:
        """Bring a file that is missing in the local folder, if the store has it.

        Args:
            path: The local file.
            check: Raises a ValueError or an OSError for a file that is not whole; it gets a path
                with the same name in a folder of the same name.
        """
        name = self.name_of(path)
        if name is None or name in self._unusable or self._is_paused() or path.exists():
            return
        place = self.local / f".fetch-{uuid.uuid4().hex}" / path.parent.name / path.name
        try:
            place.parent.mkdir(parents=True)
            files, root = self._files()
            try:
                files.get_file(f"{root}/{name}", str(place))
            except FileNotFoundError:
                return
            except Exception as error:
                self._pause(error)
                return
            try:
                check(place)
            except (ValueError, OSError) as error:
                self._discard(name, error)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            size = place.stat().st_size
            os.replace(place, path)
            self._grown(size)
        except OSError as error:  # of the local folder: the file is computed instead
            _log.warning("%s cannot be kept in %s: %s", name, self.local, error.strerror)
        finally:
            shutil.rmtree(place.parent.parent, ignore_errors=True)

    def publish(self, path: Path) -> None:
        """Send a local file to the store; if that fails, it is sent later, with a note."""
        name = self.name_of(path)
        if name is None:
            return
        note = self._note(name)
        with suppress(OSError):  # a kill while it is sent leaves the note
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        if not self._is_paused() and not self._is_read_only:
            self._send(path, name, note)
        with suppress(OSError):
            self._grown(path.stat().st_size)

    def _send(self, path: Path, name: str, note: Path) -> bool:
        try:
            self._put(name, path)
        except PermissionError as error:
            self._is_read_only = True
            _log.warning(
                "The cache %s cannot be written (%s): what it holds is used, new results are kept "
                "in %s and are sent by the next run that may write.",
                *(self.address, _reason(error), self.local),
            )
            return False
        except Exception as error:
            if path.exists():
                self._pause(error)
                return False
        self._unusable.discard(name)
        with suppress(OSError):
            note.unlink()
        return True

    def send_unsent(self) -> None:
        """Send what earlier processes, or a store that could not be reached, left unsent."""
        n_sent = 0
        for path in unsent_files(self.local):
            name = path.relative_to(self.local).as_posix()
            note = self._note(name)
            if path.is_file():
                if not self._send(path, name, note):
                    break
                n_sent += 1
            else:
                note.unlink(missing_ok=True)
        if n_sent:
            _log.info("%s: sent %s of earlier", self.address, counted(n_sent, "file"))

    def is_unsent(self, path: Path) -> bool:
        """Whether a file is only in the local folder, and waits to be sent."""
        name = self.name_of(path)
        return name is not None and self._note(name).exists()

    def _note(self, name: str) -> Path:
        return self.local / _UNSENT / quote(name, safe="")

    def _put(self, name: str, path: Path) -> None:
        files, root = self._files()
        target = f"{root}/{name}"
        if self._protocol in _ATOMIC:
            files.put_file(str(path), target)
            return
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        part = f"{target.rpartition('/')[0]}/.{uuid.uuid4().hex}.tmp"
        try:
            files.put_file(str(path), part)
            files.mv(part, target)
        except BaseException:
            with suppress(Exception):
                files.rm_file(part)
            raise

    def _put_bytes(self, name: str, content: bytes) -> None:
        files, root = self._files()
        if self._protocol not in _ATOMIC:
            files.makedirs(root, exist_ok=True)
        files.pipe_file(f"{root}/{name}", content)

    def _discard(self, name: str, error: Exception) -> None:
        """Remove a file of the store that is not whole, so that nobody fetches it again."""
        _log.warning(
            "%s in the cache %s is damaged (%s): it is made again", name, self.address, error
        )
        self._unusable.add(name)
        self.remove(name)

    def remove(self, name: str) -> bool:
        """Remove a file of the store; return whether that was possible."""
        files, root = self._files()
        with suppress(Exception):
            files.rm_file(f"{root}/{name}")
            return True
        return False

    def discard(self, path: Path) -> None:
        """Remove the file of the store that belongs to a local one, if it is shared."""
        name = self.name_of(path)
        if name is not None and not self._is_paused():
            self.remove(name)

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files that the store has in a folder, sorted."""
        if self._is_paused():
            return []
        files, root = self._files()
        try:
            files.invalidate_cache()
            inner = folder.relative_to(self.local).as_posix()
            paths = files.ls(f"{root}/{inner}", detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            self._pause(error)
            return []
        names = sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)
        return [name for name in names if f"{inner}/{name}" not in self._unusable]

    def read_ranges(
        self, folder: Path, ranges: Sequence[tuple[str, int, int]]
    ) -> list[bytes | None]:
        """Return parts of files of the store; None for what cannot be read.

        Args:
            folder: The local folder of the files.
            ranges: Name, first byte and last byte (excluded) of each part.
        """
        files, root = self._files()
        inner = folder.relative_to(self.local).as_posix()
        parts: list[bytes | None] = []
        for start in range(0, len(ranges), _MOST_RANGES):
            some = ranges[start : start + _MOST_RANGES]
            try:
                contents = files.cat_ranges(
                    [f"{root}/{inner}/{name}" for name, _, _ in some],
                    [first for _, first, _ in some],
                    [last for _, _, last in some],
                    on_error="return",
                )
            except Exception as error:
                self._pause(error)
                contents = [None] * len(some)
            parts += [part if isinstance(part, bytes) else None for part in contents]
        return parts

    def entries(self) -> list[tuple[str, int, float | None]]:
        """Return name, size and time of the last change of each shared file of the store.

        Raises:
            ConfigError: The store cannot be listed.
        """
        files, root = self._files()
        files_there: list[tuple[str, int, float | None]] = []
        try:
            files.invalidate_cache()
            for part in SHARED:
                with suppress(FileNotFoundError):
                    for path, about in files.find(f"{root}/{part}", detail=True).items():
                        name = str(path).rpartition(f"{root.lstrip('/')}/")[2]
                        files_there.append((name, _size(about), _changed(about)))
        except Exception as error:
            raise self._unreachable(error) from None
        return sorted(files_there)

    def _is_paused(self) -> bool:
        if self._paused_until and time.monotonic() >= self._paused_until:
            self._paused_until = 0.0
            self.send_unsent()
        return bool(self._paused_until)

    def _pause(self, error: Exception) -> None:
        _log.warning(
            "The cache %s cannot be reached (%s): this run goes on with the local copies in %s; "
            "new results are kept there and are sent later.",
            *(self.address, _reason(error), self.local),
        )
        self._paused_until = time.monotonic() + _PAUSE_S

    def _grown(self, n_bytes: int) -> None:
        """Remove the least recently used local copies once they take more than the limit."""
        if self._limit is None:
            return
        if self._n_unseen_bytes is not None:
            self._n_unseen_bytes += n_bytes
            if self._n_unseen_bytes < self._limit * _UNSEEN_SHARE:
                return
        self._n_unseen_bytes = 0
        entries = cache_entries(self.local)
        for entry in chosen_to_remove(
            entries,
            max_bytes=self._limit,
            in_use_since=in_use_since(self.local),
            keep=lambda entry: any(self.is_unsent(path) for path in entry.paths),
        ):
            remove_entry(entry)


def unsent_files(local: Path) -> list[Path]:
    """Return the files of a local folder that its store does not have yet.

    Args:
        local: The folder with the local copies of a store.
    """
    folder = local / _UNSENT
    notes = sorted(folder.iterdir()) if folder.is_dir() else []
    return [local / unquote(note.name) for note in notes]


def _size(about: Mapping[str, object]) -> int:
    size = about.get("size")
    return size if isinstance(size, int) else 0


def _limit() -> int | None:
    given = os.environ.get(LIMIT_VARIABLE)
    return parse_size(LIMIT_VARIABLE, given) if given else None


def _options(protocol: str) -> dict[str, bool]:
    if protocol in _PACKAGES:
        # files of others appear between two looks: listings must not be kept
        return {"use_listings_cache": False}
    return {"auto_mkdir": True} if protocol in ("file", "local") else {}


def _reason(error: Exception) -> str:
    return one_line(without_keys(f"{type(error).__name__}: {error}"), 300)


def _changed(about: Mapping[str, object]) -> float | None:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = about.get(key)
        if isinstance(value, str):  # Google's
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


_OPEN: dict[tuple[str, Path], RemoteCache] = {}


def open_remote(url: str, beside: Path) -> RemoteCache:
    """Return the store of an address, opened once per process.

    Args:
        url: The address.
        beside: Local folder for copies of files of stores.

    Raises:
        ConfigError: The store cannot be used; see `RemoteCache`.
    """
    key = (url, beside)
    if key not in _OPEN:
        _OPEN[key] = RemoteCache(url, beside)
    return _OPEN[key]


def remote_of(path: Path) -> RemoteCache | None:
    """Return the store that a file or folder of the cache belongs to; None for a local cache."""
    return next((r for r in _OPEN.values() if path.is_relative_to(r.local)), None)


def fetch(path: Path, check: Callable[[Path], object]) -> None:
    """Bring a missing file of the cache from its store, if it has one; see `RemoteCache.fetch`."""
    if (remote := remote_of(path)) is not None:
        remote.fetch(path, check)


def publish(path: Path) -> None:
    """Send a new file of the cache to its store, if it has one; see `RemoteCache.publish`."""
    if (remote := remote_of(path)) is not None:
        remote.publish(path)
