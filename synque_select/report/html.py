"""The page as HTML: jinja2 templates that escape every value, one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from synque_select.report.blocks import Block
from synque_select.report.charts import Chart
from synque_select.report.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["page_html"]

_SHORT = 24  # characters of code that are not divided

# code between backticks, an option of the command line, or one character of anything else
_PIECES = re.compile(r"`([^`\n]+)`|((?<![\w-])--[a-z][a-z-]*[a-z])|([^`-]+|[`-])")


def page_html(
    summary: Summary,
    *,
    charts: Sequence[Chart] = (),
    sections: Sequence[Block] = (),
    markdown: str = "",
) -> str:
    """Return the page as HTML.

    Args:
        summary: What stands at the top.
        charts: The charts below it.
        sections: The sections.
        markdown: The summary as Markdown, which a button copies.
    """
    template = _environment().get_template("page.html")
    return template.render(summary=summary, charts=charts, sections=sections, markdown=markdown)


@cache
def _environment() -> Environment:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("synque_select.report"),
        autoescape=True,  # every value is data: no name or text may become markup
        undefined=jinja2.StrictUndefined,  # a misspelled name raises instead of showing nothing
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["prose"] = _prose
    environment.filters["joined"] = _joined
    environment.tests["hash"] = _is_hash
    for name in ("page.css", "page.js"):
        text = (resources.files("synque_select.report") / "templates" / name).read_text("utf-8")
        key = name.partition(".")[2]
        # the only values that are not escaped: they are files of this package
        environment.globals[key] = Markup(text)
        # the page's policy allows this script and this style, and no other
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        environment.globals[f"{key}_hash"] = f"sha256-{digest}"
    return environment


def _breakable(name: str) -> Markup:
    """Allow a line to end after a mark in a name, which underscores do not; not in a number."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<=[_/+.-])(?<!\d\.)(?=[^_/+.-])", _joined(name))
    return Markup("<wbr>").join(escape(part) for part in parts)


def _prose(text: str) -> Markup:
    """Set what stands between backticks, and options of the command line, as code."""
    from markupsafe import Markup, escape

    pieces = []
    for code, option, rest in _PIECES.findall(_joined(text)):
        kind = "option" if option else "short" if len(code) <= _SHORT else ""
        # a line would end after a hyphen
        shown = Markup('<code class="{}">{}</code>').format(kind, code or option)
        pieces.append(shown if code or option else escape(rest))
    return Markup("").join(pieces)


def _joined(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)


def _is_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
