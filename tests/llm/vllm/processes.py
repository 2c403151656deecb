"""Which processes are there, for the tests of what is left of vLLM's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_PARENT, _GROUP = 1, 2


def group_of(group: int) -> list[int]:
    """Processes of a group that are more than a number."""
    return [pid for pid, fields in _running() if int(fields[_GROUP]) == group]


def family_of(parent: int) -> list[int]:
    """A process and all that it started, and that those started."""
    running, found = list(_running()), [parent]
    for process in found:
        found += [pid for pid, fields in running if int(fields[_PARENT]) == process]
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid, _ in _running() if pid in pids]


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()


def wait_until(what: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return what()


def _running() -> list[tuple[int, list[str]]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found.append((int(stat.parent.name), fields))
    return found
