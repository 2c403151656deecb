"""Where what can be computed again is kept."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

__all__ = ["default_cache_dir", "note_not_written", "temporary_twin", "writable_twin"]

_log = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Return $SYNQUE_CACHE, or ~/.cache/synque-select."""
    return Path(os.environ.get("SYNQUE_CACHE") or Path.home() / ".cache" / "synque-select")


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


def temporary_twin(folder: Path) -> Path:
    """Return the temporary folder in the place of one that cannot be written; it may not exist."""
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return _temporary_root() / name / folder.name


def note_not_written(folder: Path, error: OSError) -> None:
    """Say once per folder of the cache that it cannot be written."""
    _note_once(str(folder), error.strerror or str(error))


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
