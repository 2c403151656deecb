"""`synque-select tune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    from argparse import Namespace

    from pytorch_lightning import LightningModule
    from pytorch_lightning.cli import LightningCLI

__all__ = ["run"]

_DESCRIPTION = (
    "Search for a mixture with Optuna, by short fits: which candidates, how many, and with which "
    "weights. --trainer.max_steps sets the budget of each fit; --tune.proxy needs none."
)


def run(arguments: Sequence[str]) -> int:
    """Search for a mixture with Optuna, by short fits. Takes a fit config.

    The search covers which candidates to train on, how many and with which weights. The config
    provides the model, the data and the trainer's accelerator, devices, strategy, precision,
    gradient options and max_steps. If it has a SelectionCallback, candidates are scored with the
    options of that callback. Running the same command again continues the study; several processes
    may run it at once.
    """
    from synque_select.tuning.command import run_tuning
    from synque_select.tuning.options import TuneOptions
    from synque_select.tuning.studies import require_optuna

    if asks_for_help(arguments):
        return print_help("tune", _DESCRIPTION, TuneOptions, run_tuning)
    given = with_config_paths(with_full_help(with_run_name(arguments, "tune")))
    with lightning_command_line(*given):
        cli = lightning_cli("tune", _DESCRIPTION, TuneOptions, run_tuning)
        require_optuna()  # without it jsonargparse could not read the options either
        options, files = split_options(cli.config_init.tune, TuneOptions)
        run_tuning(
            cli.model,
            cli.datamodule,
            max_steps=-1 if options.proxy else fit_steps(cli.config.trainer),
            options=options,
            model_factory=None if options.hyper_parameters is None else _model_factory(cli),
            scorer=scorer_of(cli),
            trainer_options=_trainer_options(cli.config.trainer),
            **files,
        )
    return 0


def _trainer_options(given: Namespace) -> dict[str, Any]:
    # "auto" would take every device of the machine for fits that last seconds
    where = {n: getattr(given, n) for n in ("devices", "strategy")}
    return short_fit_options(given) | {n: v for n, v in where.items() if v not in ("auto", None)}


@dataclass(frozen=True)
class _ConfiguredModel:
    """Makes the config's model again, with some arguments changed; other processes can, too."""

    kind: Callable[..., LightningModule]
    arguments: Mapping[str, object]

    def __call__(self, **changed: object) -> LightningModule:
        return self.kind(**{**self.arguments, **changed})


def _model_factory(cli: LightningCLI) -> Callable[..., LightningModule]:
    config = cli.config.model
    return _ConfiguredModel(type(cli.model), getattr(config, "init_args", config).as_dict())
