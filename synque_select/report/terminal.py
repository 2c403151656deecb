"""A ranking on the standard output: plain text, and rich's tables and colors on a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from synque_select.functional.correlation import Correlation
from synque_select.report.decision import decision_lines
from synque_select.report.formats import format_ranks
from synque_select.report.ranking_tables import (
    ranks_table,
    scores_table,
    summary_table,
    warnings_of,
)
from synque_select.report.table import Table, clean, terminal_width, wrap_name, wrap_text
from synque_select.types import Ranking
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

__all__ = ["print_ranking", "print_table", "ranking_text"]

_MOST_WARNINGS = 5
_NARROWEST_NAME = 10
_MOST_SELECTED = 20
# what was not read or not counted is never hidden
_LEFT_OUT = re.compile(
    r"left out|: no (label|text) \(|the label '.*' which is a class|are one class"
)


def ranking_text(
    ranking: Ranking,
    width: int | None = None,
    *,
    details: bool | None = None,
    quiet: bool = False,
    reliability: Correlation | None = None,
) -> str:
    """Return a ranking as plain text: the decision, one table, and what is wrong with the data.

    Args:
        ranking: The ranking.
        width: Width in characters; None for that of the terminal, 100 without one.
        details: Whether the ranks and scores of each proxy follow, with all messages; None in
            commands without the option --details.
        quiet: Whether the decision is all: its sentence, what is selected, and what was left out.
        reliability: Measured correlation of the ranking's `rank_by` with validation on this task;
            None if it was not measured.
    """
    width = width or terminal_width()
    sentence = "\n".join(wrap_text(decision_lines(ranking, reliability)[0], width))
    if quiet:
        lines = [*_selected(ranking), f"({_sizes(ranking)})", *_left_out(ranking, width)]
        return "\n".join([sentence, *lines])
    summary = summary_table(ranking, reliability=reliability).text(width)
    below = [] if details else _below(ranking, width, has_option=details is not None)
    tables = [table.text(width) for table in _detail_tables(ranking, bool(details), reliability)]
    return "\n\n".join(["\n".join([f"{sentence}\n", summary, *below]), *tables])


def print_ranking(
    ranking: Ranking,
    *,
    details: bool | None = None,
    quiet: bool = False,
    reliability: Correlation | None = None,
) -> None:
    """Print a ranking to the standard output; the arguments are those of `ranking_text`."""
    console = _terminal()
    if console is None or quiet:
        print(ranking_text(ranking, details=details, quiet=quiet, reliability=reliability))
        return
    far = ranking.decision is not None and ranking.decision.opening == "far"
    for line in wrap_text(decision_lines(ranking, reliability)[0], console.width):
        _styled(console, line, "bold yellow" if far else "bold green")
    console.print()
    chosen = () if far else ranking.top().names
    print_table(summary_table(ranking, reliability=reliability), chosen)
    below = [] if details else _below(ranking, console.width, has_option=details is not None)
    for line in below:
        _styled(console, line, "yellow" if line.startswith(("! ", "  ")) else "dim")
    for table in _detail_tables(ranking, bool(details), reliability):
        console.print()
        print_table(table)


def print_table(table: Table, marked: Collection[str] = ()) -> None:
    """Print a table to the standard output, by rich if that is a terminal.

    Args:
        table: The table.
        marked: Names whose rows stand out in color.
    """
    console = _terminal()
    drawn = None if console is None or not table.columns else _drawn(console, table, marked)
    if console is None or drawn is None:
        print(table)
        return
    if table.title:
        _styled(console, f"{clean(table.title)}\n", "bold")
    console.print(drawn)
    console.print()
    for note in table.notes:
        for line in wrap_text(note, console.width, bullet="- "):
            _styled(console, line, "dim")


def _detail_tables(ranking: Ranking, details: bool, reliability: Correlation | None) -> list[Table]:
    if not details:
        return []
    return [ranks_table(ranking, reliability=reliability), scores_table(ranking)]


def _selected(ranking: Ranking) -> list[str]:
    """Return a line per selected candidate: rank, name and weight."""
    if ranking.decision is not None and ranking.decision.opening == "far":
        return []
    weights, order = ranking.top().weights, ranking.order()
    places = format_ranks([row.ranks[ranking.rank_by] for row in order])
    lines = [
        f"{place}  {clean(row.name)}  weight {weights[row.name]:.3f}"
        for place, row in zip(places, order, strict=True)
        if row.name in weights
    ]
    return lines if len(lines) <= _MOST_SELECTED else []


def _sizes(ranking: Ranking) -> str:
    sizes = sorted(row.n for row in ranking.candidates)
    each = counted(sizes[-1], "example")
    if sizes[0] < sizes[-1]:
        each = f"{sizes[0]:,} to {each}"
    n_real = counted(ranking.n_real, "real example")
    return f"{counted(len(sizes), 'candidate')} of {each}, {n_real}"


def _left_out(ranking: Ranking, width: int) -> list[str]:
    texts = [text for text in warnings_of(ranking) if _LEFT_OUT.search(text)]
    return [line for text in texts for line in wrap_text(text, width, bullet="! ")]


def _below(ranking: Ranking, width: int, *, has_option: bool) -> list[str]:
    """Return the lines of the warnings, and where there is more."""
    warnings = warnings_of(ranking)
    first = warnings if len(warnings) <= _MOST_WARNINGS else warnings[: _MOST_WARNINGS - 1]
    shown = [text for text in warnings if text in first or _LEFT_OUT.search(text)]
    lines = [line for text in shown for line in wrap_text(text, width, bullet="! ")]
    hidden = [counted(n, "more warning") for n in [len(warnings) - len(shown)] if n]
    if not has_option:
        verb = "is" if hidden[:1] == ["1 more warning"] else "are"
        sentences = [f"{number} {verb} in ranking.json" for number in hidden]
    else:
        n_notes = len(ranking.messages) - len(warnings)
        notes = [counted(n_notes, "note")] if n_notes else []
        more = [*hidden, "the ranks and scores of each proxy", *notes]
        before = f"{', '.join(more[:-1])} and " if len(more) > 1 else ""
        sentences = [f"--details adds {before}{more[-1]}"]
    return [*lines, *(line for text in sentences for line in wrap_text(text, width, bullet="- "))]


def _terminal() -> Console | None:
    """Return rich's console if the standard output is a terminal; else None."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from rich.console import Console

    # rich itself follows NO_COLOR and TERM=dumb
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else None


def _styled(console: Console, line: str, style: str) -> None:
    console.print(line, style=style, no_wrap=True, overflow="ignore", crop=False)


def _drawn(console: Console, table: Table, marked: Collection[str]) -> RichTable | None:
    """Return rich's table, with names on as many lines as they need; None if it does not fit."""
    # a table that is measured within the console's width claims to fit
    unbounded = console.options.update(max_width=1 << 16)
    names = [i for i, column in enumerate(table.columns) if column.is_name]
    longest = max((len(clean(row[i])) for row in table.rows for i in names), default=0)
    for width in range(max(longest, _NARROWEST_NAME), _NARROWEST_NAME - 1, -1):
        drawn = _with_names(table, width, marked)
        if drawn.__rich_measure__(console, unbounded).maximum <= console.width:
            return drawn
    return None


def _with_names(table: Table, width: int, marked: Collection[str]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        head = Text(clean(column.name).replace("_", "_\n", 1).replace(" ", "\n", 1))
        justify = "left" if column.is_name else "right"
        drawn.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in table.rows:
        cells = [
            Text("\n".join(wrap_name(clean(cell), width)) if column.is_name else clean(cell))
            for column, cell in zip(table.columns, row, strict=True)
        ]
        drawn.add_row(*cells, style="green" if set(row) & set(marked) else None)
    return drawn
