"""Figures for loggers and notebooks, drawn with matplotlib's objects only.

They need no pyplot and no display, and do not depend on the user's style.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from synque_select.errors import ConfigError, DependencyError
from synque_select.report.correlation_tables import short_units
from synque_select.report.formats import format_ranks
from synque_select.report.table import wrap_name
from synque_select.types import Ranking
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from synque_select.records.correlation import KeyCorrelations, UnitPoint

__all__ = [
    "correlation_figure",
    "ranking_figure",
    "to_png",
]

_BLUE, _INK = "#0072B2", "#1B2430"
_MUTED = "#5B6675"
_ALONE = "95 % intervals of each candidate alone: do not compare by overlap"
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _in_own_style(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Draw in matplotlib's default style, so that the user's settings do not change the figure."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            import matplotlib.style
        except ImportError as error:
            raise DependencyError(
                "matplotlib", extra="report", purpose="a figure of the report"
            ) from error
        with matplotlib.style.context("default"):
            return draw(*args, **kwargs)

    return drawn


@_in_own_style
def to_png(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def _new(n_rows: int, n_columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(_MUTED)
        ax.tick_params(colors=_MUTED, labelsize=8)
    return figure, list(axes.flat)


def _label(text: str, width: int = 26) -> str:
    """Return a name that can be drawn: in lines, and without characters that the font lacks."""
    return "\n".join(wrap_name(_drawable(text), width))


def _drawable(text: str) -> str:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return "".join(
        c if unicodedata.category(c)[0] != "C" and font.get_char_index(ord(c)) else "?"
        for c in " ".join(text.split())
    )


@_in_own_style
def ranking_figure(ranking: Ranking) -> Figure:
    """Draw each proxy's values with their intervals, one panel per proxy, best candidate on top.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    order = ranking.order()
    keys = list(ranking.proxies)
    width = 3.0 + 1.9 * len(keys)
    figure, axes = _new(1, len(keys), width, 1.1 + 0.27 * len(order))
    heights = np.arange(len(order))[::-1]
    selected = ranking.top().weights
    for ax, key in zip(axes, keys, strict=True):
        for height, row in zip(heights, order, strict=True):
            score = row.scores[key]
            color = _BLUE if row.name in selected else _MUTED
            if score.low is not None and score.high is not None:
                ax.plot([score.low, score.high], [height] * 2, color=color, lw=2, alpha=0.45)
            ax.plot(score.value, height, "o", color=color, ms=5.5)
        reference = ranking.proxies[key].reference
        if reference is not None:
            ax.axvline(reference, color=_INK, lw=0.8, ls=":")
        better = "higher" if ranking.proxies[key].higher_is_better else "lower"
        ax.set_title(_label(key, 18), fontsize=10, color=_INK).set_parse_math(False)
        ax.set_xlabel(f"{better} is better", fontsize=8, color=_MUTED)
        ax.set_yticks(heights, [""] * len(order))
        ax.set_ylim(-0.7, len(order) - 0.3)
        ax.grid(axis="y", color="#EDF0F3", lw=0.8)
        ax.set_axisbelow(True)
        ax.locator_params(axis="x", nbins=4)
    labels = [_label(row.name, 44) for row in order]
    ranks = format_ranks([row.ranks[ranking.rank_by] for row in order])
    names = [f"{rank.strip()}  {label}" for rank, label in zip(ranks, labels, strict=True)]
    captions = []
    if any(score.low is not None for row in order for score in row.scores.values()):
        captions.append(_ALONE)
    if any(info.reference is not None for info in ranking.proxies.values()):
        captions.append("dotted: about what further real examples would score")
    if captions:
        figure.supxlabel("\n".join(captions), fontsize=8, color=_MUTED)
    axes[0].set_yticks(heights, names, fontsize=8)
    for tick, row in zip(axes[0].get_yticklabels(), order, strict=True):
        tick.set_parse_math(False)
        tick.set_color(_BLUE if row.name in selected else _INK)
    return figure


@_in_own_style
def correlation_figure(entry: KeyCorrelations) -> Figure:
    """Draw each proxy against validation, one panel per proxy, with every unit numbered and named.

    The axis of a proxy or metric is inverted if lower values are better, so that up and to the
    right is better in every panel.

    Args:
        entry: The units and their correlations.

    Raises:
        ConfigError: The entry has fewer than 2 units.
        DependencyError: matplotlib is not installed.
    """
    if len(entry.points) < 2:
        raise ConfigError(
            f"a figure needs at least 2 units, found {counted(len(entry.points), 'unit')}"
        )
    keys = list(entry.orientation)
    n_columns = min(3, len(keys))
    n_rows = math.ceil(len(keys) / n_columns)
    sign = -1 if entry.mode == "max" else 1
    points = sorted(entry.points, key=lambda point: sign * point.validation)
    height = max(3.0 * n_rows + 0.3, 0.6 + 0.155 * len(points))
    figure, axes = _new(n_rows, n_columns, 3.2 * n_columns + 3.2, height)
    for ax in axes[len(keys) :]:
        ax.remove()
    for ax, key in zip(axes, keys, strict=False):
        _correlation_panel(ax, entry, key, points)
    for ax in axes[: len(keys) : n_columns]:
        better = "" if entry.mode == "max" else " (lower is better)"
        ax.set_ylabel(_label(entry.monitor) + better, fontsize=9, color=_INK, parse_math=False)
    names = short_units([point.unit for point in points])
    _number_legend(figure, [_label(name, 40) for name in names])
    return figure


def _correlation_panel(
    ax: Axes,
    entry: KeyCorrelations,
    key: str,
    points: Sequence[UnitPoint],
) -> None:
    for number, point in enumerate(points, start=1):
        x = point.scores.get(key, math.nan)
        if math.isfinite(x):
            place = (x, point.validation)
            ax.plot(*place, "o", color=_BLUE, ms=12, mec="white", mew=0.8)
            ax.annotate(
                f"{number}", place, color="white", fontsize=6, ha="center", va="center_baseline"
            )
    higher = entry.orientation[key]
    ax.margins(0.1)
    if not higher:
        ax.invert_xaxis()
    if entry.mode == "min":
        ax.invert_yaxis()
    ax.set_title(_label(key, 20), fontsize=10, color=_INK, loc="left").set_parse_math(False)
    words = "higher is better" if higher else "lower is better, axis inverted"
    ax.set_xlabel(f"score ({words})\n{_coefficient_words(entry, key)}", fontsize=8, color=_MUTED)
    ax.locator_params(axis="x", nbins=5)


def _number_legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="", label=f"{i}  {n}") for i, n in enumerate(names, 1)]
    legend = figure.legend(
        handles=handles,
        loc="outside right upper",
        frameon=False,
        fontsize=7.5,
        handlelength=0,
        handletextpad=0,
        title="best first",
        title_fontsize=8,
        alignment="left",
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _coefficient_words(entry: KeyCorrelations, key: str) -> str:
    measured = entry.proxies.get(key)
    if measured is None or math.isnan(measured.spearman.value):
        return f"{counted(len(entry.points), 'unit')}: no coefficient"
    return f"Spearman {measured.spearman.value:+.2f}, n = {measured.n}: {measured.verdict}"
