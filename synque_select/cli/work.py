"""`synque-select work`."""

from __future__ import annotations

import itertools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from synque_select.errors import ConfigError
from synque_select.utils.wording import counted, printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from synque_select.execution.plan_folder import BasePlan, PlannedUnit
    from synque_select.selection.ranking_plan import RankingPlan
    from synque_select.selection.scorer import ScoringJob

__all__ = ["arguments", "opened", "opened_job", "options_of", "read_plan", "run"]

_MOST_NAMED = 20
_Run: TypeAlias = Callable[[Sequence[Any], Callable[[], object]], int]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("folder", help="the folder of synque-select plan")
    parser.add_argument(
        "--index",
        type=int,
        help="number of this process, from 0 on, such as $SLURM_ARRAY_TASK_ID",
    )
    parser.add_argument("--of", type=int, help="number of processes")
    parser.add_argument(
        "--unit",
        metavar="KEY",
        help="only this unit, by the beginning of its key, as gather names it; also if it is "
        "finished",
    )
    parser.add_argument("--quiet", action="store_true", help="hide progress bars")


def run(options: Namespace) -> int:
    """Compute this process's part of a plan. Finished units are left out.

    Each of N processes takes an equal part of the units that encode, or of the probes of a sweep.
    Of a ranking, the process that finds all embeddings there, which is the last to finish, scores
    by all proxies that are left. Give the same command again after a failure, or
    `--index 0 --of 1` for all that is missing.
    """
    from synque_select.execution.environment import become_worker

    plan = read_plan(Path(options.folder))
    named = _named_unit(plan, options)
    if named is None:
        _check_index(options.index, options.of)
    plan.check_same_code()
    become_worker()
    stages = list(dict.fromkeys(unit.stage for unit in plan.units))
    own = [named] if named else _part(plan, stages[:1], options.index, options.of)
    if not own and len(stages) < 2:
        print(f"no unit is left for process {options.index} of {options.of}")
        return 0
    with opened(plan, quiet=options.quiet) as run_units:
        status = _run(plan, run_units, own, quiet=options.quiet)
        if named is not None:
            return status
        for before, stage in itertools.pairwise(stages):
            left = plan.open_units(before)
            if left:
                units = counted(len(left), "unit")
                print(f"{units} of other processes left to encode: the last process scores")
                return status
            units_left = plan.open_units(stage)
            status = _run(plan, run_units, units_left, quiet=options.quiet) or status
    return status


def read_plan(folder: Path) -> BasePlan[Any]:
    """Read a plan of any command.

    Raises:
        RecordError: There is none, it is damaged, or it is of another version.
    """
    from synque_select.errors import RecordError
    from synque_select.execution.plan_folder import PLAN, plan_fields

    command, state = plan_fields(folder)
    try:
        if command == "rank":
            from synque_select.selection.ranking_plan import ranking_plan_of

            return ranking_plan_of(folder, state)
        if command == "sweep":
            from synque_select.probing.sweep_plan import sweep_plan_of

            return sweep_plan_of(folder, state)
        raise RecordError(f"command must be 'rank' or 'sweep', found {command!r}")
    except RecordError as error:
        raise RecordError(f"{folder / PLAN} is damaged: {error}; make the plan again") from error


@contextmanager
def opened(plan: BasePlan[Any], *, quiet: bool) -> Iterator[_Run]:
    """Load the data of a plan, and yield what runs its units; changes the directory."""
    from synque_select.selection.ranking_plan import RankingPlan

    if isinstance(plan, RankingPlan):
        job = opened_job(plan, quiet=quiet)
        yield lambda units, advance: plan.run(job, units, advance)
        return
    from synque_select.cli.plan_sweep import opened_fits_of
    from synque_select.probing.sweep_plan import SweepPlan

    assert isinstance(plan, SweepPlan)
    with opened_fits_of(plan) as (fits, model_factory):
        yield lambda units, advance: plan.run(fits, model_factory, units, advance)


def opened_job(plan: RankingPlan, *, quiet: bool) -> ScoringJob:
    """Load the data of a plan, and check that it has not changed; changes the directory.

    Raises:
        ConfigError: The data or the directory is not what it was.
    """
    from synque_select.cli import rank

    plan.enter_directory()
    job = rank.prepared(options_of(plan, quiet=quiet))
    plan.check_data(job)
    return job


def options_of(plan: RankingPlan, *, quiet: bool) -> Namespace:
    """Return the options of `rank` that a plan holds."""
    given = {**plan.options, "cache_dir": str(plan.cache_dir)}
    return Namespace(**{**given, "quiet": quiet or given.get("quiet")})


def _named_unit(plan: BasePlan[Any], options: Namespace) -> PlannedUnit | None:
    if options.unit is None:
        return None
    if options.index is not None or options.of is not None:
        raise ConfigError("--unit: leave --index and --of out, as it is one unit")
    units: list[PlannedUnit] = [unit for unit in plan.units if unit.key.startswith(options.unit)]
    if len(units) != 1:
        raise ConfigError(
            f"--unit {options.unit}: the keys of {counted(len(units), 'unit')} of {plan.folder} "
            "begin so, and one is needed"
        )
    return units[0]


def _check_index(index: int | None, of: int | None) -> None:
    if index is None or of is None:
        raise ConfigError("give --index I --of N, or --unit KEY")
    if of < 1:
        raise ConfigError(f"--of {of}: allowed is a number from 1 on")
    if not 0 <= index < of:
        raise ConfigError(
            f"--index {index}: allowed is 0 to {of - 1}, as --of is {of}; a Slurm array of this "
            f"size is --array=0-{of - 1}"
        )


def _part(plan: BasePlan[Any], stages: Sequence[str], index: int, of: int) -> list[PlannedUnit]:
    """Return the open units of a process: consecutive ones, so that few candidates are read."""
    units = [unit for unit in plan.units if unit.stage in stages]
    first, last = (len(units) * number // of for number in (index, index + 1))
    return [unit for unit in units[first:last] if not plan.is_done(unit)]


def _run(plan: BasePlan[Any], run_units: _Run, units: Sequence[PlannedUnit], *, quiet: bool) -> int:
    from synque_select.utils.progress import ProgressBar

    bar = ProgressBar(total=len(units), desc="units", unit="unit", delay=2, disable=quiet)
    with bar:
        n_failed = run_units(units, lambda: bar.update(1))
    if units:
        print(f"{counted(len(units) - n_failed, 'unit')} finished")
    for unit in [unit for unit in units if not plan.is_done(unit)][:_MOST_NAMED]:
        print(
            f"synque-select: failed: {unit.name} ({unit.key[:12]}): "
            f"{printable(plan.failure(unit) or '')}",
            file=sys.stderr,
        )
    return int(n_failed > 0)
