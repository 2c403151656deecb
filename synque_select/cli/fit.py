"""`synque-select fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from synque_select.cli.options import lightning_command_line, with_config_paths

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run one trainer.fit from a LightningCLI config. `fit --help` lists its options."""
    from synque_select.cli.lightning_classes import lightning_classes

    given = with_config_paths(arguments)
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
