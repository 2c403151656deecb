"""Cache of the hashes of a large file's views, keyed by its path and state."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from synque_select.data import tables
from synque_select.data.examples import Examples
from synque_select.utils.cache_dir import default_cache_dir, note_not_written
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.file_state import FileState, settled_state

__all__ = ["keep_digests", "large_file_state"]

_FORMAT_VERSION = 3
_Kind = TypeVar("_Kind", bound=Examples)


def large_file_state(path: Path) -> FileState | None:
    """Return the state of a file whose digests are worth keeping; None for a small one.

    It must be taken before the file is read: should the file change afterwards, its digests are
    kept under a state that no file will have again.
    """
    with suppress(OSError):
        if path.is_file() and path.stat().st_size > tables.SMALL_BYTES:
            return settled_state(path)
    return None


def keep_digests(examples: _Kind, state: FileState | None) -> _Kind:
    """Let examples read their digests from the cache as long as their file is unchanged.

    Views that are functions are not cached, because their code may have changed.

    Args:
        examples: Examples whose `source` is a file.
        state: What `large_file_state` returned for the file before it was read; None for examples
            whose digests are not cached.

    Returns:
        The same examples.
    """
    if state is not None and not callable(examples.view):
        path = str(Path(examples.source).resolve())
        key = [_FORMAT_VERSION, path, state, examples.selector, examples.modality, len(examples)]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        file = default_cache_dir() / "digests" / f"{name}.npy"
        examples.read_digests_with(partial(_digests, file, len(examples)))
    return examples


def _digests(file: Path, n: int, compute: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    try:
        kept: NDArray[np.uint8] = np.load(io.BytesIO(read_checked(file)), allow_pickle=False)
        if kept.shape == (n, 32) and kept.dtype == np.uint8:
            return kept
    except OSError:
        pass
    except ValueError as error:  # also damaged files
        remove_damaged(file, error)
    digests = compute()
    try:
        with checksummed_file(file) as stream:
            np.save(stream, digests, allow_pickle=False)
    except OSError as error:
        note_not_written(file.parent, error)
    return digests
