"""How results show themselves: a line in a console, a table in a notebook, a pandas DataFrame."""

from __future__ import annotations

import html
import textwrap
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synque_select.errors import DependencyError
from synque_select.utils.wording import UNDEFINED, counted, one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["BLUE", "GREY", "INK", "Shown", "drawable", "html_block", "new_axes", "set_names"]

# the palette of Okabe and Ito, which all common kinds of color blindness can distinguish
BLUE, GREY, INK = "#0072B2", "#8A94A3", "#1B2430"

_MOST_ROWS = 40  # of a table in a notebook
_MOST_CHARACTERS = 160  # of a text form
_NAME_WIDTH = 40  # of a name on an axis, in characters


class Shown(ABC):
    """A result that shows itself; its class says which sentences and which table.

    Dataclasses that inherit it need `repr=False`, or dataclasses write a text form of all fields.
    """

    @property
    @abstractmethod
    def headlines(self) -> tuple[str, ...]:
        """What a reader must see before the table, the most important first."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the table."""
        return ()

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Return the result as a pandas DataFrame."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {one_line(self.headlines[0], _MOST_CHARACTERS)}>"

    def __str__(self) -> str:
        """Return the sentences, and the table between them."""
        table = self._table()
        rows = table.to_string(index=False, max_rows=_MOST_ROWS) if len(table) else ""
        above, below = (
            "\n".join(one_line(text, len(text) + 1) for text in texts)
            for texts in (self.headlines, self.notes)
        )
        return "\n\n".join(part for part in (above, rows, below) if part)

    def _repr_html_(self) -> str:
        """Return what a notebook shows; every text of the data is escaped."""
        table, rest = self._table(), ""
        if len(table) > _MOST_ROWS:
            rest = f"<p>{_MOST_ROWS} of {counted(len(table), 'row')}; to_frame() has all.</p>"
            table = table.head(_MOST_ROWS)
        body = table.to_html(escape=True, index=False, border=0) if len(table) else ""
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in self.notes)
        return html_block(self.headlines, f"{body}{rest}{notes}")

    def _table(self) -> pd.DataFrame:
        """Return the frame as texts, with rounded figures."""
        frame = self.to_frame()
        if any(name is not None for name in frame.index.names):
            frame = frame.reset_index()
        return frame.astype(object).map(_cell)


def html_block(sentences: Sequence[str], rest: str = "") -> str:
    """Return sentences as HTML, the first in bold; dollar signs in them are not formulas.

    Args:
        sentences: The sentences, which are escaped.
        rest: HTML that follows them.

    Example:
        >>> html_block(["Train on <a>."])
        '<div class="tex2jax_ignore mathjax_ignore"><p><b>Train on &lt;a&gt;.</b></p></div>'
    """
    first, *others = (html.escape(text) for text in sentences)
    body = f"<p><b>{first}</b></p>" + "".join(f"<p>{text}</p>" for text in others)
    return f'<div class="tex2jax_ignore mathjax_ignore">{body}{rest}</div>'


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return one_line(str(value), 10 * _MOST_CHARACTERS)


def new_axes(ax: Axes | None, *, n_rows: int = 10) -> Axes:
    """Return the axes to draw on: those given, or new ones that a notebook shows.

    Args:
        ax: Axes of matplotlib; None for new ones.
        n_rows: How many rows of names the new axes have room for.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise DependencyError("matplotlib", extra="report", purpose="plot()") from error
    if ax is None:
        height = max(3.0, 1.2 + 0.28 * n_rows)
        _, ax = pyplot.subplots(figsize=(7, height), layout="constrained")
    return ax


def set_names(ax: Axes, names: Sequence[str]) -> None:
    """Write names along the vertical axis, the first on top, at heights −1, −2, …."""
    ax.set_yticks([-i for i in range(1, len(names) + 1)], [drawable(name) for name in names])
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)  # a dollar sign is a dollar sign
    ax.set_ylim(-len(names) - 0.7, -0.3)


def drawable(text: str) -> str:
    """Return a text in lines, without characters that matplotlib's own font lacks."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    shown = "".join(
        c if unicodedata.category(c)[0] != "C" and font.get_char_index(ord(c)) else "?"
        for c in " ".join(text.split())
    )
    return textwrap.fill(shown, _NAME_WIDTH)
