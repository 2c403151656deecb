"""The processes of a Ray cluster of a test, which have its mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["end_processes_with", "processes_with"]


def processes_with(mark: str) -> dict[int, str]:
    """Return the commands of the processes that have a text in their environment, by id."""
    commands = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_text().replace("\0", " ")
                    commands[int(folder.name)] = command.strip()
            except OSError:  # ended, or of another user
                continue
    return commands


def end_processes_with(mark: str) -> None:
    """Kill them: daemons of a cluster outlive the process that started them."""
    for process in processes_with(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
