"""Parts for tests of what is served: a model that records, data with ids, a DataModule to wrap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from synque_select.data.candidate import Candidate
from tests.lightning_package import SynqueDataModule, pl


def records(name: str, n: int) -> list[dict[str, Any]]:
    return [{"text": f"{name} {i}", "x": i / n, "id": f"{name}-{i}"} for i in range(n)]


class Rows(IterableDataset[Any]):
    """Records as a stream that can be read again."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.n = name, n

    def __iter__(self) -> Iterator[Any]:
        yield from records(self.name, self.n)


def candidates(**sizes: int) -> list[Candidate]:
    sizes = sizes or {"a": 60, "b": 60, "c": 60}
    return [Candidate(name, records(name, n), view="text") for name, n in sizes.items()]


class Recorder(pl.LightningModule):
    """A linear model that remembers the ids of every batch it was trained on."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
        self.batches: list[list[str]] = []
        self.epochs: list[int] = []
        self.validated: list[Any] = []

    @property
    def ids(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def by_epoch(self) -> dict[int, list[str]]:
        ids: dict[int, list[str]] = {}
        for epoch, batch in zip(self.epochs, self.batches, strict=True):
            ids.setdefault(epoch, []).extend(batch)
        return ids

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.batches.append(list(batch["id"]))
        self.epochs.append(self.current_epoch)
        x = batch["x"].float()[:, None]
        return ((self.layer(x) - 2 * x) ** 2).mean()

    def validation_step(self, batch: Any, _: int, dataloader_idx: int = 0) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def trainer(folder: Path | str, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(callbacks=list(callbacks), **(defaults | options))


def fit(folder: Path | str, dm: SynqueDataModule, *callbacks: pl.Callback, **options: Any) -> Any:
    """Train a fresh model and return it, with what it saw."""
    ckpt_path = options.pop("ckpt_path", None)
    model = options.pop("model", None) or Recorder()
    trainer(folder, *callbacks, **options).fit(model, datamodule=dm, ckpt_path=ckpt_path)
    return model


class UserData(pl.LightningDataModule):
    """A user's own DataModule with every hook, and a log of what was called."""

    num_classes = 7

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size
        self.prepare_data_per_node = False
        self.calls: list[str] = []
        self.counter = 0

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.calls.append(f"setup {stage}")

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {stage}")

    def _loader(self, name: str, n: int = 10) -> DataLoader[Any]:
        self.calls.append(name)
        return DataLoader(records(name, n), batch_size=self.batch_size)  # type: ignore[arg-type]

    def train_dataloader(self) -> Any:
        return self._loader("train", 16)

    def val_dataloader(self) -> Any:
        return [self._loader("val"), self._loader("val2", 6)]

    def test_dataloader(self) -> Any:
        return self._loader("test")

    def predict_dataloader(self) -> Any:
        return self._loader("predict")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.calls.append("on_before_batch_transfer")
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        self.calls.append("transfer_batch_to_device")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.calls.append("on_after_batch_transfer")
        return {**batch, "seen": True} if isinstance(batch, dict) else batch

    def state_dict(self) -> dict[str, Any]:
        self.calls.append("state_dict")
        return {"counter": self.counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls.append("load_state_dict")
        self.counter = state_dict["counter"]

    def on_exception(self, exception: BaseException) -> None:
        self.calls.append(f"on_exception {exception}")
