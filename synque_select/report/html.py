"""The page as HTML: jinja2 templates that escape every value, one file that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from synque_select.report.blocks import Block

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page_html"]


def page_html(
    title: str,
    *,
    answer: Sequence[str],
    facts: Mapping[str, str],
    sections: Sequence[Block],
    files: Sequence[str],
) -> str:
    """Return the page as HTML.

    Args:
        title: Title of the page.
        answer: Sentences at its top.
        facts: How the run was made: name to value.
        sections: The sections.
        files: Names of the files that the page was made from.
    """
    template = _environment().get_template("page.html")
    return template.render(title=title, answer=answer, facts=facts, sections=sections, files=files)


@cache
def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("synque_select.report"),
        autoescape=True,  # every value is data: no name or text may become markup
        undefined=jinja2.StrictUndefined,  # a misspelled name raises instead of showing nothing
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
