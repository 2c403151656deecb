"""`TaskDataModule` for Trainers of the package `pytorch_lightning`."""

from __future__ import annotations

from pytorch_lightning import LightningDataModule, Trainer

from synque_select.experiment.datamodule import BaseTaskDataModule
from synque_select.training.pytorch_lightning import SynqueDataModule

__all__ = ["TaskDataModule"]


class TaskDataModule(BaseTaskDataModule[Trainer, LightningDataModule], SynqueDataModule):
    """Serves the data of a task; a LightningDataModule of `pytorch_lightning`.

    `BaseTaskDataModule` describes the arguments.
    """
