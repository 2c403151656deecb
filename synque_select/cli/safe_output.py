"""Output streams that cannot fail, so that printing never costs a result."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["SafeStream", "safe_output"]


class SafeStream:
    r"""A text stream whose reader may go away, or that cannot encode every character.

    Characters that it cannot encode are escaped, such as `\u8bcd`. After the first failed write,
    everything is discarded. All else is the stream's own.

    Args:
        stream: The stream, such as `sys.stdout`.

    Attributes:
        problem: Why output was lost; None if it was not, or if the reader closed the pipe, as
            `head` does.
    """

    def __init__(self, stream: TextIO) -> None:
        self.problem: OSError | None = None
        self._stream = stream
        self._is_lost = False

    def write(self, text: str) -> int:
        """Write what can be written; see `io.TextIOBase.write`."""
        if not self._is_lost:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        if not self._is_lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        self._is_lost = True
        self.problem = None if error.errno == errno.EPIPE else error
        # what is left in the buffer would fail again when the interpreter exits
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def safe_output() -> Iterator[SafeStream | None]:
    """Make `sys.stdout` and `sys.stderr` safe for the duration of a command.

    Yields:
        The safe standard output; None if the process has none.
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        # without one, print would write errors to the standard output
        stderr = before[1] or stack.enter_context(open(os.devnull, "w"))
        output = None if before[0] is None else SafeStream(before[0])
        errors = SafeStream(stderr)
        sys.stdout, sys.stderr = output, errors
        try:
            yield output
        finally:
            for stream in (output, errors):
                if stream is not None:
                    stream.flush()  # a closed pipe shows here, not when the interpreter exits
            sys.stdout, sys.stderr = before
