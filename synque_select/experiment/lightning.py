"""`TaskDataModule` for Trainers of the package `lightning`."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, Trainer

from synque_select.experiment.datamodule import BaseTaskDataModule

__all__ = ["TaskDataModule"]


class TaskDataModule(BaseTaskDataModule[Trainer, LightningDataModule], LightningDataModule):
    """Serves the data of a task; a LightningDataModule of `lightning`.

    `BaseTaskDataModule` describes the arguments.
    """
