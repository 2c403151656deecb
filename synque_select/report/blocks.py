"""What a page is made of: sections of tables, figures, examples and texts, without any HTML."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from synque_select.errors import DependencyError, RecordError
from synque_select.report.table import Table
from synque_select.types import ShownView
from synque_select.utils.data_uri import data_uri
from synque_select.utils.json_fields import JsonFields

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

__all__ = [
    "Block",
    "Example",
    "ExampleList",
    "Figure",
    "Fold",
    "Paragraph",
    "PointList",
    "Section",
    "TableBlock",
    "draw_figure",
    "example_of",
    "shown_example",
]

_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"


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
        names = [i for i, column in enumerate(self.table.columns) if column.is_name]
        return names[-1] if names else None


@dataclass(frozen=True)
class Figure:
    """An image.

    Args:
        source: Data URI of the image.
        alt: What the image shows, for those who cannot see it.
    """

    source: str
    alt: str
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Example:
    """One example of a dataset: a text or an image.

    Args:
        name: Name of the dataset.
        text: The text; None for an image.
        image: Data URI of the image; None for a text.
        realness: Its realness, higher is more real; None if unknown.
        caption: What stands above it.
    """

    name: str
    text: str | None = None
    image: str | None = None
    realness: float | None = None
    caption: str = ""


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


Block: TypeAlias = "Paragraph | TableBlock | Figure | ExampleList | PointList | Fold | Section"


def draw_figure(draw: Callable[[], MatplotlibFigure], alt: str) -> Figure | Paragraph:
    """Return a figure of matplotlib as an image, or a note if matplotlib is not installed.

    Args:
        draw: Returns the figure.
        alt: What the figure shows, for those who cannot see it.
    """
    try:
        from synque_select.report.plots import to_svg

        svg = to_svg(draw())
    except DependencyError as error:
        return Paragraph(f"No figure here: {error}", is_note=True)
    return Figure(data_uri(svg, "image/svg+xml"), alt)


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
