"""Progress bars, which are sparse lines where nobody watches them, as in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

__all__ = ["ProgressBar"]

_LINE_S = 30.0
_LINE = "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):  # type: ignore[type-arg]  # not generic when it runs
    """A bar of tqdm on stderr; where that is no terminal, a line every 30 seconds.

    Example:
        >>> with ProgressBar(total=2, desc="two", file=sys.stdout) as bar:
        ...     bar.update(2)  # nothing is said of what takes less than 30 seconds
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        shown = options.get("file") or sys.stderr
        # a notebook draws bars, though its stream is no terminal
        self._as_lines = not shown.isatty() and "ipykernel" not in sys.modules
        self._began, self._said = time.monotonic(), 0.0
        if self._as_lines:
            options = {**options, "bar_format": _LINE}
        super().__init__(*args, **options)
        if self._as_lines and not self.disable and self.desc:
            self.set_description(self.desc, refresh=False)  # which ends it with a colon

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line if the last one is old."""
        if not self._as_lines:
            super().display(msg, pos)
        elif time.monotonic() - max(self._said, self._began) >= _LINE_S:
            self._say()

    def clear(self, nolock: bool = False) -> None:
        """Take the bar away; lines stay."""
        if not self._as_lines:
            super().clear(nolock)

    def close(self) -> None:
        """End it: with a last line where there was one before."""
        if not self._as_lines:
            super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]  # the stubs lack it
            if self._said:
                self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        self.fp.write(f"{self}\n")
        self.fp.flush()
