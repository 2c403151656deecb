"""Figures, drawn with matplotlib's objects only: without pyplot, a display or the user's style."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.errors import ConfigError, DependencyError
from synque_select.report.correlation_tables import short_units
from synque_select.report.experiment_tables import arm_words
from synque_select.report.formats import figure_decimals, format_number, format_ranks
from synque_select.report.study_tables import trials_of
from synque_select.report.table import wrap_name
from synque_select.types import Ranking, SampleSizeAnalysis
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from synque_select.records.correlation import KeyCorrelations, UnitPoint
    from synque_select.records.experiment_result import ExperimentResult

__all__ = [
    "arms_figure",
    "correlation_figure",
    "map_figure",
    "ranking_figure",
    "sample_size_figure",
    "to_png",
    "to_svg",
]

# the palette of Okabe and Ito, which all common kinds of color blindness can distinguish
_BLUE, _ORANGE, _GREEN, _GREY, _INK = "#0072B2", "#D55E00", "#009E73", "#C9CED6", "#1B2430"
_MUTED = "#5B6675"
_ALONE = "95 % intervals of each candidate alone: do not compare by overlap"
_Points = NDArray[np.float64]
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


@_in_own_style
def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG with its letters as shapes, so that it needs no font."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", dpi=144, metadata={"Date": None, "Creator": None})
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
def map_figure(
    points: Mapping[str, ArrayLike],
    *,
    real: str,
    selected: Sequence[str] = (),
    method: str = "",
) -> Figure:
    """Draw the real sample and every candidate in two dimensions, one panel per candidate.

    Args:
        points: Name of a set to its coordinates, (n, 2); panels are numbered in this order.
        real: Name of the real sample, which is drawn in every panel.
        selected: Names of the selected candidates, which are marked.
        method: How the coordinates were computed, for the caption.

    Raises:
        ConfigError: The real sample is not among the sets, or is the only one.
        DependencyError: matplotlib is not installed.
    """
    names = [name for name in points if name != real]
    if real not in points or not names:
        raise ConfigError(f"a map needs the set {real!r} and another, found {list(points)}")
    placed = {name: np.asarray(xy, dtype=np.float64).reshape(-1, 2) for name, xy in points.items()}
    n_columns = min(len(names), 4)
    n_rows = math.ceil(len(names) / n_columns)
    figure, axes = _new(n_rows, n_columns, max(2.3 * n_columns, 5.5), 2.15 * n_rows + 0.9)
    for ax in axes[len(names) :]:
        ax.remove()
    everything = np.concatenate([placed[name] for name in names])
    for number, (ax, name) in enumerate(zip(axes, names, strict=False), start=1):
        _map_panel(ax, everything, placed[name], placed[real], chosen=name in selected)
        weight = "bold" if name in selected else "normal"
        words = f"{number}  {_label(name)}"
        title = ax.set_title(words, fontsize=8.5, color=_INK, fontweight=weight)
        title.set_parse_math(False)
    _map_limits(axes[: len(names)], np.concatenate([everything, placed[real]]))
    _map_legend(figure, real, any(name in selected for name in names))
    if method:
        figure.supxlabel(method, fontsize=8, color=_MUTED)
    return figure


def _map_panel(ax: Axes, everything: _Points, own: _Points, real: _Points, *, chosen: bool) -> None:
    ax.scatter(everything[:, 0], everything[:, 1], s=3, color=_GREY, linewidths=0, rasterized=True)
    color = _BLUE if chosen else _ORANGE
    ax.scatter(own[:, 0], own[:, 1], s=9, color=color, alpha=0.65, linewidths=0, rasterized=True)
    # hollow, so that points under the real sample stay visible
    x, y = real.T
    ax.scatter(x, y, s=20, marker="D", facecolors="none", edgecolors=_INK, linewidths=1.0)
    ax.set_xticks([])
    ax.set_yticks([])


def _map_limits(axes: Sequence[Axes], everything: _Points) -> None:
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-12)
    for ax in axes:
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        ax.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _map_legend(figure: Figure, real: str, any_chosen: bool) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, color: str, size: float, words: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=color, ms=size, label=words)

    handles = [mark("D", _INK, 5, real)]
    handles[0].set_markerfacecolor("none")
    if any_chosen:
        handles.append(mark("o", _BLUE, 6, "this candidate, selected"))
    handles.append(mark("o", _ORANGE, 6, "this candidate" + ", not selected" * any_chosen))
    handles.append(mark("o", _GREY, 5, "the other candidates"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)


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
def sample_size_figure(analysis: SampleSizeAnalysis) -> Figure:
    """Draw the agreement of disjoint real samples and the error of the border gap, by size.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    figure, (left, right) = _new(1, 2, 9.0, 3.2)
    sizes = [row.m for row in analysis.measured]
    overlaps = [row.overlap for row in analysis.measured]
    left.plot(sizes, overlaps, "o-", color=_BLUE, ms=5.5, label="measured")
    left.axhline(analysis.chance, color=_MUTED, ls=":", label="by chance")
    left.set_ylim(0, 1.05)
    left.set_title(f"Shared by the top {analysis.top_k} of both", fontsize=10, color=_INK)
    errors = [row.border_error for row in analysis.measured]
    right.plot(sizes, errors, "o-", color=_BLUE, ms=5.5, label="measured")
    if analysis.extrapolated:
        ahead = [(sizes[-1], errors[-1]), *analysis.extrapolated.items()]
        right.plot(*zip(*ahead, strict=True), "--", color=_ORANGE, label="extrapolated as 1/√n")
    right.axhline(analysis.gap, color=_MUTED, ls=":", label="the gap")
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_title("Standard error of the gap at the border", fontsize=10, color=_INK)
    for ax in (left, right):
        ax.set_xlabel("real examples", fontsize=8, color=_MUTED)
        ax.legend(fontsize=8, frameon=False)
    return figure


@_in_own_style
def correlation_figure(
    entry: KeyCorrelations, *, marked: Collection[str] = (), mark: str = "marked"
) -> Figure:
    """Draw each proxy against validation, one panel per proxy, with every unit numbered and named.

    The axis of a proxy or metric is inverted if lower values are better, so that up and to the
    right is better in every panel.

    Args:
        entry: The units and their correlations.
        marked: Names of units to draw in another color.
        mark: What that color means, for the legend.

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
        _correlation_panel(ax, entry, key, points, marked)
    for ax in axes[: len(keys) : n_columns]:
        better = "" if entry.mode == "max" else " (lower is better)"
        ax.set_ylabel(_label(entry.monitor) + better, fontsize=9, color=_INK, parse_math=False)
    names = short_units([point.unit for point in points])
    marks = [f" ({mark})" if point.unit in marked else "" for point in points]
    labels = [_label(name + mark, 40) for name, mark in zip(names, marks, strict=True)]
    _number_legend(figure, labels)
    return figure


def _correlation_panel(
    ax: Axes,
    entry: KeyCorrelations,
    key: str,
    points: Sequence[UnitPoint],
    marked: Collection[str],
) -> None:
    for number, point in enumerate(points, start=1):
        x = point.scores.get(key, math.nan)
        if math.isfinite(x):
            place = (x, point.validation)
            color = _ORANGE if point.unit in marked else _BLUE
            ax.plot(*place, "o", color=color, ms=12, mec="white", mew=0.8)
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


@_in_own_style
def arms_figure(result: ExperimentResult) -> Figure:
    """Draw the mean of each arm with the t-interval of its mean, best on top.

    Args:
        result: The result of the experiment.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    from scipy import stats

    metric = result.metric
    sign = 1 if metric.mode == "max" else -1
    arms = {name: arm for name, arm in result.arms.items() if not math.isnan(arm.mean)}
    order = sorted(arms, key=lambda name: sign * arms[name].mean)
    figure, (ax,) = _new(1, 1, 7.0, 0.9 + 0.36 * len(order))
    decimals = figure_decimals(arm.mean for arm in arms.values())
    for height, name in enumerate(order):
        arm = arms[name]
        color = _BLUE if name == "chosen" else _MUTED
        if arm.n >= 2 and not math.isnan(arm.std):
            half = stats.t.ppf(0.975, arm.n - 1) * arm.std / math.sqrt(arm.n)
            span = [arm.mean - half, arm.mean + half]
            ax.plot(span, [height] * 2, color=color, lw=3, alpha=0.4, solid_capstyle="round")
        inside = "white" if arm.uses_labels else color
        ax.plot(arm.mean, height, "o", color=color, ms=7, mfc=inside, mew=1.6)
        words = format_number(arm.mean, decimals)
        ax.annotate(
            words, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    ax.set_yticks(range(len(order)), [_label(arm_words(name), 34) for name in order], fontsize=9)
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.set_ylim(-0.6, len(order) - 0.4)
    better = "higher" if metric.mode == "max" else "lower"
    words = (
        f"{_label(metric.name)}, mean and its 95 % interval ({better} is better)\n"
        "do not compare by overlap: the arms are paired"
    )
    if any(arm.uses_labels for arm in arms.values()):
        words += "\nhollow: uses labels of real data"
    ax.set_xlabel(words, fontsize=8, color=_MUTED, parse_math=False)
    ax.grid(axis="y", color="#EDF0F3", lw=0.8)
    ax.set_axisbelow(True)
    return figure


@_in_own_style
def study_figure(state: JsonObject) -> Figure:
    """Draw the value of each trial of a study and the best so far; pruned trials are crosses.

    Args:
        state: The content of `study.json`.

    Raises:
        DependencyError: matplotlib is not installed.
        RecordError: A field is missing or of the wrong type.
    """
    fields = JsonFields(state)
    figure, (ax,) = _new(1, 1, 7.0, 3.2)
    trials = trials_of(fields)
    marks = (
        ("start", "complete", "D", _GREEN, "from the proxies"),
        ("random", "complete", "s", _MUTED, "random start-up"),
        ("adaptive", "complete", "o", _BLUE, "by the sampler"),
        (None, "pruned", "x", _ORANGE, "pruned, last value reported"),
    )
    for role, status, marker, color, words in marks:
        shown = [t for t in trials if t.state == status and role in (None, t.role)]
        points = [(trial.number, _finite(trial.value)) for trial in shown]
        if points:
            ax.plot(*zip(*points, strict=True), marker, color=color, ms=6, label=words)
    best = [(trial.number, _finite(trial.best_so_far)) for trial in trials]
    if best:
        x, y = zip(*best, strict=True)
        ax.step(x, y, where="post", color=_INK, lw=1.2, label="best so far")
    better = "higher" if fields.text("mode") == "max" else "lower"
    ax.set_xlabel(f"trial ({better} is better)", fontsize=8, color=_MUTED)
    ax.set_ylabel(_label(fields.text("metric")), fontsize=9, color=_INK, parse_math=False)
    ax.locator_params(axis="x", integer=True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
