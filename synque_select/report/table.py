"""A table as plain text and as Markdown for loggers.

Why not rich for plain text: in a narrow terminal it squeezes or drops columns instead of continuing
the table below, and it breaks names without regard to their words.
"""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

__all__ = ["Column", "Table", "clean", "markdown_prose", "terminal_width", "wrap_name", "wrap_text"]

_MIN_NAME = 10


@dataclass(frozen=True)
class Column:
    """A column's head and its layout.

    Args:
        name: The head.
        is_name: Whether the column holds names: aligned to the left, continued on the next line if
            the line is too long, and repeated if the table is split into several blocks. Other
            columns hold figures.
        stays: Whether the column stays in the same block as the one before it.
    """

    name: str
    is_name: bool = False
    stays: bool = False


@dataclass(frozen=True)
class Table:
    """A title, heads, formatted cells, and the notes that belong to them.

    `str(table)` is its plain text at the width of the terminal.

    Args:
        title: The title; may be empty.
        columns: The columns.
        rows: The cells of each row.
        notes: Sentences below the table.
        sparse_rows: Positions of the rows that a block leaves out if it has no figure of them.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    sparse_rows: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return plain text, with no line longer than the width if the columns allow it.

        Args:
            width: Width in characters; None for that of the terminal, 100 without one.
        """
        width = width or terminal_width()
        lines = [clean(self.title), ""] if self.title else []
        if self.columns:
            cells = [[clean(column.name) for column in self.columns]]
            cells += [[clean(cell) for cell in row] for row in self.rows]
            for block in self._blocks(cells, width):
                lines += [*block, ""]
        for note in self.notes:
            lines += wrap_text(note, width, bullet="- ")
        return "\n".join(lines).rstrip("\n")

    def _blocks(self, cells: list[list[str]], width: int) -> list[list[str]]:
        """Split the columns into blocks that fit the width, each beginning with the names."""
        heads = [[head] for head in cells[0]]
        widths = _widths(heads, cells[1:])
        if sum(widths) + 2 * len(widths) - 2 > width:
            heads = [_in_two(head[0]) for head in heads]
            widths = _widths(heads, cells[1:])
        names = self._names()
        if not names:
            return self._blocks_of(heads, cells[1:], widths, width)
        widest = min(width, max(widths[i] for i in names))

        def blocks(most: int) -> list[list[str]]:
            capped = [min(w, most) if i in names else w for i, w in enumerate(widths)]
            return self._blocks_of(heads, cells[1:], capped, width)

        # names on several lines make rows longer, and names on one line may need more blocks
        tried = [blocks(most) for most in range(widest, min(widest, _MIN_NAME) - 1, -1)]
        return min(tried, key=lambda parts: (max(0, _span(parts) - width), sum(map(len, parts))))

    def _blocks_of(
        self, heads: list[list[str]], rows: list[list[str]], widths: list[int], width: int
    ) -> list[list[str]]:
        return [self._lines(heads, rows, group, widths) for group in self._groups(widths, width)]

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
        names, figures = self._names(), [i for i in group if not self.columns[i].is_name]

        def lines(row: Sequence[Sequence[str]]) -> list[str]:
            shown = [
                [_pad(part, widths[i], left=i in names) for part in parts]
                for i, parts in zip(group, row, strict=True)
            ]
            blank = [" " * widths[i] for i in group]
            return [
                "  ".join(p or b for p, b in zip(parts, blank, strict=True)).rstrip()
                for parts in zip_longest(*shown)
            ]

        def wrapped(i: int, text: str) -> list[str]:
            return wrap_name(text, widths[i]) if i in names else [text]

        top = [[part for line in heads[i] for part in wrapped(i, line)] for i in group]
        depth = max(map(len, top))
        return [
            *lines([[""] * (depth - len(head)) + head for head in top]),
            "  ".join("-" * widths[i] for i in group),
            *(
                line
                for r, row in enumerate(rows)
                if r not in self.sparse_rows or any(row[i] for i in figures)
                for line in lines([wrapped(i, row[i]) for i in group])
            ),
        ]

    def markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown; names cannot break out of their cell."""
        heads = [_escape(column.name) for column in self.columns]
        rules = [":--" if column.is_name else "--:" for column in self.columns]
        rows = [heads, rules, *([_escape(cell) for cell in row] for row in self.rows)]
        lines = [f"**{markdown_prose(self.title)}**", ""] if self.title else []
        lines += ["| " + " | ".join(row) + " |" for row in rows] if self.columns else []
        if self.notes:
            lines += ["", *(f"- {markdown_prose(note)}" for note in self.notes)]
        return "\n".join(lines)


def terminal_width() -> int:
    """Return the width of the terminal, 100 without one."""
    return shutil.get_terminal_size((100, 24)).columns


def wrap_text(text: str, width: int, *, bullet: str = "") -> list[str]:
    """Break a sentence into lines that are safe for a terminal, whatever the names in it are.

    Args:
        text: The sentence.
        width: Largest width of a line.
        bullet: What the first line begins with; the others are indented by as much.

    Example:
        >>> wrap_text("Train on few-shot and zero-shot.", 24, bullet="- ")
        ['- Train on few-shot and', '  zero-shot.']
    """
    # a number and its percent sign stay on one line
    joined = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", clean(text))
    # textwrap counts characters, and a wide one takes two columns: it is counted with a filler,
    # which a long word may be divided before
    spaced = "".join(c + "\0" if _width(c) == 2 else c for c in joined)
    width = max(width, 20) - ("\0" in spaced)
    lines = textwrap.wrap(
        spaced,
        width,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ").replace("\0", "").rstrip() for line in lines]


def wrap_name(name: str, width: int) -> list[str]:
    """Break a name into lines, after a blank, a hyphen or the like, so that all of it is shown.

    A text of several words is broken at blanks alone, where each of its words fits a line.

    Args:
        name: The name.
        width: Largest width of a line in columns of a terminal, at least 5.

    Example:
        >>> wrap_name("llama3.1-8b_few-shot_bg_train-time-info_v1", 26)
        ['llama3.1-8b_few-shot_bg_', '  train-time-info_v1']
        >>> wrap_name("The demo: `synque-select experiment --config digits`", 28)
        ['The demo: `synque-select', '  experiment --config', '  digits`']
    """
    lines = [""]
    words = name.split()
    # in a sentence, such as one with a command, a word stays whole
    is_sentence = len(words) > 1 and max(map(_width, words)) + 2 <= width
    for part in re.findall(r"\S* +|\S+" if is_sentence else r"[^ _/+-]*[ _/+-]+|[^ _/+-]+", name):
        if _width((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
            continue
        if _width(part.rstrip()) + 2 <= width:
            lines.append(f"  {part}")
            continue
        for c in part:  # a word that is longer than a line
            if _width((lines[-1] + c).rstrip()) > width:
                lines.append("  ")
            lines[-1] += c
    return [line.rstrip() for line in lines if line.strip()] or [""]


def clean(text: str) -> str:
    """Make a text safe for a terminal: one line, no control or direction characters."""
    text = re.sub(r"\s+", " ", text)
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _escape(text: str) -> str:
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", clean(text))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_prose(text: str) -> str:
    r"""Escape a sentence for Markdown; what stands between backticks is code.

    Args:
        text: The sentence.

    Example:
        >>> print(markdown_prose("`synque-select sweep` trains on a*b"))
        `synque-select sweep` trains on a\*b
    """
    parts = re.split(r"`([^`\n]+)`", text)
    # nothing in a code span is markup
    return "".join(f"`{clean(p)}`" if i % 2 else _escape(p) for i, p in enumerate(parts))


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide characters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _span(blocks: Sequence[Sequence[str]]) -> int:
    return max(_width(line) for block in blocks for line in block)


def _widths(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(*rows, strict=True) if rows else ((),) * len(heads)
    return [max(map(_width, (*head, *cells))) for head, cells in zip(heads, columns, strict=True)]


def _in_two(head: str) -> list[str]:
    """Split a head into two lines, as evenly as its spaces and underscores allow.

    Example:
        >>> _in_two("selection_stability"), _in_two("95 % interval"), _in_two("pad")
        (['selection_', 'stability'], ['95 %', 'interval'], ['pad'])
    """
    places = [match.end() for match in re.finditer(r"[ _]", head[:-1])]
    if not places:
        return [head]
    place = min(places, key=lambda at: max(at, len(head) - at))
    return [head[:place].rstrip(), head[place:]]


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * max(0, width - _width(text))
    return text + space if left else space + text
