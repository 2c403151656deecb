"""HTML of a page's parts: what stands in them is escaped, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from synque_select.errors import DependencyError
from synque_select.report.table import Table

__all__ = ["example_html", "figure_html", "page_html", "section_html", "table_html"]


def example_html(name: str, entry: Mapping[str, Any]) -> str:
    """Return an example: its text, or its image as base64 of a PNG, and its realness if known.

    Raises:
        ValueError: An image is no PNG in base64.
    """
    view, realness = entry["view"], entry.get("realness")
    words = "" if realness is None else f"<small>realness {float(realness):.3g}</small>"
    if isinstance(view, str):
        return f"<p class='text'>{escape(view)}</p>{words}"
    png = _png(view["png"])
    return f'<img src="{png}" alt="an example of {escape(name)}">{words}'


def _png(text: Any) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"an image is no base64: {error}") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an image is no PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def section_html(title: str, body: str) -> str:
    """Return a section; the body is HTML already."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def figure_html(draw: Callable[[], Any], alt: str) -> str:
    """Return a figure of matplotlib as an image, or a note where that is not installed."""
    try:
        from synque_select.report.plots import to_svg

        svg = base64.b64encode(to_svg(draw())).decode("ascii")
    except DependencyError as error:
        return f"<p class='note'>No figure here: {escape(str(error))}</p>"
    source = f"data:image/svg+xml;base64,{svg}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"></figure>'


def table_html(table: Table) -> str:
    """Return a table with its title and notes."""
    title = escape(table.title)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    notes = f"<ul class='note'>{notes}</ul>" if notes else ""
    if not table.columns:
        return f"<h3>{title}</h3>{notes}"
    heads = "".join(
        f"<th scope='col'{_align(column.is_name)}>{escape(column.name)}</th>"
        for column in table.columns
    )
    rows = "".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    return (
        f"<div class='wide' role='region' tabindex='0' aria-label='{title}'><table>"
        f"<caption>{title}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
        f"</table></div>{notes}"
    )


def _cells(table: Table, row: Sequence[str]) -> str:
    names = [i for i, column in enumerate(table.columns) if column.is_name]
    cells = ""
    for i, cell in enumerate(row):
        is_head = bool(names) and i == names[-1]
        tag, scope = ("th", " scope='row'") if is_head else ("td", "")
        cells += f"<{tag}{scope}{_align(table.columns[i].is_name)}>{escape(cell)}</{tag}>"
    return cells


def _align(is_name: bool) -> str:
    return " class='name'" if is_name else ""


_CSS = """
:root { color-scheme: light; --ink: #1b2430; --muted: #5b6675; --line: #dfe3e8; --soft: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem); max-width: 88rem; color: var(--ink);
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem; margin: 0;
  font-size: .9rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .75rem 0; /* a shadow where there is more to the side */
  background: linear-gradient(90deg, #fff 30%, #fff0) 0 0 / 3rem 100% no-repeat local,
    linear-gradient(270deg, #fff 30%, #fff0) 100% 0 / 3rem 100% no-repeat local,
    linear-gradient(90deg, #1b243026, #1b243000) 0 0 / .9rem 100% no-repeat scroll,
    linear-gradient(270deg, #1b243026, #1b243000) 100% 0 / .9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 600; border-bottom-width: 2px; }
tbody th { font-weight: 500; }
.name { text-align: left; }
tbody tr:hover { background: var(--soft); }
.note { color: var(--muted); font-size: .85rem; max-width: 75ch; padding-left: 1.1rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { max-width: 100%; min-width: 36rem; height: auto; }
.examples { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .75rem; }
.examples li { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem;
  max-width: 34rem; }
.examples p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem; }
.examples img { display: block; min-width: 48px; image-rendering: pixelated; }
.answer { padding-left: 1.1rem; margin: .5rem 0; max-width: 90ch; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--muted); margin: 1rem 0; }
small { color: var(--muted); }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11pt; }
  section, figure, table { break-inside: avoid-page; } .wide, figure { overflow: visible; }
  figure img { min-width: 0; } .wide { background: none; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page_html(title: str, head: str, sections: Sequence[str], files: Sequence[str]) -> str:
    """Return the page; head and sections are HTML already, files are what it was made from."""
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)} - synque-select</title><style>{_CSS}</style></head>\n"
        f"<body>{head}\n<main>{chr(10).join(sections)}</main>\n"
        f"<footer>Made by synque-select from {escape(', '.join(files))}.</footer></body></html>\n"
    )
