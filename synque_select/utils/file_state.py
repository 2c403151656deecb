"""What tells whether a file is still the one that was read before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["FileState", "file_state", "settled_state"]

# file systems count time in ticks of up to 10 ms: two changes within one look like one
_TICK_NS = 20_000_000


class FileState(NamedTuple):
    """Size, times and identity of a file.

    The time of change cannot be set by a program, and a file that replaces another one has another
    inode: content of the same size with a restored modification time is noticed.

    Args:
        size: Size in bytes.
        mtime_ns: Time of the last modification of the content.
        ctime_ns: Time of the last change of the content, the name or the permissions.
        inode: Number of the file in its file system.
        device: Number of the file system.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def file_state(path: Path) -> FileState:
    """Return the state of a file.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    return FileState(status.st_size, *times, status.st_ino, status.st_dev)


def settled_state(path: Path) -> FileState:
    """Return the state of a file of which a later change is sure to be seen.

    A file that was written a moment ago could change again within the same tick of the clock; this
    waits for the next tick.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    state = file_state(path)
    if 0 <= time.time_ns() - state.ctime_ns < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
        state = file_state(path)
    return state
