"""Ctrl-C ends a command within about a second, whatever library computes at that moment.

Python delivers an interrupt only between two of its own instructions: a matrix product or a parser
in C delays it until it returns, and the end of a process waits for its threads. A thread of its own
notices the signal at once, and ends the process if the main thread does not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["INTERRUPTED", "PromptInterrupts", "end_process"]

INTERRUPTED = 130  # exit status of a process that was interrupted

_STUCK_S = 0.3
_STEP_S = 0.05


def end_process(number: int, frame: FrameType | None) -> None:
    """End the process with one line: the handler of interrupts outside of `PromptInterrupts`.

    An exception, as Python raises it, is a traceback while modules are imported, and is lost where
    it arises in a callback of the interpreter.
    """
    os.write(2, b"\nsynque-select: interrupted\n")
    os._exit(INTERRUPTED)


class PromptInterrupts:
    """Context manager that ends the process if an interrupt is not obeyed in time.

    What was written by then is kept, as all files are written completely or not at all. It does
    nothing outside the main thread, or where the program has a handler of its own.

    Args:
        message: Returns what to print if the process is ended.
        cleanup_s: Seconds that the main thread may take to clean up after the interrupt reached it.
        ends_process: Whether the process ends with the block if there was an interrupt.

    Attributes:
        happened: Whether there was an interrupt.
    """

    def __init__(
        self, message: Callable[[], str], *, cleanup_s: float = 0.5, ends_process: bool = False
    ) -> None:
        self.happened = False
        self._message, self._cleanup_s, self._ends_process = message, cleanup_s, ends_process
        self._has_arrived = self._has_left = self._is_printed = False
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1
        self._handler_before = signal.getsignal(signal.SIGINT)

    def note_printed(self) -> None:
        """Note that the message was printed."""
        self._is_printed = True

    def __enter__(self) -> PromptInterrupts:
        is_ours = self._handler_before in (signal.default_int_handler, end_process)
        if is_ours and threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            signal.signal(signal.SIGINT, self._arrive)
            self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._pipe is None:
            return
        if self.happened and self._ends_process:
            # not a normal exit: it would wait for threads and free memory in its own time
            atexit._run_exitfuncs()
            self._end()
        signal.set_wakeup_fd(self._wakeup_before)
        signal.signal(signal.SIGINT, self._handler_before)
        self._has_left = True
        # ends the thread, which reads to the end; nothing writes to this number any more, which may
        # be that of another file from now on
        os.close(self._pipe[1])

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        self.happened = self._has_arrived = True
        if self._ends_process:
            # models that are closed on the way out collect garbage: a third of a second with all
            # libraries loaded, in which no other thread runs; the end frees the memory anyway
            gc.freeze()
        signal.default_int_handler(number, frame)

    def _watch(self) -> None:
        assert self._pipe is not None
        reader = self._pipe[0]
        while number := os.read(reader, 1):
            if number == bytes([signal.SIGINT]) and not self._has_left:
                self.happened = True
                self._wait(reader)
        os.close(reader)

    def _wait(self, reader: int) -> None:
        """Return when the block was left; end the process if it is not in time."""
        began = time.monotonic()
        while not self._has_left:
            waited = time.monotonic() - began
            limit = self._cleanup_s if self._has_arrived else _STUCK_S
            is_asked_again = bool(select.select([reader], [], [], _STEP_S)[0])
            if (waited > limit or is_asked_again) and not self._has_left:
                self._end()

    def _end(self) -> None:
        if not self._is_printed:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self._message()}\n".encode("utf-8", "backslashreplace"))
        # not imported here: the main thread may hold the lock of imports
        processes = sys.modules.get("multiprocessing")
        for child in () if processes is None else processes.active_children():
            child.terminate()
        os._exit(INTERRUPTED)
