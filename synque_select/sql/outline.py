"""The outline of a query: its clauses at each depth of parentheses, found by scanning."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["QueryOutline", "is_ordered", "with_inner_order", "with_window_order"]

# a doubled quote inside a literal is scanned as two adjacent literals, which is harmless here; a
# literal without an end reaches to that of the query, so that each character is scanned once
_TOKENS = re.compile(
    r"""('[^']*(?:'|$)|"[^"]*(?:"|$)|`[^`]*(?:`|$)|\[[^\]]*(?:\]|$)|--[^\n]*|/\*.*?(?:\*/|$)|[()])""",
    re.DOTALL,
)
# names may contain "$" and begin with a sign of a parameter
_ORDER_BY = re.compile(r"(?<![\w$@:#])order\s+by(?![\w$])", re.IGNORECASE)
_LIMIT = re.compile(r"(?<![\w$@:#])limit(?![\w$])", re.IGNORECASE)
_OFFSET = re.compile(r"(?<![\w$@:#])offset(?![\w$])|,", re.IGNORECASE)
_RANDOM = re.compile(r"(?<![\w$@:#.])random(?:blob)?\s*$", re.IGNORECASE)
# functions whose value for a row depends on the order of tied rows: RANK and sums treat these alike
_WINDOW = re.compile(
    r"(?<![\w$@:#.])(?:row_number|ntile|lag|lead|first_value)\s+over\s*$", re.IGNORECASE
)
_FRAME = re.compile(r"(?<![\w$@:#.])(?:rows|range|groups)(?![\w$])", re.IGNORECASE)
_COMPOUND = re.compile(r"(?<![\w$@:#])(?:union|intersect|except)(?![\w$])", re.IGNORECASE)


class _Level:
    """Two texts of the same length: the query without comments, and nothing but its clauses."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._outer: list[str] = []

    def add(self, part: str, *, is_outer: bool) -> None:
        blank = " " * len(part)
        is_comment = part.startswith(("--", "/*"))
        is_plain = is_outer and not part.startswith(("'", '"', "`", "[", "(", ")"))
        self._text.append(blank if is_comment else part)
        self._outer.append(part if is_plain and not is_comment else blank)

    @property
    def whole(self) -> str:
        return "".join(self._text)

    @property
    def clauses(self) -> str:
        return "".join(self._outer)

    @property
    def end_of_clauses(self) -> str:
        # a few parts: joining all of them at each parenthesis takes quadratic time
        return "".join(self._outer[-8:])


@dataclass(frozen=True)
class QueryOutline:
    r"""The parts of a query that decide the order of its rows, and which of them it returns.

    Args:
        unlimited: The query without comments and without LIMIT and OFFSET.
        is_ordered: Whether it has ORDER BY outside all parentheses; then `unlimited` ends with it.
        limit: The expression of LIMIT; None if it has none.
        offset: The expression of OFFSET; None if it has none.
        is_random: Whether it calls `random` or `randomblob`, at any depth.

    Example:
        >>> outline = QueryOutline.of("SELECT a FROM t ORDER BY b -- down\n LIMIT 2, 5;")
        >>> outline.unlimited, outline.limit, outline.offset
        ('SELECT a FROM t ORDER BY b', '5', '2')
    """

    unlimited: str
    is_ordered: bool
    limit: str | None
    offset: str | None
    is_random: bool = False

    @classmethod
    def of(cls, query: str) -> QueryOutline:
        """Scan one SQL statement; invalid SQL is accepted.

        Args:
            query: The statement.
        """
        level = _Level()
        depth, is_random, before = 0, False, ""
        for part in _TOKENS.split(query):
            is_random = is_random or (part == "(" and _RANDOM.search(before) is not None)
            before = before if part.startswith(("--", "/*")) or not part.strip() else part
            depth -= part == ")"
            level.add(part, is_outer=depth == 0)
            depth += part == "("
        whole, clauses = level.whole, level.clauses
        end = clauses.find(";")
        end = len(clauses) if end < 0 else end
        limit_word = _LIMIT.search(clauses, 0, end)
        order = _ORDER_BY.search(clauses, 0, end)
        if limit_word is None:
            return cls(whole[:end].strip(), order is not None, None, None, is_random)
        limit, offset = whole[limit_word.end() : end].strip(), None
        offset_word = _OFFSET.search(clauses, limit_word.end(), end)
        if offset_word is not None:
            parts = whole[limit_word.end() : offset_word.start()], whole[offset_word.end() : end]
            # "LIMIT 2, 5" skips 2 rows
            limit, offset = (p.strip() for p in (parts[::-1] if offset_word[0] == "," else parts))
        unlimited = whole[: limit_word.start()].strip()
        return cls(unlimited, order is not None, limit, offset, is_random)


def is_ordered(query: str) -> bool:
    """Whether a query sorts its result, that is, has ORDER BY outside all parentheses.

    Args:
        query: One SQL statement; it is scanned, not parsed, so that invalid SQL is accepted.

    Example:
        >>> is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)")
        False
        >>> is_ordered("select a from t order  by a")
        True
    """
    return QueryOutline.of(query).is_ordered


def with_inner_order(query: str, last: str) -> str | None:
    """Return a query whose subqueries with LIMIT sort by one more term, after all of their own.

    Args:
        query: One SQL statement.
        last: The term; it must be allowed in any query.

    Returns:
        The query; None if no subquery has LIMIT.

    Example:
        >>> with_inner_order("SELECT max(a) FROM (SELECT a FROM t LIMIT 2)", "random()")
        'SELECT max(a) FROM (SELECT a FROM t ORDER BY random() LIMIT 2)'
        >>> with_inner_order("SELECT a FROM t LIMIT 2", "random()") is None
        True
    """
    return _changed(query, lambda inner, _: _with_order(inner, last))


def with_window_order(query: str, last: str) -> str | None:
    """Return a query whose windows sort by one more term, where the order of ties matters.

    Args:
        query: One SQL statement.
        last: The term.

    Returns:
        The query; None if it has no such window. Named windows stay as they are.

    Example:
        >>> with_window_order("SELECT a, row_number() OVER (ORDER BY b) FROM t", "random()")
        'SELECT a, row_number() OVER (ORDER BY b, random()) FROM t'
        >>> with_window_order("SELECT a, rank() OVER (ORDER BY b) FROM t", "random()") is None
        True
    """

    def ordered(inner: _Level, outer: _Level) -> str | None:
        if not _WINDOW.search(outer.end_of_clauses):
            return None
        frame = _FRAME.search(inner.clauses)
        end = len(inner.whole) if frame is None else frame.start()
        rows, rest = inner.whole[:end].rstrip(), inner.whole[end:]
        begin = "," if _ORDER_BY.search(inner.clauses, 0, end) else " ORDER BY"
        return f"{rows}{begin} {last} {rest}".rstrip()

    return _changed(query, ordered)


def _changed(query: str, change: Callable[[_Level, _Level], str | None]) -> str | None:
    """Replace what is in parentheses where a function of it and what is around it says so."""
    # a loop, not a recursion: the depth is that of the query
    levels, is_changed = [_Level()], False
    for part in _TOKENS.split(query):
        if part == "(":
            levels.append(_Level())
        elif part == ")" and len(levels) > 1:
            inner = levels.pop()
            text = change(inner, levels[-1])
            is_changed = is_changed or text is not None
            levels[-1].add("(" + (text or inner.whole) + ")", is_outer=False)
        else:
            levels[-1].add(part, is_outer=True)
    return levels[0].whole if is_changed and len(levels) == 1 else None


def _with_order(level: _Level, last: str) -> str | None:
    whole, clauses = level.whole, level.clauses
    limit = _LIMIT.search(clauses)
    if limit is None:
        return None
    order = _ORDER_BY.search(clauses, 0, limit.start())
    # the window of a function has its ORDER BY in parentheses, so this one is that of the query
    end = limit.start() if order is None else order.start()
    rows = whole[:end].rstrip()
    terms = last if order is None else f"{whole[order.end() : limit.start()].strip()}, {last}"
    if _COMPOUND.search(clauses, 0, end):
        # a compound query sorts by its columns only
        rows = f"SELECT * FROM ({rows})"
    return f"{rows} ORDER BY {terms} {whole[limit.start() :]}"
