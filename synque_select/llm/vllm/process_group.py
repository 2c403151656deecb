"""The group of processes that vLLM starts: how it ends, and why it did."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["causes_of", "end_group", "shared_memory_of"]

_SHARED = Path("/dev/shm")
# of Python's shared memory and semaphores, and of vLLM's kernels for CPUs
_SHARED_NAMES = ("psm_", "sem.mp-", "vllm_")
_LOGGED = re.compile(r"^\([^)]*\) [A-Z]+ [\d-]+ [\d:]+ \[[^]]*] ?")
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*\S")
_DETAILS = re.compile(r" \[type=\w+, input_value=.*")  # pydantic's
_ELSEWHERE = ("initialization failed", "Error raised in subprocess", "failed to be inspected")


def end_group(group: int) -> None:
    """Kill a group of processes, with the shared memory that they hold by name.

    A process that is killed leaves such memory behind, and so does one that vLLM ends itself.
    """
    for name in shared_memory_of(group):
        (_SHARED / name).unlink(missing_ok=True)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def shared_memory_of(group: int) -> set[str]:
    """Return the names of the shared memory that processes of a group hold."""
    found = set()
    for process in _members(group):
        with suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                name = line.partition(f"{_SHARED}/")[2]
                if name.startswith(_SHARED_NAMES) and not name.endswith("(deleted)"):
                    found.add(name)
    return found


def _members(group: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # the name of a program, in brackets, may hold anything
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                yield process


def causes_of(lines: Sequence[str]) -> list[str]:
    """Return the errors among a dying program's last lines, each once, the first one first.

    Those that only say that there was one elsewhere are left out where there is another.

    Example:
        >>> causes_of(["Traceback (most recent call last):", '  File "a.py"', "ValueError: no"])
        ['ValueError: no']
    """
    plain = [_LOGGED.sub("", line) for line in lines]
    found = []
    for line, following in zip(plain, [*plain[1:], ""], strict=True):
        if _ERROR.match(line):
            more = following if following.startswith("  ") else ""
            found.append(_DETAILS.sub("", f"{line.strip()} {more.strip()}".strip()))
    telling = [error for error in found if not any(word in error for word in _ELSEWHERE)]
    return list(dict.fromkeys(telling or found))
