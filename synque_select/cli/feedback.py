"""`synque-select feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    parser.add_argument(
        "run", help="a run's folder or a ranking.json, of a ranking with a LENS proxy"
    )
    parser.add_argument("--candidate", help="only this one (default: all, best first)")
    parser.add_argument("--json", help="write the same as JSON here")


def run(options: Any) -> int:
    """Tell a candidate's generator what to change. From the rubrics and least real samples."""
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
