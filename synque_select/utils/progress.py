"""Progress bars that become sparse lines in a log file.

Built on tqdm and not on rich: rich writes nothing to a log file until a bar ends, and its live
display hides the tqdm bars of Lightning and other packages.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["ProgressBar"]

_LINE_S = 30.0
_LINE = "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):  # type: ignore[type-arg]  # not generic when it runs
    """A tqdm bar on stderr; if stderr is not a terminal, a line every 30 seconds.

    Example:
        >>> with ProgressBar(total=2, desc="two", file=sys.stdout) as bar:
        ...     bar.update(2)  # less than 30 seconds: no line
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        shown = options.get("file") or sys.stderr
        # a notebook draws bars although its stream is not a terminal
        is_terminal = shown is not None and shown.isatty()
        self._as_lines = not is_terminal and "ipykernel" not in sys.modules
        self._began, self._last_line = time.monotonic(), 0.0
        if self._as_lines:
            options = {**options, "bar_format": _LINE}
        if shown is None:  # a process without stderr
            options["disable"] = True
        super().__init__(*args, **options)
        if self._as_lines and not self.disable and self.desc:
            self.set_description(self.desc, refresh=False)  # appends the colon

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line if the last one is 30 seconds old."""
        if not self._as_lines:
            with self._until_closed():
                super().display(msg, pos)
        elif time.monotonic() - max(self._last_line, self._began) >= _LINE_S:
            self._write_line()

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar; lines stay."""
        if not self._as_lines:
            with self._until_closed():
                super().clear(nolock)

    def close(self) -> None:
        """Close the bar; write a last line if there was one before."""
        if not self._as_lines:
            with self._until_closed():
                super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]  # the stubs lack it
            if self._last_line:
                self._write_line()

    def _write_line(self) -> None:
        self._last_line = time.monotonic()
        with self._until_closed():
            self.fp.write(f"{self}\n")
            self.fp.flush()

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        """Stop drawing when nobody reads the stream any more: the work goes on."""
        try:
            yield
        except (OSError, ValueError):  # a closed pipe, a full disk; a closed stream
            self.disable = True
