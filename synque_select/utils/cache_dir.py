"""Where what can be computed again is kept."""

from __future__ import annotations

import atexit
import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from synque_select.errors import ConfigError
from synque_select.utils.cache_files import register_root
from synque_select.utils.remote_cache import is_address, open_remote

__all__ = [
    "cache_root",
    "default_cache_dir",
    "is_disk_full",
    "local_copies_dir",
    "note_not_written",
    "reason_of",
    "temporary_twin",
    "writable_twin",
    "write_in_cache",
]

_log = logging.getLogger(__name__)
_DEFAULT = "~/.cache/synque-select"
_SLASH_LOST = re.compile(r"[A-Za-z][\w+.-]+:/")
_T = TypeVar("_T")


def default_cache_dir() -> Path:
    """Return $SYNQUE_CACHE, or ~/.cache/synque-select; a leading ~ is the home directory.

    Raises:
        ConfigError: It is an address of a store that cannot be used.
    """
    return cache_root(os.environ.get("SYNQUE_CACHE") or _DEFAULT)


def cache_root(given: str | Path | None) -> Path:
    """Return the folder of the cache that is given; None for `default_cache_dir`.

    For an address such as s3://bucket/cache, this is the local folder that is in front of the
    store; see `synque_select.utils.remote_cache`.

    Raises:
        ConfigError: It is an address of a store that cannot be used.
    """
    if given is None:
        return default_cache_dir()
    if isinstance(given, str) and is_address(given):
        return open_remote(given, _usable(local_copies_dir())).local
    if isinstance(given, Path) and _SLASH_LOST.match(str(given)):
        raise ConfigError(
            f"cache_dir={str(given)!r} is a Path: give an address as a text, because a Path "
            "drops one of its slashes"
        )
    return register_root(Path(os.path.expanduser(given)))


def local_copies_dir() -> Path:
    """Return the folder with the local copies of what is in stores.

    It is $SYNQUE_CACHE_LOCAL, or else $SYNQUE_CACHE if that is a folder, or else
    ~/.cache/synque-select.
    """
    default = os.environ.get("SYNQUE_CACHE") or _DEFAULT
    local = os.environ.get("SYNQUE_CACHE_LOCAL") or (_DEFAULT if is_address(default) else default)
    return Path(os.path.expanduser(local))


@lru_cache(maxsize=8)
def _usable(folder: Path) -> Path:
    return writable_twin(folder)


def writable_twin(folder: Path) -> Path:
    """Return a folder of the cache; if it cannot be written, a temporary one in its place.

    Args:
        folder: The folder; it is created if it is missing.

    Raises:
        OSError: Temporary files cannot be written, either.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        note_not_written(folder, error)
    twin = temporary_twin(folder)
    twin.mkdir(parents=True, exist_ok=True)
    return twin


def write_in_cache(folder: Path, write: Callable[[Path], _T]) -> _T:
    """Write to a folder of the cache; if that fails, to a temporary one, with a note.

    Args:
        folder: The folder; it is created if it is missing.
        write: Writes completely or not at all to the folder that it is given. It is called again
            with the temporary folder if it raises an OSError, as on a full disk.

    Raises:
        OSError: Temporary files cannot be written, either.
    """
    place, twin = writable_twin(folder), temporary_twin(folder)
    try:
        return write(place)
    except OSError as error:
        if place == twin:
            raise
        note_not_written(folder, error)
    twin.mkdir(parents=True, exist_ok=True)
    return write(twin)


def is_disk_full(error: OSError) -> bool:
    """Whether a file cannot grow: the disk or the quota is full, or its size is limited."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def temporary_twin(folder: Path) -> Path:
    """Return the temporary folder in the place of one that cannot be written; it may not exist."""
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return _temporary_root() / name / folder.name


def note_not_written(folder: Path, error: OSError) -> None:
    """Say once per folder of the cache that it cannot be written."""
    _note_once(str(folder), reason_of(error))


def reason_of(error: OSError) -> str:
    """Return why a file cannot be written, without what Arrow adds to it."""
    return str(error) if error.errno is None else os.strerror(error.errno)


@lru_cache(maxsize=256)
def _note_once(folder: str, reason: str) -> None:
    _log.warning(
        "The cache folder %s cannot be written (%s): what it holds is used, new results are lost "
        "when this process ends. Set SYNQUE_CACHE to a folder that can be written to keep them.",
        *(folder, reason),
    )


@lru_cache(maxsize=1)
def _temporary_root() -> Path:
    root = Path(tempfile.gettempdir()) / f"synque-select-{os.getpid()}-{os.urandom(4).hex()}"
    atexit.register(_remove, root, os.getpid())
    return root


def _remove(root: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process that ends must not remove its parent's files
        shutil.rmtree(root, ignore_errors=True)
