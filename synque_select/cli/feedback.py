"""`synque-select feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "run", help="a run directory or ranking.json whose ranking includes a LENS proxy"
    )
    parser.add_argument("--candidate", help="name of one candidate (default: all, best first)")
    parser.add_argument("--json", help="also write the feedback as JSON here")


def run(options: Namespace) -> int:
    """Tell a candidate's generator what to change. Uses its rubric and its least real examples."""
    from synque_select.records.ranking_file import load_ranking
    from synque_select.records.run_folder import write_json
    from synque_select.report.lens import feedback

    ranking = load_ranking(Path(options.run))
    entries = feedback(ranking, options.candidate)
    for entry in entries:
        place = ranking.order().index(ranking[entry.candidate]) + 1
        print(f"# {entry.candidate} ({place} of {len(ranking)} by {ranking.rank_by})\n")
        print(entry.instruction())
        if entry.n_images:
            print(f"\n{entry.n_images} least real images are shown in the run's report.")
        print()
    if options.json is not None:
        path = write_json(
            options.json, {"version": 1, "candidates": [entry.to_dict() for entry in entries]}
        )
        print(f"wrote {path}")
    return 0
