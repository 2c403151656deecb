"""Script that analyzes the text of SQL queries; a hostile one costs this process, not the user's.

`synque_select.sql.parsing` starts it with `python -I -S`, and with the folder of sqlglot. It reads
one line of JSON per query and writes one line: the facts, or null for a query that cannot be parsed
within the limits. sqlglot takes four times as long for every two joins without a condition, so
the time is that of the processor, whatever else the machine does.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias, TypedDict

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

__all__ = ["Column", "ParserOptions", "QueryFacts", "Value", "main"]

Column: TypeAlias = tuple[str, str]
"""A table and the name of its column, in lower case."""
Value: TypeAlias = str | int | float


class ParserOptions(TypedDict):
    """Where sqlglot is, and the limits, passed as the script's JSON argument."""

    folder: str
    time_limit_s: float
    limits: dict[str, int]


class QueryFacts(TypedDict):
    """What is read from the text of a query; tables and columns are in lower case."""

    normal: str
    tables: list[str]
    columns: list[Column]
    conditions: list[tuple[str, str, Value]]
    joins: list[tuple[Column, Column]]


class _OutOfTime(BaseException):
    """Raised wherever the parser is; sqlglot catches exceptions, but not this one."""


_EXACT = 2**53


def main() -> None:
    """Answer queries until the input ends."""
    options: ParserOptions = json.loads(sys.argv[1])
    # Ctrl+C goes to the whole process group; the parent decides when this process ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _stop)
    sys.path.append(options["folder"])
    _warm_up()
    for name, value in options["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    for line in sys.stdin:
        print(_answer(line, options["time_limit_s"]), flush=True)


def _warm_up() -> None:
    """Import what a query needs, while files may still be opened."""
    _facts("SELECT 1")


def _stop(number: int, frame: FrameType | None) -> None:
    raise _OutOfTime


@contextmanager
def _processor_time(limit_s: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(line: str, time_limit_s: float) -> str:
    try:
        with _processor_time(time_limit_s):
            return json.dumps(_facts(json.loads(line)))
    # sqlglot has errors of its own, and raises others for input that nobody thought of
    except (Exception, _OutOfTime):
        return "null"


def _facts(query: str) -> QueryFacts:
    import sqlglot

    parsed = sqlglot.parse_one(query, read="sqlite")
    columns = _columns(parsed)
    facts: QueryFacts = {
        "normal": "",
        "tables": _tables(parsed),
        "columns": sorted(set(columns.values())),
        "conditions": [(*column, value) for column, value in _conditions(parsed, columns).items()],
        "joins": list(_joins(parsed, columns)),
    }
    # last, because it changes the query
    return {**facts, "normal": _normal(parsed)}


def _normal(query: Expr) -> str:
    from sqlglot import exp

    for name in query.find_all(exp.Identifier):
        name.set("this", name.this.lower())
        name.set("quoted", False)
    return str(query.sql(dialect="sqlite", comments=False))


def _tables(query: Expr) -> list[str]:
    from sqlglot import exp

    return sorted({table.name.lower() for table in query.find_all(exp.Table)})


def _columns(query: Expr) -> dict[int, Column]:
    """Return the column that each column expression refers to, by the id of the latter.

    A column belongs to the table that qualifies it, by name or alias, or to the only table of the
    query; others are left out.
    """
    from sqlglot import exp

    tables = {t.alias_or_name.lower(): t.name.lower() for t in query.find_all(exp.Table)}
    known = set(tables.values())
    tables |= {name: name for name in known}
    referred: dict[int, Column] = {}
    for column in query.find_all(exp.Column):
        name, qualifier = column.name.lower(), column.table.lower()
        table = tables.get(qualifier, "") if qualifier else ""
        if not qualifier and len(known) == 1:
            table = next(iter(known))
        if table and name:
            referred[id(column)] = table, name
    return referred


def _joins(query: Expr, columns: dict[int, Column]) -> Iterator[tuple[Column, Column]]:
    from sqlglot import exp

    for equal in query.find_all(exp.EQ):
        left, right = columns.get(id(equal.this)), columns.get(id(equal.expression))
        if left is not None and right is not None:
            yield left, right


def _conditions(query: Expr, columns: dict[int, Column]) -> dict[Column, Value]:
    """Return a value for each column that a query compares with a literal."""
    from sqlglot import exp

    values = {}
    kinds = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.In, exp.Between)
    for condition in query.find_all(*kinds):
        column = columns.get(id(condition.this))
        if column is None:
            continue
        if isinstance(condition, exp.In):
            given = next(iter(condition.expressions), None)
        else:
            given = condition.args.get("low") or condition.expression
        value = _literal(given)
        if value is not None:
            values[column] = _met(condition, value)
    return values


def _met(condition: Expr, value: Value) -> Value:
    """Return a value that meets a comparison with this one."""
    from sqlglot import exp

    if isinstance(condition, exp.Like):
        return str(value).replace("%", "").replace("_", "x")
    if isinstance(condition, exp.GT | exp.NEQ):
        return f"{value}~" if isinstance(value, str) else value + 1
    if isinstance(condition, exp.LT):
        return "" if isinstance(value, str) else value - 1
    return value


def _literal(given: Expr | None) -> Value | None:
    from sqlglot import exp

    sign = 1
    if isinstance(given, exp.Neg):
        sign, given = -1, given.this
    if not isinstance(given, exp.Literal):
        return None
    if given.is_string:
        return str(given.this)
    number = float(given.this)
    # larger ones need not fit into an integer of SQLite
    return sign * (int(number) if number.is_integer() and number <= _EXACT else number)


if __name__ == "__main__":
    main()
