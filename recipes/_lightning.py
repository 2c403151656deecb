"""What the recipes give to Lightning: a task's data for one fit, checks, an SGD schedule."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule

from synque_select.errors import ConfigError
from synque_select.experiment import BaseTask
from synque_select.training.datamodule import SynqueDataModule

__all__ = ["TaskDataModule", "check_sizes", "sgd_one_cycle"]


class TaskDataModule(SynqueDataModule):
    """Serves what a task is made of; base of the DataModules that configs of one fit name.

    Args:
        task: Candidates, real samples, validation and test, and what becomes of a record.
        replicate: Which real sample.
        seed: Of the order of the examples.
    """

    def __init__(self, task: BaseTask, replicate: int, seed: int) -> None:
        super().__init__(
            task.candidates,
            task.real_sample(replicate),
            train_transform=task.transform,
            seed=seed,
            batch_size=task.batch_size,
            num_workers=0,
            collate_fn=task.collate_fn,
            val=[task.transform(record) for record in task.validation],
            test=[task.transform(record) for record in task.test],
        )


def check_sizes(module: LightningModule) -> None:
    """Compare a module's hyper-parameters with the `model_sizes` of its DataModule, if it has any.

    Raises:
        ConfigError: One differs, such as the number of classes.
    """
    sizes = getattr(module.trainer.datamodule, "model_sizes", {})  # type: ignore[attr-defined]
    for name, size in sizes.items():
        if module.hparams[name] != size:
            raise ConfigError(
                f"{type(module).__name__}: {name}={module.hparams[name]}, but that of the data is "
                f"{size}: give --model.{name} {size}"
            )


def sgd_one_cycle(module: LightningModule) -> dict[str, Any]:
    """SGD with momentum, its rate rising to the module's and falling with a cosine."""
    options = module.hparams
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=options["learning_rate"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=options["learning_rate"],
        total_steps=int(module.trainer.estimated_stepping_batches),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
