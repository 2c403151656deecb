"""A table as plain text for terminals and as Markdown for loggers.

Why not rich: it shortens cells at their end, so that names which differ there look the same, and in
a narrow terminal it squeezes or drops columns instead of continuing the table below.
"""

from __future__ import annotations

import itertools
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Column", "Table", "shorten", "shorten_names", "terminal_width", "wrap_text"]

_MIN_NAME = 10
_MAX_NAME = 60
_Parts = Literal["words and ends", "words", "letters"]


@dataclass(frozen=True)
class Column:
    """A column's head and its layout.

    Args:
        name: The head.
        is_name: Whether the column holds names: aligned to the left, cut where they agree if the
            line is too long, and repeated if the table is split into several blocks. Other columns
            hold figures.
        stays: Whether the column stays in the same block as the one before it.
        is_reminder: Whether names may be cut until they are hard to read, for fewer blocks: a
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
        lines = [_clean(self.title), ""] if self.title else []
        if self.columns:
            cells = [[_clean(column.name) for column in self.columns]]
            cells += [[_clean(cell) for cell in row] for row in self.rows]
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
        cells_of_name = [row[name] for row in cells[1:]]
        words = _distinct_width(cells_of_name, "words and ends")
        letters = _distinct_width(cells_of_name, "letters")
        is_cut = self.columns[name].is_reminder or words > natural
        least = min(natural, max(_MIN_NAME, letters if is_cut else words))
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
        cells = {i: self._cut([row[i] for row in rows], i, widths[i]) for i in group}

        def line(row: Mapping[int, str]) -> str:
            parts = [_pad(row[i], widths[i], left=self.columns[i].is_name) for i in group]
            return "  ".join(parts).rstrip()

        depth = max(len(heads[i]) for i in group)
        raised = {i: [""] * (depth - len(heads[i])) + heads[i] for i in group}
        rule = "  ".join("-" * widths[i] for i in group)
        figures = [i for i in group if not self.columns[i].is_name]
        shown = [
            r
            for r in range(len(rows))
            if r not in self.sparse_rows or any(rows[r][i] for i in figures)
        ]
        return [
            *(line({i: shorten(raised[i][d], widths[i]) for i in group}) for d in range(depth)),
            rule,
            *(line({i: cells[i][r] for i in group}) for r in shown),
        ]

    def _cut(self, cells: list[str], column: int, width: int) -> list[str]:
        if self.columns[column].is_name:
            return shorten_names(cells, width)
        return [shorten(cell, width) for cell in cells]

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
    joined = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", _clean(text))
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
        >>> _in_two("selection_stability"), _in_two("95 % interval"), _in_two("pad")
        (['selection_', 'stability'], ['95 %', 'interval'], ['pad'])
    """
    places = [match.end() for match in re.finditer(r"[ _]", head[:-1])]
    if not places:
        return [head]
    place = min(places, key=lambda at: max(at, len(head) - at))
    return [head[:place].rstrip(), head[place:]]


def _distinct_width(names: Sequence[str], parts: _Parts) -> int:
    """Return the smallest width at which names keep these parts."""
    return max(map(_width, _forms(names, parts, room=0).values()), default=0)


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


def shorten_names(names: Sequence[str], width: int) -> list[str]:
    """Shorten names where they agree, so that different names stay different.

    Each name keeps the words at which it differs from another one, its first and its last word, and
    as much around them as there is room for. If the width does not allow that, it keeps the letters
    at which it differs; and if it does not even allow these, look-alikes are numbered.

    Args:
        names: The names; those that fit are not changed.
        width: Largest width in columns of a terminal, at least 10.

    Returns:
        The names in the same order, equal where they were equal, and different where they were
        different.

    Example:
        >>> names = [f"llama3.1-8b_few-shot_bg_{time}-time-info_v1" for time in ("test", "train")]
        >>> shorten_names(names, 20)
        ['llama3...test...v1', 'llama3...train...v1']
        >>> shorten_names(["gpt-4o_temperature=1.0_seed=42", "gpt-4o_temperature=1.0_seed=7"], 17)
        ['gpt-4o_...seed=42', 'gpt-4o_...seed=7']
    """
    if all(_width(name) <= width for name in names):
        return list(names)
    for parts in ("words and ends", "words", "letters"):
        for room in range(width, -1, -1):
            cut = _forms(names, parts, room)
            shown = {name: name if _width(name) <= width else cut[name] for name in cut}
            if max(map(_width, shown.values())) <= width and _all_differ(shown):
                return [shown[name] for name in names]
    shown = {}
    taken = {name for name in names if _width(name) <= width}
    for name in dict.fromkeys(names):
        shown[name] = name if name in taken else _untaken(name, width, taken)
        taken.add(shown[name])
    return [shown[name] for name in names]


def _all_differ(shown: Mapping[str, str]) -> bool:
    return len(set(shown.values())) == len(shown)


def _untaken(name: str, width: int, taken: Iterable[str]) -> str:
    """Return a short form that is not taken, numbered if need be."""
    if (short := shorten(name, width)) not in taken:
        return short
    tagged = (shorten(name, width - len(f"~{i}")) + f"~{i}" for i in itertools.count(2))
    return next(form for form in tagged if form not in taken)


def _forms(names: Sequence[str], parts: _Parts, room: int) -> dict[str, str]:
    """Cut each name where it agrees with all that it is like so far.

    Two names that first differ at a place are cut in the same way before it, because they differ
    from every third name at the same places there; and both keep what is at that place. So their
    forms differ, too.

    Args:
        names: The names.
        parts: What is kept where names differ: whole words or single letters; and whether the
            first and last word are kept, too.
        room: How many characters to keep around that and at both ends.
    """
    places = _differing_places(names)
    return {name: _form(name, at, parts, room) for name, at in places.items()}


def _differing_places(names: Sequence[str]) -> dict[str, set[int]]:
    """Return for each name the places at which it first differs from another name."""
    order = sorted(set(names))
    places: dict[str, set[int]] = {name: set() for name in order}
    # sorted, names agree exactly as far as the least agreement of the neighbors between them
    for direction in (order, order[::-1]):
        agreement: list[int] = []  # with the names before, each value once
        for last, name in itertools.pairwise(direction):
            common = _common(last, name)
            agreement = [*(length for length in agreement if length < common), common]
            places[name].update(agreement)
    return places


def _common(a: str, b: str) -> int:
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _form(name: str, places: set[int], parts: _Parts, room: int) -> str:
    whole_words = parts != "letters"
    windows = [(0, room), (len(name) - room, len(name))]
    kept_places = {*places, 0, len(name) - 1} if parts == "words and ends" else places
    for place in kept_places:
        first, last = place, place + 1
        while whole_words and _in_word(name, first):
            first -= 1
        while whole_words and _in_word(name, last):
            last += 1
        windows.append((first - room, last + room))
    kept = [False] * len(name)
    for first, last in windows:
        while whole_words and _in_word(name, first):  # no half words at the edges
            first += 1
        while whole_words and _in_word(name, last):
            last -= 1
        for i in range(max(0, first), min(len(name), last)):
            kept[i] = True
    form = ""
    for is_kept, run in itertools.groupby(range(len(name)), kept.__getitem__):
        part = "".join(name[i] for i in run)
        form += part if is_kept or len(part) <= 3 else "..."
    return form


def _in_word(name: str, at: int) -> bool:
    """Return whether a cut before this place would divide a word."""
    return 0 < at < len(name) and name[at - 1].isalnum() and name[at].isalnum()
