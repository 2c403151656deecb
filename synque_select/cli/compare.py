"""`synque-select compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.cli.options import print_tables

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    for place in ("first", "second"):
        parser.add_argument(
            place,
            help="a run directory, the name of a run below --runs, or the JSON file of a ranking",
        )
    parser.add_argument("--runs", default="runs", help="directory of all runs")
    parser.add_argument(
        "--json", metavar="FILE", help="write the comparison as JSON to this file; - prints it"
    )


def run(options: Namespace) -> int:
    """Compare two runs. Prints where settings, decisions and figures differ, and the candidates."""
    from synque_select.report.run_list import comparison_tables, find_run, load_entry

    first, second = (
        load_entry(find_run(name, options.runs)) for name in (options.first, options.second)
    )
    print_tables(comparison_tables(first, second), options.json)
    return 0
