"""Charts of the page, as positions in percent: the templates draw them as SVG in any width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, TypeAlias

from synque_select.report.formats import format_number

__all__ = [
    "AreaChart",
    "AreaLayer",
    "Chart",
    "DotChart",
    "DotRow",
    "Legend",
    "MapChart",
    "MapSet",
    "PlotChart",
    "PlotLine",
    "PlotPoint",
    "Scale",
    "Tick",
    "Tone",
]

Tone = Literal["on", "off", "real", "warn", "start"]
Legend = tuple[tuple[Tone, str], ...]

_LETTER = 6  # pixels of a digit
_MARGIN = 4.0  # percent left free at both ends, so that a mark at an end is drawn whole


@dataclass(frozen=True)
class Tick:
    """A labeled position on an axis, in percent of its length."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A linear axis.

    Args:
        low: Value at its beginning.
        high: Value at its end.
        is_reversed: Whether values grow towards its beginning.
    """

    low: float
    high: float
    is_reversed: bool = False

    @classmethod
    def over(
        cls,
        values: Iterable[float | None],
        *,
        low: float | None = None,
        high: float | None = None,
        is_reversed: bool = False,
    ) -> Scale:
        """Return the scale over all finite values.

        Args:
            values: The values; None and NaN are left out.
            low: Value that the scale begins at, whatever the values are.
            high: Value that the scale ends at.
            is_reversed: Whether values grow towards the beginning.

        Example:
            >>> Scale.over([1.0, None, 3.0]).at(2.0)
            50.0
        """
        finite = [value for value in values if value is not None and math.isfinite(value)]
        first = min(finite, default=0.0) if low is None else low
        last = max(finite, default=1.0) if high is None else high
        if not last > first:  # a single value: in the middle
            half = abs(first) / 10 or 0.5
            first, last = first - half, last + half
        return cls(first, last, is_reversed)

    def at(self, value: float) -> float:
        """Return the position of a value in percent; values outside are put at the ends."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        share = 1 - share if self.is_reversed else share
        return round(_MARGIN + (100 - 2 * _MARGIN) * share, 2)

    def ticks(self, width: int = 300, *, whole: bool = False) -> tuple[Tick, ...]:
        """Return round values inside the scale, at most five, whose labels do not overlap.

        Args:
            width: Width that the axis has at least, in pixels.
            whole: Whether only whole numbers are allowed.

        Example:
            >>> [tick.text for tick in Scale(0.0, 1.0).ticks()]
            ['0.0', '0.5', '1.0']
        """
        ticks: tuple[Tick, ...] = ()
        for most in range(5, 1, -1):
            ticks = self._ticks(most, whole)
            needed = (
                100 * (_LETTER * max((len(tick.text) for tick in ticks), default=0) + 6) / width
            )
            gaps = [abs(b.at - a.at) for a, b in pairwise(ticks)]
            if all(gap >= needed for gap in gaps):
                return ticks
        return ticks[:1]

    def _ticks(self, most: int, whole: bool) -> tuple[Tick, ...]:
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / most))
        step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (factor * step) <= most - 0.5)
        step = max(step, 1.0) if whole else step
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        return tuple(Tick(self.at(v), format_number(v + 0.0, decimals)) for v in values)


@dataclass(frozen=True)
class DotRow:
    """A row of a dot chart; positions in percent.

    Args:
        name: What the row is about.
        text: Its value as text.
        at: Position of the dot; None if the value is undefined.
        low: Beginning of the interval; None without one.
        high: End of the interval.
        dots: Single values behind the dot.
        bar: Whether a bar is drawn from the beginning of the scale to the dot, instead of the dot.
        tone: How the row is colored.
        place: Rank of the row; empty without.
        is_hollow: Whether the dot is hollow.
    """

    name: str
    text: str
    at: float | None
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    bar: bool = False
    tone: Tone = "off"
    place: str = ""
    is_hollow: bool = False


@dataclass(frozen=True)
class DotChart:
    """Values of named things, one per row.

    Args:
        title: Title.
        subtitle: What the axis is, and which end of it is better.
        rows: The rows.
        ticks: Ticks of the axis.
        line: Position of a vertical line in percent; None without.
        notes: Sentences below the chart.
        legend: Tone and what it means.
    """

    title: str
    subtitle: str
    rows: tuple[DotRow, ...]
    ticks: tuple[Tick, ...] = ()
    line: float | None = None
    notes: tuple[str, ...] = ()
    legend: Legend = ()
    kind: ClassVar[str] = "dots"


@dataclass(frozen=True)
class PlotPoint:
    """A point of a plot; its position in percent, from the left and from the top."""

    x: float
    y: float
    name: str
    detail: str = ""
    tone: Tone = "on"


@dataclass(frozen=True)
class PlotLine:
    """A line through points.

    Args:
        points: Positions in percent as SVG has them, "x,y x,y".
        tone: How it is colored.
        is_dashed: Whether it is dashed.
    """

    points: str
    tone: Tone = "on"
    is_dashed: bool = False


@dataclass(frozen=True)
class PlotChart:
    """Points and lines over two axes.

    Args:
        title: Title.
        subtitle: What stands under the title.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        x_ticks: Ticks of the horizontal axis.
        y_ticks: Ticks of the vertical axis, in percent from the top.
        points: The points.
        lines: The lines.
        legend: Tone and what it means.
        notes: Sentences below the chart.
    """

    title: str
    subtitle: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[PlotPoint, ...] = ()
    lines: tuple[PlotLine, ...] = ()
    legend: Legend = ()
    notes: tuple[str, ...] = ()
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class AreaLayer:
    """A layer of stacked areas.

    Args:
        name: What it is about.
        detail: Its values in words.
        points: Corners in percent as SVG has them, "x,y x,y".
    """

    name: str
    detail: str
    points: str


@dataclass(frozen=True)
class AreaChart:
    """Shares of a whole over an axis, as areas on top of each other.

    Args:
        title: Title.
        subtitle: What stands under the title.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        x_ticks: Ticks of the horizontal axis.
        y_ticks: Ticks of the vertical axis, in percent from the top.
        layers: The layers, from the bottom.
        notes: Sentences below the chart.
    """

    title: str
    subtitle: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    layers: tuple[AreaLayer, ...]
    notes: tuple[str, ...] = ()
    kind: ClassVar[str] = "areas"


@dataclass(frozen=True)
class MapSet:
    """The points of one set as an SVG path of dots."""

    name: str
    path: str
    tone: Tone


@dataclass(frozen=True)
class MapChart:
    """The real sample and the candidates in two dimensions.

    Args:
        title: Title.
        sets: The candidates, then the real sample, which is drawn on top.
        legend: Tone and what it means.
        has_filter: Whether the reader can choose a candidate.
        notes: Sentences below the map.
        width: Width of the coordinates.
        height: Height of the coordinates.
    """

    title: str
    sets: tuple[MapSet, ...]
    legend: Legend = ()
    has_filter: bool = False
    notes: tuple[str, ...] = ()
    width: int = 1000
    height: int = 620
    kind: ClassVar[str] = "map"

    @classmethod
    def dots(cls, points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
        """Return points as a path of dots: lines of no length, which round ends make visible.

        Args:
            points: The points.
            x: Horizontal scale.
            y: Vertical scale, which grows upwards.
        """
        placed = dict.fromkeys(
            (round(x.at(a) * cls.width / 100), round((100 - y.at(b)) * cls.height / 100))
            for a, b in points
        )
        return "".join(f"M{a} {b}h0" for a, b in placed)


Chart: TypeAlias = DotChart | PlotChart | AreaChart | MapChart
