"""`synque-select report`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]

_FORMATS = ("html", "md", "json", "card")


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "run",
        help="a run directory, such as runs/digits/20260101T120000Z-red-fox, the name of a run "
        "below runs, such as red-fox, or the JSON file of a ranking",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="html",
        help="html writes the page, report.html; md prints its summary as Markdown; json prints "
        "the decision, weights, hashes and scores; card prints a block with weights and hashes "
        "for the card of a dataset or a model",
    )


def run(options: Namespace) -> int:
    """Report on a run or a ranking. Writes the page report.html, or prints its summary."""
    from synque_select.records.run_folder import to_jsonable
    from synque_select.report.page import write_report
    from synque_select.report.run_content import load_run
    from synque_select.report.run_list import find_run
    from synque_select.report.text_forms import report_card, report_json, report_markdown

    is_name = Path("runs").is_dir() and not {".", "/", os.sep} & {*options.run}
    run = find_run(options.run) if is_name else options.run
    if options.format == "html":
        print(f"wrote {write_report(run)}")
        return 0
    content = load_run(run)
    if options.format == "json":
        state = to_jsonable(report_json(content))
        print(json.dumps(state, indent=2, ensure_ascii=False))
    else:
        form = report_markdown if options.format == "md" else report_card
        print(form(content), end="")
    return 0
