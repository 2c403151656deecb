"""`SynqueDataModule` for Trainers of the package `pytorch_lightning`."""

from __future__ import annotations

from pytorch_lightning import LightningDataModule, Trainer

from synque_select.training.datamodule import BaseSynqueDataModule

__all__ = ["SynqueDataModule"]


class SynqueDataModule(BaseSynqueDataModule[Trainer, LightningDataModule], LightningDataModule):
    """Serves a mixture of candidates for training; a LightningDataModule of `pytorch_lightning`.

    `BaseSynqueDataModule` describes the arguments; `synque_select.lightning.SynqueDataModule` is
    the same for the package `lightning`.

    Example:
        >>> dm = SynqueDataModule({"a": ["x", "y"], "b": ["u", "v"]}, batch_size=4)
        >>> len(next(iter(dm.train_dataloader())))
        4
    """
