"""`synque-select experiment`."""

from __future__ import annotations

from typing import Any

from synque_select.cli.options import jsonargparse_module
from synque_select.errors import ConfigError

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    from synque_select.experiment import BaseTask, run_experiment

    parser.add_argument(
        "--config",
        action=jsonargparse_module().ActionConfigFile,
        help="a YAML file or a packaged name such as digits; options after it override it",
    )
    parser.add_argument("--version", type=int, default=1, help="version of the config's format")
    parser.add_subclass_arguments(BaseTask, "task", required=True)
    parser.add_function_arguments(run_experiment, "experiment", skip={"task"})


def run(options: Any) -> int:
    """Run a recipe's experiment. Every arm at the same budget, paired over replicates; resumes."""
    from synque_select.experiment import run_experiment

    if options.version != 1:
        raise ConfigError(f"config of version {options.version}; allowed is 1")
    print(run_experiment(options.task, **vars(options.experiment)))
    return 0
