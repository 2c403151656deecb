"""`synque-select influence`."""

from __future__ import annotations

from collections.abc import Sequence

from synque_select.cli.lightning_help import asks_for_help, print_help, with_full_help
from synque_select.cli.options import (
    fit_steps,
    lightning_cli,
    lightning_command_line,
    split_options,
    with_config_paths,
    with_run_name,
)

__all__ = ["run"]

_DESCRIPTION = (
    "Estimate what each candidate does to the validation loss, from gradients at a few checkpoints "
    "of one short fit on all candidates. --trainer.max_steps sets the length of the fit. Writes "
    "influence.json; an interrupted run continues."
)


def run(arguments: Sequence[str]) -> int:
    """Estimate each candidate's influence on validation from one fit. Takes a fit config.

    The config provides the model, the data and the trainer's accelerator, precision and max_steps.
    Validation data is a surrogate (`val: surrogate` of the data) or labeled.
    """
    from synque_select.probing.influence import InfluenceOptions, run_influence

    if asks_for_help(arguments):
        return print_help("influence", _DESCRIPTION, InfluenceOptions, run_influence)
    given = with_config_paths(with_full_help(with_run_name(arguments, "influence")))
    with lightning_command_line(*given):
        cli = lightning_cli("influence", _DESCRIPTION, InfluenceOptions, run_influence)
        options, files = split_options(cli.config_init.influence, InfluenceOptions)
        trainer = cli.config.trainer
        run_influence(
            cli.model,
            cli.datamodule,
            max_steps=fit_steps(trainer),
            options=options,
            trainer_options={"accelerator": trainer.accelerator, "precision": trainer.precision},
            **files,
        )
    return 0
