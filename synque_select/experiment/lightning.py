"""`TaskDataModule` for Trainers of the package `lightning`."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, Trainer

from synque_select.experiment.datamodule import BaseTaskDataModule
from synque_select.training.lightning import SynqueDataModule

__all__ = ["TaskDataModule"]


class TaskDataModule(BaseTaskDataModule[Trainer, LightningDataModule], SynqueDataModule):
    """Serves the data of a task; a LightningDataModule of `lightning`.

    `BaseTaskDataModule` describes the arguments.
    """
