"""`synque-select fit`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from synque_select.cli.lightning_help import asks_for_help, print_help, with_full_help
from synque_select.cli.options import lightning_command_line, with_config_paths
from synque_select.errors import ConfigError
from synque_select.llm.openai.masking import mask_keys
from synque_select.records.run_folder import make_folder, write_text

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule, Trainer
    from pytorch_lightning.cli import LightningCLI, SaveConfigCallback

    from synque_select.callbacks.selection import BaseSelectionCallback

__all__ = ["run"]

_DESCRIPTION = "Rank the candidates, train on the best mixture, and correlate proxies with results."


def run(arguments: Sequence[str]) -> int:
    """Run one trainer.fit from a LightningCLI config. `fit --help` lists its options."""
    if asks_for_help(arguments):
        return print_help("fit", _DESCRIPTION)
    from synque_select.cli.lightning_classes import lightning_classes

    given, name = _without_name(with_config_paths(with_full_help(arguments)))

    def before_fit(cli: LightningCLI) -> None:
        if name is not None:
            _selection_of(cli).set_name(name)

    with lightning_command_line("fit", *given):
        classes = lightning_classes(given)
        fit_cli: type[LightningCLI] = type("FitCLI", (classes.cli,), {"before_fit": before_fit})
        fit_cli(
            # see check_inner
            datamodule_class=cast("type[LightningDataModule]", classes.datamodule),
            subclass_mode_data=True,
            parser_kwargs={"prog": "synque-select", "exit_on_error": False, "allow_abbrev": False},
            save_config_callback=_config_saver(classes.cli),
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
        )
    return 0


def _config_saver(cli_class: type[LightningCLI]) -> type[SaveConfigCallback]:
    """Return the callback that saves the config as Lightning does, but without keys of servers."""
    module = importlib.import_module(cli_class.__module__)
    base: type[SaveConfigCallback] = module.SaveConfigCallback

    class ConfigSaver(base):  # type: ignore[valid-type, misc]
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            # asked on all ranks; Lightning calls `save_config` on the first one only
            self._log_dir = trainer.log_dir
            super().setup(trainer, pl_module, stage)

        def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            assert self._log_dir is not None
            text = mask_keys(self.parser.dump(self.config, skip_none=False))
            write_text(make_folder(self._log_dir) / self.config_filename, text)

    return ConfigSaver


def _without_name(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the arguments without `--name`, which LightningCLI does not know, and its value."""
    rest: list[str] = []
    name = None
    waiting = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if waiting:
            name, waiting = argument, False
        elif option == "--name":
            name, waiting = value, not equals
        else:
            rest.append(argument)
    if waiting or name == "":
        raise ConfigError("--name needs a name of the run, such as --name baseline")
    return rest, name


def _selection_of(cli: LightningCLI) -> BaseSelectionCallback[Any, Any]:
    from synque_select.callbacks.selection import BaseSelectionCallback
    from synque_select.training.lightning_compat import callbacks_of

    for callback in callbacks_of(cli.trainer):
        if isinstance(callback, BaseSelectionCallback):
            return callback
    raise ConfigError("--name names the directory of a SelectionCallback; the config has none")
