"""`synque-select plan sweep`, and what `work` and `gather` do of such a plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import EXIT_STATUSES
from synque_select.cli.sweep import ConfiguredSweep, configured_sweep
from synque_select.errors import ConfigError
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.probing.sweep_plan import SweepPlan
    from synque_select.training.short_fit import ModelFactory, ShortFits
    from synque_select.types import Ranking

__all__ = ["gather", "opened_fits_of", "run"]

_HELP = f"""usage: synque-select plan sweep --config CONFIG --out FOLDER [OPTIONS]

Plan a sweep for batch jobs: rank the candidates, and list the probes.

  --out FOLDER  new folder for the plan, on a disk that all jobs see

All other options are those of sweep: `synque-select sweep --help` lists them.
`synque-select work FOLDER --index I --of N` trains the probes, and
`synque-select gather FOLDER` prints and writes what sweep would.

{textwrap.fill(EXIT_STATUSES, 80, break_on_hyphens=False)}"""


def run(arguments: Sequence[str]) -> int:
    """Plan a sweep for batch jobs. Takes the options of sweep."""
    from synque_select.execution.plan_folder import check_new_plan
    from synque_select.probing.sweep_plan import check_plannable, plan_units, rank_for

    if {"-h", "--help"} & {*arguments}:
        print(_HELP)
        return 0
    given, out = _without_out(arguments)
    folder = Path(out).absolute()
    check_new_plan(folder)
    with configured_sweep(given) as sweep:
        check_plannable(sweep.options)
        ranking = rank_for(sweep.datamodule, sweep.options, sweep.scorer)
        with _fits(sweep, ranking) as (fits, model_factory):
            plan = plan_units(folder, given, fits, model_factory)
        plan.save_all(ranking)
    print(
        f"wrote {out}: {counted(len(plan.units) - 1, 'probe')} to train, and the model as it is to "
        "measure"
    )
    print(f"next: synque-select work {out} --index I --of N, for each I from 0 to N - 1")
    print(f"then: synque-select gather {out}")
    return 0


def _without_out(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Return the arguments of sweep, and the folder of the plan."""
    rest: list[str] = []
    out = None
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name == "--out":
            out = value if equals else next(waiting, "")
        else:
            rest.append(argument)
    if not out:
        raise ConfigError("plan sweep needs --out FOLDER, a new folder for the plan")
    return rest, out


@contextmanager
def _fits(sweep: ConfiguredSweep, ranking: Ranking) -> Iterator[tuple[ShortFits, ModelFactory]]:
    from synque_select.probing.probes import opened_fits
    from synque_select.training.short_fit import model_factory_of

    with opened_fits(
        sweep.datamodule,
        ranking,
        max_steps=sweep.max_steps,
        options=sweep.options,
        trainer_options=sweep.trainer_options,
    ) as fits:
        yield fits, model_factory_of(sweep.module)


@contextmanager
def opened_fits_of(plan: SweepPlan) -> Iterator[tuple[ShortFits, ModelFactory]]:
    """Load the model and the data of a plan, and check the data; changes the directory.

    Raises:
        ConfigError: The data or the directory is not what it was.
    """
    ranking = plan.ranking
    plan.enter_directory()
    with configured_sweep(plan.arguments) as sweep:
        plan.check_data(sweep.datamodule, ranking)
        with _fits(sweep, ranking) as opened:
            yield opened


def gather(plan: SweepPlan) -> int:
    """Write the records of a finished plan to the run store, and end the sweep."""
    from synque_select.probing.sweep import run_sweep
    from synque_select.records.store import RunStore
    from synque_select.training.bookkeeping import store_record

    records, ranking = plan.records(), plan.ranking
    plan.enter_directory()
    with configured_sweep(plan.arguments) as sweep:
        plan.check_data(sweep.datamodule, ranking)
        with _fits(sweep, ranking) as (fits, model_factory):
            plan.check_fits(fits, model_factory, plan.units)
        run_dir = sweep.files.get("run_dir")
        store = RunStore(
            sweep.files.get("store"), run_dir=None if run_dir is None else Path(run_dir)
        )
        for record in records:
            store_record(store, record)
        run_sweep(
            sweep.module,
            sweep.datamodule,
            max_steps=sweep.max_steps,
            options=sweep.options,
            scorer=sweep.scorer,
            trainer_options=sweep.trainer_options,
            ranking=ranking,
            **sweep.files,
        )
    return 0
