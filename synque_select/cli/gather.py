"""`synque-select gather`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synque_select.errors import ConfigError, ExecutorError
from synque_select.utils.wording import counted, printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from synque_select.execution.plan_folder import BasePlan, PlannedUnit
    from synque_select.selection.ranking_plan import RankingPlan

__all__ = ["arguments", "run"]

_MOST_NAMED = 20


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("folder", help="the folder of synque-select plan")
    parser.add_argument(
        "--json",
        help="also write the ranking to this file or directory (default: as given to plan)",
    )
    parser.add_argument(
        "--report", metavar="PATH", help="also write the page (default: as given to plan)"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print only the decision, and no progress"
    )


def run(options: Namespace) -> int:
    """Rank, or end a sweep, from a plan whose units are finished; names the units that are not.

    Prints and writes what `rank` or `sweep` does with the options of the plan. LENS and proxies of
    your own are scored here.
    """
    from synque_select.cli import plan_sweep, work
    from synque_select.probing.sweep_plan import SweepPlan
    from synque_select.selection.ranking_plan import RankingPlan

    plan = work.read_plan(Path(options.folder))
    plan.check_same_code()
    if isinstance(plan, RankingPlan):
        return _gather_ranking(plan, options)
    for name in ("json", "report"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name}: leave it out, as a sweep writes its run directory; --sweep.run_dir of "
                "plan sweep names one"
            )
    assert isinstance(plan, SweepPlan)
    _check_finished(plan, options.folder)
    return plan_sweep.gather(plan)


def _gather_ranking(plan: RankingPlan, options: Namespace) -> int:
    from synque_select.cli import rank, work

    # before the directory changes
    paths = {
        name: str(Path(value).absolute())
        for name in ("json", "report")
        if (value := getattr(options, name)) not in (None, "-")
    }
    _check_finished(plan, options.folder)
    job = work.opened_job(plan, quiet=options.quiet)
    for unit in plan.units_without_rows(job):
        plan.note_lost(unit)
    _check_finished(plan, options.folder)
    given = work.options_of(plan, quiet=options.quiet)
    if options.json == "-":
        paths["json"] = "-"
    return rank.run(Namespace(**{**vars(given), **paths}), job)


def _check_finished(plan: BasePlan[Any], folder: str) -> None:
    """Name the units that are not finished.

    Raises:
        ExecutorError: There are any.
    """
    left = plan.open_units()
    if not left:
        return
    lines = [f"  {_described(plan, unit)}" for unit in left[:_MOST_NAMED]]
    if len(left) > _MOST_NAMED:
        lines.append(f"  and {len(left) - _MOST_NAMED} more")
    raise ExecutorError(
        f"{len(left)} of {counted(len(plan.units), 'unit')} of {folder} not finished:\n"
        + "\n".join(lines)
        + f"\nsynque-select work {folder} --index 0 --of 1 computes all of them, "
        f"synque-select work {folder} --unit {left[0].key[:12]} the first alone"
    )


def _described(plan: BasePlan[Any], unit: PlannedUnit) -> str:
    failure = plan.failure(unit)
    reason = "missing" if failure is None else f"failed: {printable(failure)}"
    return f"{unit.key[:12]} {unit.name}: {reason}"
