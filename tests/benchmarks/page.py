"""What `make bench` measured: kept in benchmarks.json, and written into docs/performance.md.

The file has, for each benchmark, the rows of its last run and what they were measured on. The
tables of the page are made from it alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.docs_tables import ROOT, write_between
from synque_select.report.table import Column, Table, clean, markdown_prose
from tests.benchmarks.base import Growth, NotMeasured, Result, Row

__all__ = ["FILE", "PAGE", "benchmark_text", "keep", "line", "load", "page_text", "write_page"]

FILE, PAGE = Path(__file__).with_name("benchmarks.json"), ROOT / "docs" / "performance.md"
MARKER = "benchmarks"
KINDS = {kind.kind: kind for kind in (Result, Growth, NotMeasured)}
# as /proc/cpuinfo writes them, and as people do
INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
}


def load(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """Return what was kept: benchmark to its title, rows and surroundings."""
    content: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    return content


def keep(
    name: str, title: str, rows: Sequence[Row], environment: Mapping[str, Any], file: Path = FILE
) -> None:
    """Put the rows of one benchmark in the place of those it had."""
    kept = [{"kind": row.kind, **_rounded(dataclasses.asdict(row))} for row in rows]
    content = {**load(file), name: {"title": title, **environment, "rows": kept}}
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(dict(sorted(content.items())), indent=1) + "\n")
    os.replace(temporary, file)


def _rounded(value: Any) -> Any:
    """Four digits of a float are more than two runs share."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items() if part not in (None, "", False)}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write_page(file: Path = FILE, page: Path = PAGE) -> None:
    """Write the tables into the page."""
    write_between(page, MARKER, page_text(load(file)))


def page_text(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the misses, and one section per benchmark."""
    rows = [row for benchmark in content.values() for row in _rows(benchmark)]
    judged = [row for row in rows if row.reached is not None]
    missed = [row for row in judged if not row.reached]
    absent = len(rows) - len(judged)
    first = f"Of {len(judged)} targets, {len(missed)} {'is' if len(missed) == 1 else 'are'} missed"
    first += ":" if missed else "."
    lines = [
        first,
        "",
        *(f"- {markdown_prose(row.name)}: {_figure(row)}, target {_target(row)}" for row in missed),
    ]
    if absent:
        lines += ["", f"Not measured: {absent}; the tables give the reasons."]
    return "\n\n".join(["\n".join(lines), *map(benchmark_text, content, content.values())])


def benchmark_text(name: str, benchmark: Mapping[str, Any]) -> str:
    """Return the section of one benchmark: what it was measured on, and its table."""
    rows = _rows(benchmark)
    cells = tuple(map(_cells, rows))
    heads = ("result", "target", "CPU time", "rival's CPU time", "memory", "rival's memory")
    columns = (
        Column("what", is_name=True),
        *map(Column, heads),
        Column("rival", is_name=True),
        Column("note", is_name=True),
    )
    # a column without any figure says nothing
    filled = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    table = Table(
        "",
        tuple(columns[i] for i in filled),
        tuple(tuple(row[i] for i in filled) for row in cells),
    )
    names = [INSTRUCTIONS[flag] for flag in INSTRUCTIONS if flag in benchmark["instructions"]]
    n = benchmark["n_threads"]
    return (
        f"### {markdown_prose(benchmark['title'])}\n\n"
        f"`--only {name}`, {benchmark['date']}, {n} thread{'s' * (n != 1)}, "
        f"torch {clean(benchmark['torch'])}, {', '.join(names) or 'no vector instructions known'}."
        f"\n\n{table.markdown()}"
    )


def line(row: Row) -> str:
    """Return one line for the terminal."""
    if isinstance(row, NotMeasured):
        return f"{row.name}: not measured: {row.reason}"
    word = "ok" if row.reached else "MISSED"
    head = f"{row.name}: {_figure(row)} (target {_target(row)}, {word})"
    cells = _cells(row)
    if isinstance(row, Growth):
        parts = [cells[3], cells[5]]
    else:
        parts = [f"{cells[3]} | {row.rival} {cells[4]}", " | ".join(filter(None, cells[5:7]))]
    return ", ".join(filter(None, [head, *parts, row.note]))


def _rows(benchmark: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for row in benchmark["rows"]:
        fields = {key: value for key, value in row.items() if key != "kind"}
        rows.append(KINDS[row["kind"]](**fields))
    return rows


def _figure(row: Row) -> str:
    if isinstance(row, Result):
        return f"{row.ratio:.2f}×" if row.ratio < 100 else f"{row.ratio:,.0f}×"
    return f"n^{row.exponent:.2f}" if isinstance(row, Growth) else "not measured"


def _target(row: Row) -> str:
    if isinstance(row, Result):
        return f"≥ {row.target:.3g}×"
    return f"≤ n^{row.at_most:g}" if isinstance(row, Growth) else ""


def _cells(row: Row) -> tuple[str, ...]:
    """Cells in the order of the columns; a figure that is absent is empty."""
    figure = _figure(row)
    if isinstance(row, NotMeasured):
        return (row.name, figure, "", "", "", "", "", "", row.reason)
    target = _target(row) + ("" if row.reached else ", missed")
    if isinstance(row, Growth):
        times = ", ".join(f"{size}: {_seconds(s)}" for size, s in row.seconds.items())
        return (row.name, figure, target, times, "", _mib(row.peak_bytes), "", "", row.note)
    note = "; ".join(filter(None, ("wall time" * row.is_wall, row.note)))
    return (
        row.name,
        figure,
        target,
        _seconds(row.seconds),
        _seconds(row.rival_seconds),
        _mib(row.peak_bytes),
        _mib(row.rival_peak_bytes),
        row.rival,
        note,
    )


def _seconds(seconds: float) -> str:
    """Three digits, in a unit that has them."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _mib(n_bytes: int | None) -> str:
    return "" if n_bytes is None else f"{n_bytes / 2**20:,.0f} MiB"
