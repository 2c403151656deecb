"""`synque-select fit`."""

from __future__ import annotations

from collections.abc import Sequence

from synque_select.cli.options import lightning_command_line, with_config_paths

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run one trainer.fit from a LightningCLI config. `fit --help` lists its options."""
    from pytorch_lightning.cli import LightningCLI

    from synque_select.training.datamodule import SynqueDataModule

    with lightning_command_line("fit", *with_config_paths(arguments)):
        LightningCLI(
            datamodule_class=SynqueDataModule,  # see check_inner
            subclass_mode_data=True,
            parser_kwargs={"prog": "synque-select", "exit_on_error": False, "allow_abbrev": False},
            save_config_kwargs={"overwrite": True},
        )
    return 0
