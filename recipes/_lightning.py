"""What the recipes share of Lightning: classifiers trained with SGD, checks of model sizes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from synque_select.errors import ConfigError
from synque_select.experiment import TaskDataModule
from synque_select.recipes.options import FitOptions
from synque_select.utils.validation import check_int

__all__ = ["SGDClassifier", "check_sgd_budget", "check_sizes"]


def check_sizes(module: LightningModule) -> None:
    """Compare the hyper-parameters of a module with the `model_sizes` of a config's task, if any.

    Raises:
        ConfigError: One differs, such as the number of classes.
    """
    datamodule = module.trainer.datamodule  # type: ignore[attr-defined]
    task = datamodule.task if isinstance(datamodule, TaskDataModule) else None
    sizes: Mapping[str, int] = getattr(task, "model_sizes", {})
    for name, size in sizes.items():
        if module.hparams[name] != size:
            raise ConfigError(
                f"{type(module).__name__}: {name}={module.hparams[name]}, but the data has "
                f"{size}: give --model.{name} {size}"
            )


def check_sgd_budget(fit: FitOptions) -> None:
    """Refuse a budget that a network with batch normalization cannot be trained with.

    Raises:
        ConfigError: `batch_size` or `max_steps` is 1.
    """
    check_int("batch_size", fit.batch_size, 2)  # one example has no variance to normalize by
    if fit.max_steps is not None:
        check_int("max_steps", fit.max_steps, 2)  # a one-cycle schedule rises and falls


class SGDClassifier(LightningModule):
    """Cross-entropy of images and labels; SGD with momentum under a one-cycle schedule.

    The hyper-parameters of a subclass have `learning_rate`, `momentum` and `weight_decay`.
    """

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        loss = torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log("train_loss", loss)
        return loss

    def predict_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the logits of a batch."""
        logits: torch.Tensor = self(batch["image"])
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD, its rate rising to `learning_rate` and falling again with a cosine."""
        options = self.hparams
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=options["learning_rate"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=options["learning_rate"],
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
