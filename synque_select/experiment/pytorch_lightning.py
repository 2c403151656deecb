"""`TaskDataModule` for Trainers of the package `pytorch_lightning`."""

from __future__ import annotations

from pytorch_lightning import LightningDataModule, Trainer

from synque_select.experiment.datamodule import BaseTaskDataModule

__all__ = ["TaskDataModule"]


class TaskDataModule(BaseTaskDataModule[Trainer, LightningDataModule], LightningDataModule):
    """Serves the data of a task; a LightningDataModule of `pytorch_lightning`.

    `BaseTaskDataModule` describes the arguments.
    """
