"""`synque-select plan`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli import plan_sweep, rank
from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["OF_CONFIG", "arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    rank.arguments(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="new folder for the plan, on a disk that all jobs see; embeddings and scores are "
        "written there, too, unless --cache-dir is given",
    )


def run(options: Namespace) -> int:
    """Plan a ranking for batch jobs. Takes the options of rank; work computes and gather ranks.

    `synque-select plan sweep` plans a sweep instead, and takes the options of sweep.

    The plan lists the units of work: shards of the data to encode, and proxies. Any number of
    processes of `synque-select work FOLDER --index I --of N` compute them, on any machines that see
    the folder and the data, and `synque-select gather FOLDER` prints the ranking.
    """
    from synque_select.selection.ranking_plan import make_ranking_plan

    if options.executor is not None or options.devices is not None:
        raise ConfigError(
            "--executor and --devices: leave them out, as the processes of work compute a plan"
        )
    folder = Path(options.out).absolute()
    kept = {name: value for name, value in vars(options).items() if name not in ("config", "out")}
    given = Namespace(**kept)
    job = rank.prepared(given)
    plan = make_ranking_plan(
        job, {name: _plain(name, value) for name, value in kept.items()}, folder
    )
    n_encode = sum(unit.stage == "encode" for unit in plan.units)
    n_views = sum(unit.stop - unit.start for unit in plan.units)
    n_score = len(plan.units) - n_encode
    print(
        f"wrote {options.out}: {counted(n_encode, 'unit')} to encode {n_views:,} "
        f"{job.real.modality}s, {counted(n_score, 'unit')} to score"
    )
    print(f"next: synque-select work {options.out} --index I --of N, for each I from 0 to N - 1")
    print(f"then: synque-select gather {options.out}")
    return 0


def _refused(command: str, why: str) -> Callable[[Sequence[str]], int]:
    def refuse(arguments: Sequence[str]) -> int:
        raise ConfigError(f"plan {command}: {why}. What can be planned is a ranking and a sweep")

    return refuse


# commands that may follow, each of which takes the rest of the arguments
OF_CONFIG: Mapping[str, Callable[[Sequence[str]], int]] = {
    "sweep": plan_sweep.run,
    "tune": _refused(
        "tune",
        "a trial is chosen from the results of those before it. Use synque-select tune --workers N "
        "on one machine, or --executor ray on a cluster",
    ),
    "experiment": _refused(
        "experiment",
        "some of its fits are chosen by the results of others. Use synque-select experiment "
        "--executor, or several processes of one experiment per task",
    ),
    "fit": _refused("fit", "a single fit is one job of the batch system"),
}


def _plain(name: str, value: object) -> Json:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(name, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, part) for part in value]
    raise ConfigError(f"--{name.replace('_', '-')}: {value!r} cannot be written to a plan")
