"""A wrapped DataModule behaves as a bare one: the same batches, the same log of hook calls."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

from synque_select.data.datamodule import SynqueDataModule
from synque_select.errors import ConfigError, LightningError
from tests.training.serving import Recorder, UserData, candidates, fit, records, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

HOOKS = [
    "prepare_data",
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
]


class Stages(Recorder):
    """Records the batches of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.tested: list[Any] = []

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.tested.append(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return batch


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(7))


def tensors(n: int = 6) -> TensorDataset:
    return TensorDataset(torch.arange(n), torch.arange(n) % 2)


class Dicts(UserData):
    def val_dataloader(self) -> Any:
        return CombinedLoader(
            {"x": DataLoader(tensors(), batch_size=2), "y": DataLoader(tensors(3))}
        )

    def test_dataloader(self) -> Any:
        return CombinedLoader(
            [DataLoader(tensors(), batch_size=2), DataLoader(tensors(3))], "sequential"
        )

    def predict_dataloader(self) -> Any:
        return (DataLoader(tensors(), batch_size=4), DataLoader(records("p", 3), batch_size=2))


class Iterables(UserData):
    def val_dataloader(self) -> Any:
        return DataLoader(Numbers(), batch_size=2)

    def test_dataloader(self) -> Any:
        return [{"id": ["one"]}, {"id": ["two"]}]

    def predict_dataloader(self) -> Any:
        def collate(texts: list[Any]) -> list[str]:
            return [record["text"].upper() for record in texts]

        sampler = BatchSampler(RandomSampler(range(9), generator=torch.Generator()), 2, True)
        return DataLoader(records("p", 9), batch_sampler=sampler, collate_fn=collate)


class Bare(pl.LightningDataModule):
    """Only what Lightning needs, no other hook."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def train_dataloader(self) -> Any:
        return DataLoader(records("t", 16), batch_size=4)

    def val_dataloader(self) -> Any:
        return DataLoader(records("v", 3))

    test_dataloader = predict_dataloader = val_dataloader


def from_datasets() -> pl.LightningDataModule:
    datasets = {f"{name}_dataset": tensors() for name in ("val", "test", "predict")}
    train = candidates(t=16, u=2)[0]  # any dataset
    dm = pl.LightningDataModule.from_datasets(Subset(train, range(16)), **datasets, batch_size=4)
    dm.calls = []
    return dm


def run_all(folder: Path, dm: Any, inner: Any) -> dict[str, Any]:
    """Fit, validate, test and predict; return what was seen and called."""
    pl.seed_everything(1, verbose=False)
    model, run = Stages(), trainer(folder)
    run.fit(model, datamodule=dm)
    run.validate(model, datamodule=dm, verbose=False)
    run.test(model, datamodule=dm, verbose=False)
    predicted = run.predict(model, datamodule=dm)
    return {
        "validated": model.validated,
        "tested": model.tested,
        "predicted": predicted,
        "n_trained": len(model.batches),
        "calls": inner.calls,
    }


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling")
@pytest.mark.parametrize("kind", [UserData, Dicts, Iterables, Bare, from_datasets])
def test_bare_and_wrapped_see_and_call_the_same(tmp_path: Path, kind: Any):
    bare, inner = kind(), kind()
    expected = run_all(tmp_path, bare, bare)
    wrapped = SynqueDataModule(candidates(), wraps=inner, epoch_length=16)
    found = run_all(tmp_path, wrapped, inner)
    assert str(found) == str(expected)
    assert expected["n_trained"] == 4


def test_a_hook_exists_only_where_the_inner_one_has_it():
    class Few(pl.LightningDataModule):
        def val_dataloader(self) -> Any:
            return []

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

    def overridden(dm: Any) -> list[str]:
        return [hook for hook in HOOKS if is_overridden(hook, dm)]

    assert overridden(SynqueDataModule(candidates())) == []
    assert overridden(SynqueDataModule(candidates(), wraps=Few())) == overridden(Few())
    assert overridden(SynqueDataModule(candidates(), wraps=UserData())) == HOOKS
    own = SynqueDataModule(candidates(), wraps=Few(), test=records("t", 4))
    assert overridden(own) == ["val_dataloader", "test_dataloader", "on_after_batch_transfer"]


def test_what_is_given_stands_before_the_inner_loaders():
    dm = SynqueDataModule(candidates(), wraps=UserData(), val=records("own", 4))
    assert next(iter(dm.val_dataloader()))["id"] == ["own-0", "own-1", "own-2", "own-3"]
    assert next(iter(dm.test_dataloader()))["id"][0] == "test-0"


class TestAttributes:
    def test_public_ones_are_read_and_written_through(self, tmp_path: Path):
        inner = UserData()
        dm = SynqueDataModule(candidates(), wraps=inner)
        assert dm.num_classes == 7
        dm.num_classes = 9
        assert inner.num_classes == 9
        inner.vocabulary = ["x"]
        assert dm.vocabulary == ["x"]
        dm.something_new = 1
        assert not hasattr(inner, "something_new")

        class Asking(Recorder):
            def setup(self, stage: str) -> None:
                assert self.trainer.datamodule.num_classes == 9

        run = trainer(tmp_path)
        run.fit(Asking(), datamodule=dm)
        assert inner.trainer is dm.trainer is run

    def test_those_of_every_datamodule_are_the_inner_ones(self):
        inner = UserData(batch_size=3)
        inner.allow_zero_length_dataloader_with_multiple_devices = True
        dm = SynqueDataModule(candidates(), wraps=inner)
        assert dm.wraps is inner
        assert dm.prepare_data_per_node is False
        assert dm.allow_zero_length_dataloader_with_multiple_devices is True
        assert dm.hparams is inner.hparams
        assert dm.hparams_initial == {"batch_size": 3}
        dm.prepare_data_per_node = True
        assert inner.prepare_data_per_node is True

    def test_without_an_inner_one_they_are_lightnings(self):
        dm = SynqueDataModule(candidates())
        assert dm.prepare_data_per_node is True
        assert dm.hparams == dm.hparams_initial == {}
        assert not hasattr(dm, "num_classes")
        assert not hasattr(dm, "_hparams_name")

    def test_a_missing_one_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="'UserData' object has no attribute 'nothing'"):
            _ = SynqueDataModule(candidates(), wraps=UserData()).nothing

    def test_batch_size_is_the_inner_one_until_it_is_set(self):
        inner = UserData(batch_size=3)
        dm = SynqueDataModule(candidates(), wraps=inner)
        assert (dm.batch_size, dm.train_dataloader().batch_size) == (3, 3)
        dm.batch_size = 6
        assert (inner.batch_size, inner.hparams["batch_size"]) == (6, 6)
        assert {loader.batch_size for loader in dm.val_dataloader()} == {6}
        assert dm.train_dataloader().batch_size == 6

    def test_a_batch_size_of_training_alone(self):
        inner = UserData(batch_size=3)
        dm = SynqueDataModule(candidates(), wraps=inner, batch_size=5)
        assert (dm.train_dataloader().batch_size, inner.batch_size) == (5, 3)

    def test_a_batch_size_that_only_the_loader_knows(self):
        dm = SynqueDataModule(candidates(), wraps=Bare())
        assert not hasattr(dm, "batch_size"), "as Lightning sees the bare one"
        assert dm.train_dataloader().batch_size == dm.batch_size == 4

    def test_a_copy_and_a_pickle_are_wrappers_too(self):
        dm = SynqueDataModule(candidates(), wraps=UserData(), mixture={"a": 1.0})
        for other in (copy.deepcopy(dm), pickle.loads(pickle.dumps(dm))):
            assert isinstance(other, SynqueDataModule)
            assert other.num_classes == 7
            assert other.wraps is not dm.wraps
            assert other.mixture == dm.mixture


class TestInherited:
    def test_options_of_the_training_loader(self):
        def collate(texts: list[Any]) -> dict[str, Any]:
            return {"id": [record["id"] for record in texts]}

        def init(worker: int) -> None: ...

        class Detailed(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return {
                    "only": DataLoader(
                        records("t", 9),
                        batch_size=3,
                        num_workers=2,
                        prefetch_factor=4,
                        timeout=60,
                        drop_last=True,
                        collate_fn=collate,
                        worker_init_fn=init,
                        persistent_workers=True,
                    )
                }

        loader = SynqueDataModule(candidates(), wraps=Detailed()).train_dataloader()
        assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (3, 2, 4)
        assert (loader.timeout, loader.drop_last, loader.persistent_workers) == (60, True, True)
        assert (loader.collate_fn, loader.worker_init_fn) == (collate, init)
        given = SynqueDataModule(candidates(), wraps=Detailed(), num_workers=0, batch_size=7)
        loader = given.train_dataloader()
        assert (loader.batch_size, loader.num_workers, loader.timeout) == (7, 0, 0)
        assert next(iter(loader)).keys() == {"id"}

    def test_of_a_batch_sampler(self):
        class Sampled(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return DataLoader(records("t", 9), batch_sampler=BatchSampler(range(9), 3, True))

        loader = SynqueDataModule(candidates(), wraps=Sampled()).train_dataloader()
        assert (loader.batch_size, loader.drop_last) == (3, True)

    def test_no_batch_size_anywhere(self):
        class Whole(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return DataLoader([torch.zeros(3, 1)], batch_size=None)

        with pytest.raises(ConfigError, match="of Whole has no batch size: give batch_size="):
            SynqueDataModule(candidates(), wraps=Whole()).train_dataloader()

    def test_several_training_loaders_cannot_be_stood_in_for(self):
        class Several(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return {"a": DataLoader(records("t", 9)), "b": DataLoader(records("u", 9))}

        with pytest.raises(LightningError, match="Several returns 2 loaders"):
            SynqueDataModule(candidates(), wraps=Several()).train_dataloader()


def test_on_exception_reaches_the_inner_one(tmp_path: Path):
    class Failing(Recorder):
        def training_step(self, batch: Any, i: int) -> Any:
            raise RuntimeError("no luck")

    inner = UserData()
    with pytest.raises(RuntimeError, match="no luck"):
        fit(tmp_path, SynqueDataModule(candidates(), wraps=inner), model=Failing())
    assert inner.calls[-1] == "on_exception no luck"


def test_the_inner_hyper_parameters_are_logged_and_saved_as_ever(tmp_path: Path):
    saved = []
    for place, wrap in (("bare", False), ("wrapped", True)):
        inner = UserData(batch_size=4)
        dm = SynqueDataModule(candidates(), wraps=inner) if wrap else inner
        logger = CSVLogger(tmp_path / place)
        run = trainer(tmp_path, logger=logger, log_every_n_steps=1)
        run.fit(Recorder(), datamodule=dm)
        run.save_checkpoint(tmp_path / f"{place}.ckpt")
        state = torch.load(tmp_path / f"{place}.ckpt", weights_only=True)
        hparams = {key: state[key] for key in state if key.startswith("datamodule_h")}
        saved.append((dict(logger.experiment.hparams), hparams))
    assert (
        saved[0]
        == saved[1]
        == (
            {"lr": 0.1, "batch_size": 4},
            {"datamodule_hparams_name": "kwargs", "datamodule_hyper_parameters": {"batch_size": 4}},
        )
    )
