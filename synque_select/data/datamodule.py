"""A LightningDataModule that serves a mixture of candidates, alone or around a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, default_collate

from synque_select.data._wrapping import InnerAttribute, InnerHook, check_inner
from synque_select.data.mixture import (
    MixtureDataset,
    MixtureLoader,
    MixtureSampler,
    Position,
    chosen_candidates,
    longest_epoch,
)
from synque_select.errors import ConfigError, LightningError
from synque_select.types import Candidate, Mixture, RealSample
from synque_select.views import Selector

__all__ = ["SynqueDataModule"]


class SynqueDataModule(LightningDataModule):
    """thin"""

    val_dataloader: Any = InnerHook()
    test_dataloader: Any = InnerHook()
    predict_dataloader: Any = InnerHook()
    prepare_data: Any = InnerHook()

    def __init__(
        self,
        candidates: Any,
        real: Any = None,
        *,
        wraps: LightningDataModule | None = None,
        view: Selector | None = None,
        label: Selector | None = None,
        mixture: Mixture | Mapping[str, float] | None = None,
        train_transform: Callable[[Any], Any] | None = None,
        epoch_length: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
    ) -> None:
        super().__init__()
        check_inner(wraps)
        self._inner = wraps
        self._sources = (candidates, real, view, label)
        self._candidates: list[Candidate] | None = None
        self._real: RealSample | None = None
        self._mixture = None if mixture is None else _as_mixture(mixture)
        self.batch_size = batch_size or 32
        self._options = {"num_workers": num_workers or 0, "collate_fn": collate_fn}
        self._transform, self._epoch_length, self._seed = train_transform, epoch_length, seed
        self._position = Position()
        self._built: Mixture | None = None
        self._given = {"val": val, "test": test, "predict": predict}
        for stage, data in self._given.items():
            if data is not None:
                vars(self)[f"{stage}_dataloader"] = lambda data=data: self._eval(data)

    @property
    def candidates(self) -> list[Candidate]:
        if self._candidates is None:
            source, _, view, label = self._sources
            if isinstance(source, list) and all(isinstance(c, Candidate) for c in source):
                self._candidates = source
            else:
                from synque_select.data.sources import load_candidates

                self._candidates = load_candidates(source, view=view, label=label)
        return self._candidates

    @property
    def real(self) -> RealSample | None:
        _, source, view, _ = self._sources
        if self._real is None and source is not None:
            if isinstance(source, RealSample):
                self._real = source
            else:
                from synque_select.data.sources import load_real

                self._real = load_real(source, view=view)
        return self._real

    @property
    def mixture(self) -> Mixture | None:
        return self._mixture

    def set_mixture(self, mixture: Mixture) -> None:
        chosen_candidates(self.candidates, mixture)
        if self._built is not None:
            raise LightningError("the train loader was already built for another mixture")
        self._mixture = mixture
        self._position = Position()

    def teardown(self, stage: str) -> None:
        self._built = None

    def _eval(self, data: Any) -> Any:
        if isinstance(data, DataLoader):
            return data
        return DataLoader(data, batch_size=self.batch_size, collate_fn=self._options["collate_fn"])

    def train_dataloader(self) -> Any:
        mixture = self._mixture or Mixture.equal([c.name for c in self.candidates])
        self._mixture = self._built = mixture
        dataset = MixtureDataset(
            self.candidates,
            mixture,
            seed=self._seed,
            epoch_length=self._epoch_length,
            transform=self._transform,
        )
        kwargs = (self.trainer and self.trainer.distributed_sampler_kwargs) or {}
        sampler = MixtureSampler(dataset, **kwargs)
        return MixtureLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            position=self._position,
            resumes=self._resumes,
            **self._options,
        )

    def _resumes(self) -> bool:
        if self.trainer is None:
            return False
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.processed > 0


def _as_mixture(mixture: Any) -> Mixture:
    return mixture if isinstance(mixture, Mixture) else Mixture(mixture)
