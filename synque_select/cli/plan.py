"""`synque-select plan`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli import rank
from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["arguments", "run"]


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

    The plan lists the units of work: shards of the data to encode, and proxies. Any number of
    processes of `synque-select work FOLDER --index I --of N` compute them, on any machines that see
    the folder and the data, and `synque-select gather FOLDER` prints the ranking.
    """
    from synque_select.selection.plan_folder import make_plan

    if options.executor is not None or options.devices is not None:
        raise ConfigError(
            "--executor and --devices: leave them out, as the processes of work compute a plan"
        )
    folder = Path(options.out).absolute()
    kept = {name: value for name, value in vars(options).items() if name not in ("config", "out")}
    given = Namespace(**kept)
    job = rank.prepared(given)
    plan = make_plan(job, {name: _plain(name, value) for name, value in kept.items()}, folder)
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


def _plain(name: str, value: object) -> Json:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(name, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, part) for part in value]
    raise ConfigError(f"--{name.replace('_', '-')}: {value!r} cannot be written to a plan")
