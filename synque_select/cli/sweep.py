"""`synque-select sweep`."""

from __future__ import annotations

from collections.abc import Sequence

from synque_select.cli.options import (
    lightning_cli,
    lightning_command_line,
    scorer_of,
    split_options,
    with_config_paths,
)

__all__ = ["run"]

_DESCRIPTION = (
    "Train on each candidate alone, and correlate proxies with validation. Options of its own: "
    "--sweep.monitor METRIC, --sweep.mode {max,min}, --sweep.seed, --sweep.task, --sweep.store, "
    "--sweep.run_dir. --trainer.max_steps sets the budget of each fit. All other options are "
    "LightningCLI's, as for `synque-select fit`."
)


def run(arguments: Sequence[str]) -> int:
    """Train on each candidate alone, and correlate proxies with validation. Takes a fit config.

    The config provides the model, the data and the trainer's accelerator, precision and max_steps.
    If it has a SelectionCallback, candidates are scored with the options of that callback. Finished
    probes are reused.
    """
    from synque_select.probing.sweep import run_sweep
    from synque_select.training.short_fit import ShortFitOptions

    with lightning_command_line(*with_config_paths(arguments)):
        cli = lightning_cli("sweep", _DESCRIPTION, ShortFitOptions, run_sweep)
        options, files = split_options(cli.config_init.sweep, ShortFitOptions)
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
