"""`synque-select report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    parser.add_argument("run", help="a run's folder, such as runs/digits/20260101T120000Z-0123abcd")


def run(options: Any) -> int:
    """Rebuild a run's page. Reads what is in the folder, writes report.html."""
    from synque_select.report.page import write_report

    print(f"wrote {write_report(Path(options.run))}")
    return 0
