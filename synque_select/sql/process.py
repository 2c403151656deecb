"""Processes for untrusted input: started with nothing of the user's, limited, and replaceable."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TypeAlias, cast

__all__ = ["Limits", "LineProcess", "resource_limits"]

Limits: TypeAlias = dict[str, int]
"""Resource limits by the name of the constant in `resource`."""

_MEBIBYTE = 2**20
_CHUNK_BYTES = _MEBIBYTE


def resource_limits(*, memory_mb: int, cpu_s: int | None = None) -> Limits:
    """Return the limits of a process that reads untrusted input and writes to a pipe only.

    Args:
        memory_mb: Limit of its address space, in MiB.
        cpu_s: Limit of its processor time, in seconds; None for no limit.
    """
    chosen = {
        "RLIMIT_AS": memory_mb * _MEBIBYTE,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 16,
    }
    return chosen if cpu_s is None else {**chosen, "RLIMIT_CPU": cpu_s}


class LineProcess:
    """A script that answers each line of JSON with one line; a new one replaces one that ended.

    It gets neither environment variables nor the packages of the user. Threads take turns; a
    process that is forked from this one starts a script of its own.

    Args:
        script: Path of the script.
        options: What it needs to know, passed as JSON in its argument.
        max_answer_bytes: Longest answer; the script is stopped if it writes more.
    """

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self, script: Path, options: object, *, max_answer_bytes: int) -> None:
        self._command = [sys.executable, "-I", "-S", str(script), json.dumps(options)]
        self._max_answer_bytes = max_answer_bytes
        self._owner = os.getpid()
        self._turn = threading.Lock()

    def ask(self, question: object, *, wait_s: float) -> str | None:
        """Return the answer to a question; None if the script ends or takes too long.

        Args:
            question: A value that JSON can hold.
            wait_s: Longest wait, in seconds; the script is killed after it.
        """
        with self._turn:
            if self._owner != os.getpid():
                # of the process that this one was forked from, which still uses it
                self._process, self._owner = None, os.getpid()
            process = self._running()
            # Popen types its pipes as optional; _running always opens them
            stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
            try:
                stdin.write(json.dumps(question).encode() + b"\n")
                stdin.flush()
            except BrokenPipeError:
                answer = b""
            else:
                answer = self._line(stdout.fileno(), time.monotonic() + wait_s)
            if answer.endswith(b"\n"):
                return answer.decode()
            self._stop()
            return None

    def close(self) -> None:
        """Stop the script; the next question starts a new one."""
        with self._turn:
            self._stop()

    def __del__(self) -> None:
        self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _line(self, pipe: int, deadline: float) -> bytes:
        """Read to the end of a line; without one, the script ended, wrote too much or was late."""
        # not select, which takes no descriptor above 1023
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        chunks: list[bytes] = []
        n_bytes = 0
        while (left := deadline - time.monotonic()) > 0 and n_bytes <= self._max_answer_bytes:
            if ready.poll(1000 * left):
                chunk = os.read(pipe, _CHUNK_BYTES)
                chunks.append(chunk)
                n_bytes += len(chunk)
                if not chunk or chunk.endswith(b"\n"):
                    return b"".join(chunks)
        return b""
