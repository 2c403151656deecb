"""Cache of the hashes of a large file's views, keyed by its path, size and modification time."""

from __future__ import annotations

import hashlib
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
from synque_select.utils.atomic import atomic_file
from synque_select.utils.cache_dir import default_cache_dir

__all__ = ["keep_digests"]

_FORMAT_VERSION = 1
_Kind = TypeVar("_Kind", bound=Examples)


def keep_digests(examples: _Kind) -> _Kind:
    """Let examples read their digests from the cache as long as their file is unchanged.

    A file counts as unchanged if its path, size and modification time are the same. Small files
    are not cached, nor are views that are functions, because their code may have changed.

    Args:
        examples: Examples whose `source` is a file; others are left as they are.

    Returns:
        The same examples.
    """
    path = Path(examples.source or ".")
    with suppress(OSError):
        stat = path.stat()
        if path.is_file() and stat.st_size > tables.SMALL_BYTES and not callable(examples.view):
            state = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
            key = [_FORMAT_VERSION, *state, examples.selector, examples.modality, len(examples)]
            name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
            file = default_cache_dir() / "digests" / f"{name}.npy"
            examples.read_digests_with(partial(_digests, file, len(examples)))
    return examples


def _digests(file: Path, n: int, compute: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    with suppress(OSError, ValueError, EOFError):  # the cached file is missing or broken
        kept: NDArray[np.uint8] = np.load(file, allow_pickle=False)
        if kept.shape == (n, 32) and kept.dtype == np.uint8:
            return kept
    digests = compute()
    # a cache that cannot be written only costs time
    with suppress(OSError), atomic_file(file) as stream:
        np.save(stream, digests, allow_pickle=False)
    return digests
