"""Progress bars that become sparse lines in a log file.

Built on tqdm and not on rich: rich writes nothing to a log file until a bar ends, and its live
display hides the tqdm bars of Lightning and other packages. In a notebook a bar is an output that
is updated and, at its end, emptied: tqdm's own bars there look broken without ipywidgets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

__all__ = ["ProgressBar"]

_LINE_S = 30.0
_LINE = "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_LINE_WITHOUT_TOTAL = "{desc}{n_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):  # type: ignore[type-arg]  # not generic when it runs
    """A tqdm bar on stderr or in a notebook; a line every 30 seconds where there is neither.

    `unit` is a noun in the singular; a bar shows "2.50 calls/s", or "3.20s/call" below one per
    second.

    Example:
        >>> with ProgressBar(total=2, desc="two", file=sys.stdout) as bar:
        ...     bar.update(2)  # less than 30 seconds: no line
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        shown = options.get("file") or sys.stderr
        is_terminal = shown is not None and shown.isatty()
        # a stream that was redirected in a notebook is another one
        self._in_notebook = type(shown).__module__.startswith("ipykernel.")
        self._as_lines = not is_terminal and not self._in_notebook
        self._cell: DisplayHandle | None = None
        self._began, self._last_line = time.monotonic(), 0.0
        self._delay = float(options.get("delay", 0))
        if self._as_lines:
            options = {**options, "bar_format": _LINE}
        if shown is None:  # a process without stderr
            options["disable"] = True
        super().__init__(*args, **options)
        if not self.disable and self.desc:
            self.set_description(self.desc, refresh=False)  # appends the colon

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """The values that a bar shows, with the unit in the number that the rate needs."""
        values = super().format_dict
        if "unit_scale" not in values:  # of a bar that was never shown
            return values
        if values["total"] is None:
            values["bar_format"] = _LINE_WITHOUT_TOTAL
        if not values["unit_scale"]:  # bytes: "1.20MB/s"
            elapsed, done = values["elapsed"], values["n"] - values["initial"]
            rate = values["rate"] or (done / elapsed if elapsed else 0.0)
            values["unit"] = values["unit"] if 0 < rate < 1 else f" {_plural(values['unit'])}"
        return values

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line if the last one is 30 seconds old."""
        if not self._as_lines:
            if time.monotonic() < self._began + self._delay:  # tqdm forgets it for a postfix
                return
            with self._until_closed():
                if self._in_notebook:
                    self._draw_in_cell(str(self) if msg is None else msg)
                else:
                    super().display(msg, pos)
        elif time.monotonic() - max(self._last_line, self._began) >= _LINE_S:
            self._write_line()

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar; lines stay."""
        if self._in_notebook:
            if self._cell is not None:
                self._draw_in_cell("")
        elif not self._as_lines:
            with self._until_closed():
                super().clear(nolock)

    def close(self) -> None:
        """Close the bar; write a last line if there was one before."""
        if self._in_notebook and not self.disable:
            if self._cell is not None:
                self._draw_in_cell(str(self) if self.leave else "")
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]  # the stubs lack it
        elif not self._as_lines:
            with self._until_closed():
                super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]  # the stubs lack it
            if self._last_line:
                self._write_line()

    def _draw_in_cell(self, text: str) -> None:
        """Show a text as the bar's own output of the notebook."""
        from IPython.display import display

        shown = {"text/plain": text}
        if self._cell is None:
            self._cell = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._cell.update(shown, raw=True)  # type: ignore[no-untyped-call]

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


def _plural(noun: str) -> str:
    """Return the plural of a regular noun."""
    return f"{noun[:-1]}ies" if noun[-1:] == "y" and noun[-2:-1] not in "aeiou" else f"{noun}s"
