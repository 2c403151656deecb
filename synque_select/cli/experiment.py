"""`synque-select experiment`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, NotSavedError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    import jsonargparse

    from synque_select.experiment import BaseTask, ExperimentOptions

    parser.add_argument(
        "--config",
        action=jsonargparse.ActionConfigFile,  # type: ignore[attr-defined]
        help="a YAML file or a packaged name such as digits; later options override it",
    )
    parser.add_argument("--name", help="name of the run (default: two words, such as red-fox)")
    parser.add_argument(
        "--executor",
        help="where to encode, judge and train, as for rank (default: as in the config)",
    )
    parser.add_argument("--version", type=int, default=1, help="format version of the config")
    parser.add_subclass_arguments(BaseTask, "task", required=True)
    parser.add_class_arguments(ExperimentOptions, "experiment")


def run(options: Namespace) -> int:
    """Run a recipe's experiment. Arms have equal budgets and are paired; a rerun resumes it."""
    from synque_select.experiment import Experiment, run_experiment
    from synque_select.experiment.summary import summary

    if options.version != 1:
        raise ConfigError(f"config of version {options.version}; allowed is 1")
    try:
        given = {"name": options.name, "executor": options.executor}
        given = {name: value for name, value in given.items() if value is not None}
        chosen = replace(options.experiment, **given)
        print(run_experiment(options.task, chosen))
    except NotSavedError as error:
        if isinstance(error.result, Experiment):
            print(summary(error.result.result, error.result.rankings[0]))
        raise
    return 0
