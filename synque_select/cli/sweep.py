"""`synque-select sweep`."""

from __future__ import annotations

from collections.abc import Sequence

from synque_select.cli.lightning_help import asks_for_help, print_help, with_full_help
from synque_select.cli.options import (
    lightning_cli,
    lightning_command_line,
    scorer_of,
    split_options,
    with_config_paths,
    with_run_name,
)

__all__ = ["run"]

_DESCRIPTION = (
    "Train on each candidate alone, and correlate proxies with validation. --trainer.max_steps "
    "sets the budget of each fit."
)


def run(arguments: Sequence[str]) -> int:
    """Train on each candidate alone, and correlate proxies with validation. Takes a fit config.

    The config provides the model, the data and the trainer's accelerator, precision and max_steps.
    If it has a SelectionCallback, candidates are scored with the options of that callback. Finished
    probes are reused.
    """
    from synque_select.probing.sweep import SweepOptions, run_sweep

    if asks_for_help(arguments):
        return print_help("sweep", _DESCRIPTION, SweepOptions, run_sweep)
    given = with_config_paths(with_full_help(with_run_name(arguments, "sweep")))
    with lightning_command_line(*given):
        cli = lightning_cli("sweep", _DESCRIPTION, SweepOptions, run_sweep)
        options, files = split_options(cli.config_init.sweep, SweepOptions)
        trainer = cli.config.trainer
        run_sweep(
            cli.model,
            cli.datamodule,
            max_steps=trainer.max_steps,
            options=options,
            scorer=scorer_of(cli),
            trainer_options={"accelerator": trainer.accelerator, "precision": trainer.precision},
            **files,
        )
    return 0
