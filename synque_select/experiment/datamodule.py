"""What both classes of TaskDataModule share: the data of a task, for fits from a config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.data.examples import MapDataset
from synque_select.errors import ConfigError
from synque_select.experiment.task import BaseTask, Transformed, part_of
from synque_select.training.datamodule import BaseSynqueDataModule
from synque_select.training.lightning_compat import DataModuleT, TrainerT
from synque_select.training.surrogate import SurrogateOptions, surrogate_options

__all__ = ["BaseTaskDataModule"]


class BaseTaskDataModule(BaseSynqueDataModule[TrainerT, DataModuleT]):
    """Serves the candidates, a real sample, and the validation and test data of a task.

    With it, `synque-select fit`, `sweep` and `tune` take the same `task:` block as
    `synque-select experiment`. The model and the trainer come from the config; only the data of the
    task is used.

    Args:
        task: The task.
        replicate: Index of the task's real sample to rank by, from 0.
        held_out: Share of each candidate that is held out of training and serves as validation
            data, so that early stopping reads no real label; 0 to validate on the labeled real
            examples of the task.
        val: "surrogate" or `SurrogateOptions` for examples of all candidates as validation data;
            see `SurrogateValidation`. Sweeps and studies then measure on the labeled real examples
            as well, to say how reliable the surrogate is. None for what `held_out` says.
        seed: Random seed for the order of the examples and for the held-out split.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        task: BaseTask,
        replicate: int = 0,
        held_out: float = 0.0,
        seed: int = 0,
        val: Literal["surrogate"] | SurrogateOptions | None = None,
    ) -> None:
        if not 0 <= held_out < 1:
            raise ConfigError(f"held_out={held_out}: allowed is 0 to below 1")
        surrogate = surrogate_options(val)
        if surrogate is not None:
            if held_out:
                raise ConfigError(
                    f"held_out={held_out} with val='surrogate': give SurrogateOptions(held_out=…)"
                )
            surrogate = replace(
                surrogate,
                transform=surrogate.transform or task.transform,
                encoder=surrogate.encoder or task.encoder,
            )
        parts = [_split(candidate, held_out, seed) for candidate in task.candidates]
        self.task = task
        self._held_out = {kept.name: held for kept, held in parts} if held_out else {}
        super().__init__(
            [kept for kept, _ in parts],
            task.real_sample(replicate),
            train_transform=task.train_transform,
            seed=seed,
            batch_size=task.batch_size,
            num_workers=task.num_workers,
            collate_fn=task.collate_fn,
            val=surrogate,
            test=Transformed(task.test, task.transform),
        )

    def val_dataloader(self) -> Any:
        """Serve a surrogate, held-out examples of the selected candidates, or the labeled data."""
        if self.uses_surrogate:
            return self._surrogate_loader()
        names = self._held_out if self.mixture is None else self.mixture.names
        parts = (
            [self._held_out[name] for name in names] if self._held_out else [self.task.validation]
        )
        return self._eval_loaders(
            ConcatDataset([Transformed(part, self.task.transform) for part in parts])
        )


def _split(candidate: Candidate, share: float, seed: int) -> tuple[Candidate, MapDataset]:
    """Split a candidate into what is trained on and what is held out, maybe a single example."""
    dataset: MapDataset = candidate.dataset
    if not share:
        return candidate, dataset
    check_not_drawn([candidate], f"held_out={share}")
    order = np.random.default_rng([seed, len(candidate)]).permutation(len(candidate)).tolist()
    n = max(1, round(share * len(candidate)))
    held: Subset[Any] = Subset(dataset, sorted(order[:n]))  # type: ignore[arg-type]
    return part_of(candidate, sorted(order[n:])), held
