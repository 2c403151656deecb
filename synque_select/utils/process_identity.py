"""The identity of a process, by which another process can tell that it has ended."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["has_ended", "is_local", "process_identity"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ENDED = "ZX"  # states of a process that has ended and that its parent has not waited for


def process_identity() -> str:
    """Return a text that no other process has: machine and boot, process id, time of its start.

    Example:
        >>> process_identity() == process_identity(), has_ended(process_identity())
        (True, False)
    """
    pid = os.getpid()
    started = _started(pid)
    # without /proc no other process can tell
    place = _place() if started is not None else f"unknown-{uuid.getnode():x}"
    return f"{place} {pid} {started or 0}"


def has_ended(identity: str) -> bool:
    """Return whether a process has certainly ended; False for those of other machines.

    Args:
        identity: What `process_identity` returned in that process.
    """
    if not is_local(identity):
        return False
    pid, _, started = identity.partition(" ")[2].partition(" ")
    return _started(int(pid)) != started


def is_local(identity: str) -> bool:
    """Return whether a process is, or was, on this machine, where its end can be noticed."""
    return identity.partition(" ")[0] == _place()


def _place() -> str | None:
    """Return the machine since its last boot, and the container, within which a pid is unique."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    try:
        # the name of the program, in brackets, may contain anything
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _ENDED else fields[19]
