"""A selection with other features of the Trainer: scored once, and trained on as chosen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from synque_select.errors import LightningError
from synque_select.training.mixture_loader import MixtureDataset
from tests.lightning_package import (
    ProxyCorrelationCallback,
    SelectionCallback,
    SynqueDataModule,
    pl,
)
from tests.training.tiny import (
    N_VAL,
    REAL_WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    collate,
    data_module,
    real_sample,
    seen_by,
    texts,
    texts_of,
    trainer,
)

BatchSizeFinder = pl.callbacks.BatchSizeFinder
EarlyStopping = pl.callbacks.EarlyStopping
LearningRateFinder = pl.callbacks.LearningRateFinder
ModelCheckpoint = pl.callbacks.ModelCheckpoint
Tuner = pl.tuner.Tuner

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:You requested to overfit",
    "ignore:Be aware that when using `ckpt_path`, callbacks",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:Your `IterableDataset` has `__len__` defined",
)

N_SCORED = 5 * 60 + 30
EPOCH = 15  # batches of 8 in the 120 draws of "near" and "mixed"


class Tunable(TinyModel):
    """Has the attributes that Lightning's finders look for."""

    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Fit:
    """A trainer with a selection, its parts, and their results."""

    def __init__(self, folder: Path, *callbacks: pl.Callback, **options: Any) -> None:
        self.encoder, self.data = LetterEncoder(), data_module()
        self.selection = SelectionCallback(
            ["mmd"], top_k=2, encoder=self.encoder, cache_dir=folder / "cache"
        )
        self.model = options.pop("model", None) or Tunable()
        whole = {"max_steps": -1, "max_epochs": 1, "val_check_interval": 1.0}
        options = {**whole, "check_val_every_n_epoch": 1, **options}
        self.trainer = trainer(folder, *callbacks, self.selection, **options)

    def run(self) -> list[str]:
        self.trainer.fit(self.model, datamodule=self.data)
        return seen_by(self.model)

    def expected(self, n: int) -> list[str]:
        """Check that the first draws are those of the chosen mixture, scored once."""
        assert self.encoder.n_encoded == N_SCORED
        assert self.data.mixture is not None
        assert set(self.data.mixture.names) == {"near", "mixed"}
        assert set(seen_by(self.model)) <= texts_of("near", "mixed")
        dataset = MixtureDataset(self.data.candidates, self.data.mixture)
        return [dataset[draw]["text"] for draw in range(n)]


@pytest.mark.parametrize("place", ["before", "after"])
def test_batch_size_finder(tmp_path, place):
    finder = BatchSizeFinder(mode="power", steps_per_trial=1, init_val=2, max_trials=2)
    fit = Fit(tmp_path, *([finder] if place == "before" else []))
    if place == "after":
        fit.trainer.callbacks.append(finder)
    fit.data = SynqueDataModule(
        fit.data.candidates, real_sample(), batch_size=2, collate_fn=collate, val=real_val()
    )
    seen = fit.run()
    assert fit.data.batch_size == 4
    assert seen[-120:] == fit.expected(120)


def real_val() -> list[Any]:
    return list(data_module().wraps.val_dataloader().dataset)


def test_learning_rate_finder(tmp_path):
    fit = Fit(tmp_path, LearningRateFinder(num_training_steps=9, attr_name="lr"))
    seen = fit.run()
    assert len(seen) > 120, "the finder trained too"
    assert seen[-120:] == fit.expected(120)


@pytest.mark.parametrize("what", ["lr_find", "scale_batch_size"])
def test_tuner(tmp_path, what):
    fit = Fit(tmp_path)
    if what == "lr_find":
        Tuner(fit.trainer).lr_find(fit.model, datamodule=fit.data, num_training=9)
    else:
        fit.data.batch_size = 2
        Tuner(fit.trainer).scale_batch_size(
            fit.model, datamodule=fit.data, init_val=4, max_trials=2, steps_per_trial=1
        )
        assert fit.data.batch_size == 8
    seen = fit.run()
    assert seen[-120:] == fit.expected(120)


def test_dataloaders_that_are_reloaded(tmp_path):
    fit = Fit(tmp_path, max_epochs=3, reload_dataloaders_every_n_epochs=1)
    assert fit.run() == fit.expected(360)


def test_overfit_batches(tmp_path):
    fit = Fit(tmp_path, max_epochs=2, overfit_batches=3)
    assert fit.run() == 2 * fit.expected(24)


def test_limited_batches_and_accumulation(tmp_path):
    fit = Fit(tmp_path, max_epochs=4, limit_train_batches=4, accumulate_grad_batches=2)
    assert fit.run() == fit.expected(4 * 4 * 8)
    assert fit.trainer.global_step == 8


def test_several_fits_with_one_trainer(tmp_path):
    fit = Fit(tmp_path)
    fit.run()
    first = fit.selection.run_id
    fit.trainer.fit_loop.max_epochs = 3
    assert fit.run() == fit.expected(360)
    assert fit.selection.run_id != first


def test_early_stopping_and_checkpoints(tmp_path):
    saver = ModelCheckpoint(tmp_path / "saved", monitor="val_loss", mode="min")
    stopping = EarlyStopping("val_loss", mode="min", patience=0, min_delta=100.0)
    fit = Fit(tmp_path, saver, stopping, max_epochs=9, enable_checkpointing=True)
    assert fit.run() == fit.expected(240)
    assert Path(saver.best_model_path).is_file()
    other = Fit(tmp_path, max_epochs=3)
    other.trainer.fit(other.model, datamodule=other.data, ckpt_path=saver.best_model_path)
    n_done = 120 * torch.load(saver.best_model_path, weights_only=True)["epoch"] + 120
    assert seen_by(other.model) == fit.expected(360)[n_done:]
    assert other.encoder.n_encoded == 0


class Persistent(TinyData):
    def train_dataloader(self) -> Any:
        return DataLoader(
            texts(REAL_WORDS, 32, 5),
            batch_size=8,
            collate_fn=collate,
            num_workers=2,
            persistent_workers=True,
        )


@pytest.mark.parametrize(
    ("wraps", "options"),
    [
        (Persistent, {}),
        (TinyData, {"reload_dataloaders_every_n_epochs": 2}),
        (TinyData, {"limit_train_batches": 0.4}),
        (TinyData, {"max_steps": 40, "val_check_interval": 10, "check_val_every_n_epoch": None}),
    ],
    ids=["persistent workers", "reloading", "limited", "steps"],
)
def test_a_checkpoint_in_an_epoch_goes_on_at_that_batch(tmp_path, wraps, options):
    options = {"max_epochs": 3, **options}
    saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Fit(tmp_path, saver, enable_checkpointing=True, **options)
    whole.data = data_module(wraps=wraps())
    seen = whole.run()
    assert seen == whole.expected(len(seen))
    for step in (4, 10, 16):
        other = Fit(tmp_path, **options)
        other.data = data_module(wraps=wraps())
        ckpt = tmp_path / "saved" / f"step={step}.ckpt"
        other.trainer.fit(other.model, datamodule=other.data, ckpt_path=ckpt)
        assert seen_by(other.model) == seen[step * 8 :]
        assert torch.equal(other.model.layer.weight, whole.model.layer.weight)
        assert other.encoder.n_encoded == 0


@pytest.mark.parametrize("which", ["best", "last"])
def test_checkpoints_by_name(tmp_path, which):
    saver = ModelCheckpoint(tmp_path / "saved", monitor="val_loss", save_last=True)
    fit = Fit(tmp_path, saver, max_epochs=2, enable_checkpointing=True)
    fit.run()
    path = saver.best_model_path if which == "best" else saver.last_model_path
    n_done = 8 * torch.load(path, weights_only=True)["global_step"]
    fit.model.seen.clear()
    fit.trainer.fit_loop.max_epochs = 3
    fit.trainer.fit(fit.model, datamodule=fit.data, ckpt_path=which)
    assert seen_by(fit.model) == fit.expected(360)[n_done:]


def test_validation_before_the_fit(tmp_path):
    fit = Fit(tmp_path)
    fit.trainer.validate(fit.model, datamodule=fit.data, verbose=False)
    assert fit.encoder.n_encoded == 0
    assert fit.run() == fit.expected(120)


def test_a_limit_of_time(tmp_path):
    class Slow(Tunable):
        def training_step(self, batch: Any, i: int) -> torch.Tensor:
            time.sleep(0.05)
            return super().training_step(batch, i)

    fit = Fit(tmp_path, model=Slow(), max_epochs=-1, max_time={"seconds": 1})
    seen = fit.run()
    assert 0 < len(seen) <= 8 * 20
    assert seen == fit.expected(len(seen))


def test_estimated_steps_are_those_of_the_mixture(tmp_path):
    class Scheduled(Tunable):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            self.n_steps = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    fit = Fit(tmp_path, model=Scheduled(), max_epochs=2)
    assert fit.run() == fit.expected(240)
    assert fit.model.n_steps == fit.trainer.global_step == 2 * EPOCH


def test_a_second_selection_is_refused_before_anything_is_encoded(tmp_path):
    fit = Fit(tmp_path, SelectionCallback(["mmd"], cache_dir=tmp_path / "cache"))
    with pytest.raises(LightningError, match=r"2 callbacks of the kind SelectionCallback.*one"):
        fit.run()
    assert fit.encoder.n_encoded == 0
    assert fit.model.seen == []


class Stream(IterableDataset[Any]):
    """A user's validation data, read from its beginning to its end."""

    def __iter__(self) -> Any:
        yield from texts(REAL_WORDS, N_VAL, 7)


class SizedStream(Stream):
    def __len__(self) -> int:
        return N_VAL


@pytest.mark.parametrize("kind", [Stream, SizedStream])
def test_iterable_datasets_of_the_user(tmp_path, kind):
    class Streaming(TinyData):
        def train_dataloader(self) -> Any:
            return DataLoader(kind(), batch_size=8, collate_fn=collate)

        def val_dataloader(self) -> Any:
            return DataLoader(kind(), batch_size=20, collate_fn=collate)

    correlation = ProxyCorrelationCallback(store=tmp_path / "records.sqlite")
    fit = Fit(tmp_path, correlation, max_epochs=2)
    fit.data = data_module(wraps=Streaming())
    assert fit.run() == fit.expected(240)
    assert correlation.record is not None
    assert correlation.record.metrics["val_acc"] > 0.5
