"""A table as plain text for terminals and as Markdown for loggers.

Why not rich: it shortens cells at their end, so that names which differ in a seed look the same,
and in a narrow terminal it squeezes or drops columns instead of continuing the table below.
"""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Column", "Table", "shorten"]

_MIN_NAME = 10
_MAX_NAME = 60


@dataclass(frozen=True)
class Column:
    """A column's head and its layout.

    Args:
        name: The head.
        is_name: Whether the column holds names: aligned to the left, shortened in the middle if
            the line is too long, and repeated if the table is split into several blocks. Other
            columns hold figures.
        stays: Whether the column stays in the same block as the one before it.
        is_reminder: Whether names may be shortened until they look alike, for fewer blocks: a
            table above has them in the same order.
        is_whole: Whether names are shortened only if a line cannot hold them, because their words
            matter.
    """

    name: str
    is_name: bool = False
    stays: bool = False
    is_reminder: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Table:
    """A title, heads, formatted cells, and the notes that belong to them.

    `str(table)` is its plain text at the width of the terminal.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return plain text, with no line longer than the width if the columns allow it.

        Args:
            width: Width in characters; None for that of the terminal, 100 without one.
        """
        width = width or shutil.get_terminal_size((100, 24)).columns
        lines = [_clean(self.title), ""] if self.title else []
        if self.columns:
            cells = [[_clean(column.name) for column in self.columns]]
            cells += [[_clean(cell) for cell in row] for row in self.rows]
            for block in self._blocks(cells, width):
                lines += [*block, ""]
        for note in self.notes:
            lines += textwrap.wrap(
                _clean(note),
                max(width, 20),
                initial_indent="- ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
        return "\n".join(lines).rstrip("\n")

    def _blocks(self, cells: list[list[str]], width: int) -> list[list[str]]:
        """Split the columns into blocks that fit the width, each beginning with the names."""
        heads = [[head] for head in cells[0]]
        widths = _widths(heads, cells[1:])
        if sum(widths) + 2 * len(widths) - 2 > width:
            heads = [_in_two(head[0]) for head in heads]
            widths = _widths(heads, cells[1:])
        names = self._names()
        if names:  # the longest name is shortened
            longest = max(names, key=lambda i: widths[i])
            widths[longest] = self._name_width(longest, cells, widths, width)
        groups = self._groups(widths, width)
        return [self._lines(heads, cells[1:], group, widths) for group in groups]

    def _name_width(self, name: int, cells: list[list[str]], widths: list[int], width: int) -> int:
        """Return the largest width for names that gives the fewest possible blocks."""
        spans = [sum(widths[i] + 2 for i in unit) for unit in self._units()]
        others = sum(widths[i] + 2 for i in self._names() if i != name)
        most = max(_MIN_NAME, width - others - max(spans, default=0) - 2)
        natural = min(widths[name], _MAX_NAME, most)
        distinct = _distinct_width([row[name] for row in cells])
        is_cut = self.columns[name].is_reminder or distinct > natural
        least = min(natural, _MIN_NAME if is_cut else distinct)
        if self.columns[name].is_whole:
            least = natural

        def n_blocks(tried: int) -> int:
            return len(self._groups([*widths[:name], tried, *widths[name + 1 :]], width))

        fewest = n_blocks(least)
        return next(tried for tried in range(natural, -1, -1) if n_blocks(tried) == fewest)

    def _groups(self, widths: list[int], width: int) -> list[list[int]]:
        """Return the columns of each block."""
        names = self._names()
        lead = sum(widths[i] + 2 for i in names)
        groups, used = [list(names)], lead
        for unit in self._units():
            span = sum(widths[i] + 2 for i in unit)
            if used + span - 2 > width and len(groups[-1]) > len(names):
                groups.append(list(names))
                used = lead
            groups[-1] += unit
            used += span
        return groups

    def _names(self) -> list[int]:
        return [i for i, column in enumerate(self.columns) if column.is_name]

    def _units(self) -> list[list[int]]:
        """Return the columns of figures; those that stay together share a list."""
        units: list[list[int]] = []
        for i, column in enumerate(self.columns):
            if column.is_name:
                continue
            if column.stays and units:
                units[-1].append(i)
            else:
                units.append([i])
        return units

    def _lines(
        self, heads: list[list[str]], rows: list[list[str]], group: list[int], widths: list[int]
    ) -> list[str]:
        def line(row: Sequence[str]) -> str:
            parts = [
                _pad(shorten(row[i], widths[i]), widths[i], left=self.columns[i].is_name)
                for i in group
            ]
            return "  ".join(parts).rstrip()

        depth = max(len(heads[i]) for i in group)
        raised = [[""] * (depth - len(head)) + head for head in heads]
        rule = "  ".join("-" * widths[i] for i in group)
        return [*(line(row) for row in zip(*raised, strict=False)), rule, *map(line, rows)]

    def markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown; names cannot break out of their cell."""
        heads = [_escape(column.name) for column in self.columns]
        rules = [":--" if column.is_name else "--:" for column in self.columns]
        rows = [heads, rules, *([_escape(cell) for cell in row] for row in self.rows)]
        lines = [f"**{_escape(self.title)}**", ""] if self.title else []
        lines += ["| " + " | ".join(row) + " |" for row in rows] if self.columns else []
        if self.notes:
            lines += ["", *(f"- {_escape(note)}" for note in self.notes)]
        return "\n".join(lines)


def _clean(text: str) -> str:
    """Make a text safe for a terminal: one line, no control or direction characters."""
    text = re.sub(r"\s+", " ", text)
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _escape(text: str) -> str:
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", _clean(text))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide characters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _widths(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(*rows, strict=True) if rows else ((),) * len(heads)
    return [max(map(_width, (*head, *cells))) for head, cells in zip(heads, columns, strict=True)]


def _in_two(head: str) -> list[str]:
    """Split a head into two lines, as evenly as its spaces and underscores allow.

    Example:
        >>> _in_two("selection_stability"), _in_two("mean rank"), _in_two("pad")
        (['selection_', 'stability'], ['mean', 'rank'], ['pad'])
    """
    places = [match.end() for match in re.finditer(r"[ _]", head[:-1])]
    if not places:
        return [head]
    place = min(places, key=lambda at: max(at, len(head) - at))
    return [head[:place].rstrip(), head[place:]]


def _distinct_width(names: Sequence[str]) -> int:
    """Return the smallest width at which different names are not shortened to the same text."""
    longest = max(map(_width, names))
    n_names = len(set(names))
    widths = range(_MIN_NAME, longest)
    return next((w for w in widths if len({shorten(n, w) for n in names}) == n_names), longest)


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * max(0, width - _width(text))
    return text + space if left else space + text


def shorten(text: str, width: int) -> str:
    """Shorten a text in its middle: names often differ at their ends, such as a seed or a model.

    Example:
        >>> shorten("gpt-4o_temperature=1.0_seed=42", 19)
        'gpt-4o_t..._seed=42'
    """
    if _width(text) <= width:
        return text
    if width < 5:
        return text[:width]
    head, tail = "", ""
    room = width - 3
    for i in range(len(text)):
        taken = text[len(text) - 1 - i // 2] if i % 2 else text[i // 2]
        if _width(head + tail + taken) > room:
            break
        head, tail = (head, taken + tail) if i % 2 else (head + taken, tail)
    return f"{head}...{tail}"
