"""Running processes, for tests that vLLM leaves none behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_PARENT, _GROUP = 1, 2


def group_of(group: int) -> list[int]:
    """Return the processes of a group that have not ended."""
    return [pid for pid, fields in _running() if int(fields[_GROUP]) == group]


def family_of(parent: int) -> list[int]:
    """Return a process and all of its descendants."""
    running, family = list(_running()), [parent]
    for process in family:
        family += [pid for pid, fields in running if int(fields[_PARENT]) == process]
    return family


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
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            processes.append((int(stat.parent.name), fields))
    return processes
