"""`synque-select sweep`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synque_select.cli.lightning_help import asks_for_help, print_help, with_full_help
from synque_select.cli.options import (
    fit_steps,
    lightning_cli,
    lightning_command_line,
    scorer_of,
    short_fit_options,
    split_options,
    with_config_paths,
    with_run_name,
)

if TYPE_CHECKING:
    from synque_select.probing.sweep import SweepOptions
    from synque_select.selection.scorer import Scorer
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["ConfiguredSweep", "configured_sweep", "run"]

_DESCRIPTION = (
    "Train on each candidate alone, and correlate proxies with validation. --trainer.max_steps "
    "sets the budget of each fit."
)


def run(arguments: Sequence[str]) -> int:
    """Train on each candidate alone, and correlate proxies with validation. Takes a fit config.

    The config provides the model, the data and the trainer's accelerator, precision, gradient
    options and max_steps. If it has a SelectionCallback, candidates are scored with the options of
    that callback. Finished probes are reused, also if other candidates have changed.
    """
    from synque_select.probing.sweep import SweepOptions, run_sweep

    if asks_for_help(arguments):
        return print_help("sweep", _DESCRIPTION, SweepOptions, run_sweep)
    with configured_sweep(arguments) as sweep:
        run_sweep(
            sweep.module,
            sweep.datamodule,
            max_steps=sweep.max_steps,
            options=sweep.options,
            scorer=sweep.scorer,
            trainer_options=sweep.trainer_options,
            **sweep.files,
        )
    return 0


@dataclass(frozen=True)
class ConfiguredSweep:
    """What the arguments of a sweep and its config say.

    Args:
        module: The module, untrained.
        datamodule: The data.
        max_steps: Optimizer steps of each probe.
        options: The options of the sweep.
        scorer: The scorer of the config's SelectionCallback; None without one.
        trainer_options: Arguments of the probes' Trainer.
        files: Where the results are written.
    """

    module: AnyModule
    datamodule: AnySynqueDataModule
    max_steps: int
    options: SweepOptions
    scorer: Scorer | None
    trainer_options: dict[str, Any]
    files: dict[str, Any]


@contextmanager
def configured_sweep(arguments: Sequence[str]) -> Iterator[ConfiguredSweep]:
    """Create the objects of a sweep; in the body, they find the modules of the user."""
    from synque_select.probing.sweep import SweepOptions, run_sweep

    given = with_config_paths(with_full_help(with_run_name(arguments, "sweep")))
    with lightning_command_line(*given):
        cli = lightning_cli("sweep", _DESCRIPTION, SweepOptions, run_sweep)
        options, files = split_options(cli.config_init.sweep, SweepOptions)
        trainer = cli.config.trainer
        yield ConfiguredSweep(
            cli.model,
            cli.datamodule,
            fit_steps(trainer),
            options,
            scorer_of(cli),
            short_fit_options(trainer),
            files,
        )
