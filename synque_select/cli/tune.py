"""`synque-select tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from synque_select.cli.options import (
    jsonargparse_module,
    lightning_cli,
    lightning_command_line,
    scorer_of,
    with_config_paths,
)

__all__ = ["run"]

_DESCRIPTION = (
    "Search candidates, their number and weights with Optuna, by short fits. Options of its own: "
    "--tune.n_trials, --tune.primary METRIC, --tune.mode {max,min}, --tune.proxy KEY (no fits), "
    "--tune.k_range and the other --tune.… below; the budget of each fit is --trainer.max_steps. "
    "The rest is LightningCLI's, as in a config of fit."
)
_OF_THE_TRAINER = ("accelerator", "precision", "accumulate_grad_batches", "gradient_clip_val")


def run(arguments: Sequence[str]) -> int:
    """Search candidates, their number and weights with Optuna, by short fits. Takes a fit config.

    The model, the data and the trainer's accelerator, devices, strategy, precision, gradient
    options and max_steps are those of the config, and candidates are scored as its
    SelectionCallback says, if it has one. The same call goes on with a study, in any number of
    processes at once.
    """
    jsonargparse_module()
    from synque_select.tuning.command import run_tuning

    taken: set[str | int] = {
        "module", "datamodule", "max_steps", "trainer_options", "scorer", "factory",
    }  # fmt: skip

    with lightning_command_line(*with_config_paths(arguments)):
        cli = lightning_cli("tune", _DESCRIPTION, run_tuning, taken)
        given, tune = cli.config.trainer, vars(cli.config.tune)
        tune["hyper_parameters"] = getattr(cli.config_init.tune, "hyper_parameters", None)
        run_tuning(
            cli.model,
            cli.datamodule,
            max_steps=given.max_steps,
            factory=_factory(cli) if tune["hyper_parameters"] else None,
            scorer=scorer_of(cli),
            trainer_options=_trainer_options(given),
            **tune,
        )
    return 0


def _trainer_options(given: Any) -> dict[str, Any]:
    options = {name: getattr(given, name) for name in _OF_THE_TRAINER}
    # "auto" would take all devices of the machine for fits of seconds
    options |= {
        n: getattr(given, n) for n in ("devices", "strategy") if getattr(given, n) != "auto"
    }
    return {name: value for name, value in options.items() if value is not None}


def _factory(cli: Any) -> Callable[..., Any]:
    """Make the config's model again, with some arguments changed."""
    model = cli.config_init.model
    config = cli.config.model
    named = getattr(config, "init_args", config).as_dict()
    kind = type(model)

    def make(**changed: Any) -> Any:
        return kind(**{**named, **changed})

    return make
