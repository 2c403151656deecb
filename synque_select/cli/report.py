"""`synque-select report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "run",
        help="a run directory, such as runs/digits/20260101T120000Z-0123abcd, or the JSON file of "
        "a ranking",
    )


def run(options: Namespace) -> int:
    """Rebuild the page of a run or a ranking. Reads their files and writes report.html."""
    from synque_select.report.page import write_report

    print(f"wrote {write_report(Path(options.run))}")
    return 0
