"""`synque-select doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    parser.add_argument("--cache-dir", help="the cache to look at")


def run(options: Any) -> int:
    """Check the environment. Exit status 1 if something will fail."""
    from synque_select.doctor import examine

    bad = 0
    for finding in examine(Path(options.cache_dir) if options.cache_dir else None):
        bad += finding.level == "bad"
        print(f"{finding.level:>4}  {finding.what:<32} {finding.found}")
    return 1 if bad else 0
