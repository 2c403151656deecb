"""The group of processes that vLLM starts: ending it, and finding out why it ended."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["error_causes", "kill_group", "shared_memory_of"]

_SHARED = Path("/dev/shm")
# prefixes of Python's shared memory and semaphores, and of vLLM's kernels for CPUs
_SHARED_NAMES = ("psm_", "sem.mp-", "vllm_")
# prefix that vLLM's logger puts before a line
_LOGGED = re.compile(r"^\([^)]*\) [A-Z]+ [\d-]+ [\d:]+ \[[^]]*] ?")
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*\S")
_DETAILS = re.compile(r" \[type=\w+, input_value=.*")  # of pydantic
# errors that only report that another process failed
_ELSEWHERE = ("initialization failed", "Error raised in subprocess", "failed to be inspected")


def kill_group(group: int) -> None:
    """Kill a group of processes and remove the named shared memory that they use.

    Processes that are killed leave such memory behind, also those that vLLM itself kills.

    Args:
        group: Id of the process group.
    """
    for name in shared_memory_of(group):
        (_SHARED / name).unlink(missing_ok=True)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def shared_memory_of(group: int) -> set[str]:
    """Return the names of the shared memory that the processes of a group use.

    Args:
        group: Id of the process group.
    """
    names = set()
    for process in _members(group):
        # a process may end while it is read
        with suppress(OSError):
            for line in (process / "maps").read_text("utf-8", "replace").splitlines():
                name = line.partition(f"{_SHARED}/")[2]
                if name.startswith(_SHARED_NAMES) and not name.endswith("(deleted)"):
                    names.add(name)
    return names


def _members(group: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # the name of the program, in brackets, may contain spaces and brackets
            fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            if int(fields[2]) == group:
                yield process


def error_causes(lines: Sequence[str]) -> list[str]:
    """Return the errors in the last lines of a program that failed, each once, in order.

    Errors that only report a failure in another process are left out if there are others.

    Args:
        lines: Lines of the program's standard error.

    Example:
        >>> error_causes(["Traceback (most recent call last):", '  File "a.py"', "ValueError: no"])
        ['ValueError: no']
    """
    plain = [_LOGGED.sub("", line) for line in lines]
    errors = []
    for line, following in zip(plain, [*plain[1:], ""], strict=True):
        if _ERROR.match(line):
            # pydantic writes what is wrong on the line after
            more = following if following.startswith("  ") else ""
            errors.append(_DETAILS.sub("", f"{line.strip()} {more.strip()}".strip()))
    causes = [error for error in errors if not any(text in error for text in _ELSEWHERE)]
    return list(dict.fromkeys(causes or errors))
