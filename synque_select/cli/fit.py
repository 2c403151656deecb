"""`synque-select fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from synque_select.cli.lightning_help import asks_for_help, print_help, with_full_help
from synque_select.cli.options import lightning_command_line, with_config_paths

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

__all__ = ["run"]

_DESCRIPTION = "Rank the candidates, train on the best mixture, and correlate proxies with results."


def run(arguments: Sequence[str]) -> int:
    """Run one trainer.fit from a LightningCLI config. `fit --help` lists its options."""
    if asks_for_help(arguments):
        return print_help("fit", _DESCRIPTION)
    from synque_select.cli.lightning_classes import lightning_classes

    given = with_config_paths(with_full_help(arguments))
    with lightning_command_line("fit", *given):
        classes = lightning_classes(given)
        classes.cli(
            # see check_inner
            datamodule_class=cast("type[LightningDataModule]", classes.datamodule),
            subclass_mode_data=True,
            parser_kwargs={"prog": "synque-select", "exit_on_error": False, "allow_abbrev": False},
            save_config_kwargs={"overwrite": True},
        )
    return 0
