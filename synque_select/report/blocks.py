"""What a page is made of: sections of tables, charts, examples and texts, without any HTML."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from synque_select.data.preview import cut_at_word
from synque_select.errors import RecordError
from synque_select.report.charts import Chart
from synque_select.report.table import Table
from synque_select.types import ShownView
from synque_select.utils.data_uri import data_uri
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.wording import counted

__all__ = [
    "Block",
    "Charts",
    "Code",
    "Columns",
    "Example",
    "ExampleList",
    "Fold",
    "Paragraph",
    "PointList",
    "Section",
    "TableBlock",
    "example_of",
    "limited",
    "shown_example",
]

_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_MOST_ROWS = 100  # of a table
_BEGINNING = 280  # characters of a long text that are shown before the reader unfolds it


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text; a note is set smaller."""

    text: str
    is_note: bool = False
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class TableBlock:
    """A table with its title and notes."""

    table: Table
    kind: ClassVar[str] = "table"

    @property
    def head_column(self) -> int | None:
        """Position of the column whose cells name their row; None if no column holds names."""
        columns = self.table.columns
        return next((i for i, c in enumerate(columns) if c.is_name and c.name != "#"), None)


@dataclass(frozen=True)
class Charts:
    """Charts side by side, where the page is wide enough."""

    charts: tuple[Chart, ...]
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Columns:
    """Blocks side by side, where the page is wide enough."""

    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "columns"


@dataclass(frozen=True)
class Code:
    """A text to copy, as a terminal or a file has it."""

    text: str
    title: str = ""
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Example:
    """One example of a dataset: a text or an image.

    Args:
        name: Name of the dataset.
        text: The text; None for an image.
        image: Data URI of the image; None for a text.
        realness: Its realness, higher is more real; None if unknown.
        caption: What stands above it.
        note: What stands below it.
    """

    name: str
    text: str | None = None
    image: str | None = None
    realness: float | None = None
    caption: str = ""
    note: str = ""

    @property
    def beginning(self) -> str | None:
        """The beginning of a long text, which ends with a word; None if the text is short."""
        if self.text is None or len(self.text) <= 1.3 * _BEGINNING:
            return None
        return cut_at_word(self.text, _BEGINNING)


@dataclass(frozen=True)
class ExampleList:
    """Examples side by side.

    Args:
        items: Examples; those of one tuple are shown together.
        title: Heading above the list, if any.
        is_small: Whether the heading is a small one.
    """

    items: tuple[tuple[Example, ...], ...]
    title: str = ""
    is_small: bool = False
    kind: ClassVar[str] = "examples"


@dataclass(frozen=True)
class PointList:
    """A numbered list of sentences under a heading."""

    title: str
    points: tuple[str, ...]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Fold:
    """Blocks that are hidden until the reader unfolds them."""

    summary: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "section"


Block: TypeAlias = (
    "Paragraph | TableBlock | Charts | Columns | Code | ExampleList | PointList | Fold | Section"
)


def limited(table: Table, rest: str = "", most: int = _MOST_ROWS) -> Table:
    """Return the first rows of a table, with a note on how many there are.

    Args:
        table: The table.
        rest: File that has all rows; empty if no file has.
        most: Maximum number of rows.

    Example:
        >>> limited(Table("", (), (("a",), ("b",), ("c",))), "all.csv", 2).notes
        ('the first 2 of 3 rows; all.csv has all',)
    """
    n = len(table.rows)
    if n <= most:
        return table
    note = f"the first {most} of {counted(n, 'row')}{f'; {rest} has all' if rest else ''}"
    return replace(table, rows=table.rows[:most], notes=(note, *table.notes))


def shown_example(
    name: str, view: ShownView, realness: float | None = None, caption: str = ""
) -> Example:
    """Return an example as the page shows it.

    Args:
        name: Name of the dataset.
        view: The text, or {"png": image in base64}.
        realness: Its realness, if known.
        caption: What stands above it.

    Raises:
        RecordError: The image is not a PNG in base64.
    """
    if isinstance(view, str):
        return Example(name, text=view, realness=realness, caption=caption)
    return Example(name, image=_png(view["png"]), realness=realness, caption=caption)


def example_of(name: str, fields: JsonFields) -> Example:
    """Read an example with its realness, as `examples.json` and the details of LENS have it.

    Raises:
        RecordError: A field is missing or of the wrong type, or the image is not a PNG.
    """
    view = fields.value("view")
    shown = (
        fields.text("view") if isinstance(view, str) else {"png": fields.object("view").text("png")}
    )
    return shown_example(name, shown, fields.optional_number("realness"))


def _png(text: str) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"an image is not base64: {error}") from error
    if not content.startswith(_PNG_BEGINS):
        raise RecordError("an image is not a PNG")
    return data_uri(content)
