"""The outline of a query: its clauses outside of parentheses, found by scanning, not by parsing."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["QueryOutline", "is_ordered"]

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


@dataclass(frozen=True)
class QueryOutline:
    r"""The parts of a query that decide the order of its rows, and which of them it returns.

    Args:
        unlimited: The query without comments and without LIMIT and OFFSET.
        is_ordered: Whether it has ORDER BY outside all parentheses; then `unlimited` ends with it.
        limit: The expression of LIMIT; None if it has none.
        offset: The expression of OFFSET; None if it has none.

    Example:
        >>> outline = QueryOutline.of("SELECT a FROM t ORDER BY b -- down\n LIMIT 2, 5;")
        >>> outline.unlimited, outline.limit, outline.offset
        ('SELECT a FROM t ORDER BY b', '5', '2')
    """

    unlimited: str
    is_ordered: bool
    limit: str | None
    offset: str | None

    @classmethod
    def of(cls, query: str) -> QueryOutline:
        """Scan one SQL statement; invalid SQL is accepted.

        Args:
            query: The statement.
        """
        # two texts of the same length: without comments, and with nothing but the outer clauses
        text, outer, depth = [], [], 0
        for part in _TOKENS.split(query):
            blank = " " * len(part)
            is_comment = part.startswith(("--", "/*"))
            is_plain = depth == 0 and not part.startswith(("'", '"', "`", "[", "(", ")"))
            text.append(blank if is_comment else part)
            outer.append(part if is_plain and not is_comment else blank)
            depth += {"(": 1, ")": -1}.get(part, 0)
        whole, clauses = "".join(text), "".join(outer)
        end = clauses.find(";")
        end = len(clauses) if end < 0 else end
        limit_word = _LIMIT.search(clauses, 0, end)
        order = _ORDER_BY.search(clauses, 0, end)
        if limit_word is None:
            return cls(whole[:end].strip(), order is not None, None, None)
        limit, offset = whole[limit_word.end() : end].strip(), None
        offset_word = _OFFSET.search(clauses, limit_word.end(), end)
        if offset_word is not None:
            parts = whole[limit_word.end() : offset_word.start()], whole[offset_word.end() : end]
            # "LIMIT 2, 5" skips 2 rows
            limit, offset = (p.strip() for p in (parts[::-1] if offset_word[0] == "," else parts))
        return cls(whole[: limit_word.start()].strip(), order is not None, limit, offset)


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
