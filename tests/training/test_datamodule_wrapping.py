"""A wrapped DataModule behaves as a bare one: the same batches, the same log of hook calls."""

from __future__ import annotations

import copy
import functools
import pickle
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from synque_select.errors import ConfigError, DataError, LightningError
from tests.lightning_package import SynqueDataModule, pl
from tests.training.serving import Recorder, UserData, candidates, fit, records, trainer

CSVLogger = pl.loggers.CSVLogger
CombinedLoader = pl.utilities.CombinedLoader
is_overridden = pl.utilities.model_helpers.is_overridden

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
    """Records the ids and the structure of training batches, and the batches of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.tested: list[Any] = []
        self.structures: list[Any] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.batches.append(ids_in(batch))
        self.structures.append(structure(batch))
        return self.layer(torch.ones(1, 1)).sum()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.tested.append(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return batch


def ids_in(batch: Any) -> list[str]:
    """The ids in a batch of any structure; for token ids the text that they come from."""
    if isinstance(batch, Mapping):
        if "id" in batch:
            return list(batch["id"])
        if "input_ids" in batch:
            texts = tokenizer().batch_decode(batch["input_ids"], skip_special_tokens=True)
            return [text.replace(" ", "-") for text in texts]
        return ids_in(next(iter(batch.values())))
    return list(batch) if isinstance(batch[0], str) else ids_in(batch[0])


def structure(batch: Any) -> Any:
    """A batch with every value replaced by its type."""
    if isinstance(batch, Mapping):
        return type(batch).__name__, {key: structure(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and not isinstance(batch[0], str):
        return type(batch).__name__, [structure(part) for part in batch]
    return type(batch).__name__


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(7))


class Streamed(IterableDataset[Any]):
    def __init__(self, name: str, n: int) -> None:
        self.records = records(name, n)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)


def tensors(n: int = 6) -> TensorDataset:
    return TensorDataset(torch.arange(n), torch.arange(n) % 2)


class Dicts(UserData):
    """Dicts everywhere; the training loader is in a dict, too."""

    def train_dataloader(self) -> Any:
        return {"only": self._loader("train", 16)}

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


class Combined(Dicts):
    """A training loader in a CombinedLoader, in a list of one."""

    def train_dataloader(self) -> Any:
        return CombinedLoader([self._loader("train", 16)], "min_size")


class Iterables(UserData):
    def train_dataloader(self) -> Any:
        return DataLoader(Streamed("train", 16), batch_size=4)

    def val_dataloader(self) -> Any:
        return DataLoader(Numbers(), batch_size=2)

    def test_dataloader(self) -> Any:
        return [{"id": ["one"]}, {"id": ["two"]}]

    def predict_dataloader(self) -> Any:
        def collate(texts: list[Any]) -> list[str]:
            return [record["text"].upper() for record in texts]

        sampler = BatchSampler(RandomSampler(range(9), generator=torch.Generator()), 2, True)
        return DataLoader(records("p", 9), batch_sampler=sampler, collate_fn=collate)


def pairs(batch: list[dict[str, Any]]) -> tuple[list[str], torch.Tensor]:
    return [record["id"] for record in batch], torch.tensor([record["x"] for record in batch])


class Tuples(pl.LightningDataModule):
    """Batches are tuples of ids and a tensor."""

    def train_dataloader(self) -> Any:
        return DataLoader(records("t", 16), batch_size=4, collate_fn=pairs)

    def val_dataloader(self) -> Any:
        return DataLoader(records("v", 6), batch_size=4, collate_fn=pairs)

    test_dataloader = predict_dataloader = val_dataloader


class Tokens(pl.LightningDataModule):
    """A Hugging Face collator that pads; text in, token ids out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = tokenizer()
        self.collator = DataCollatorWithPadding(self.tokenizer)

    def _loader(self, name: str, n: int) -> Any:
        tokens = [self.tokens(record) for record in records(name, n)]
        return DataLoader(tokens, batch_size=4, collate_fn=self.collator)  # type: ignore[arg-type]

    def tokens(self, record: dict[str, Any]) -> dict[str, Any]:
        return dict(self.tokenizer(record["text"]))

    def train_dataloader(self) -> Any:
        return self._loader("a", 16)

    def val_dataloader(self) -> Any:
        return self._loader("b", 6)

    test_dataloader = predict_dataloader = val_dataloader


@functools.cache
def tokenizer() -> Any:
    words = ["[PAD]", "[UNK]", "a", "b", "c", *map(str, range(60))]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    made = Tokenizer(model)
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


class Bare(pl.LightningDataModule):
    """Only what Lightning needs, no other hook."""

    def train_dataloader(self) -> Any:
        return DataLoader(records("t", 16), batch_size=4)

    def val_dataloader(self) -> Any:
        return DataLoader(records("v", 3))

    test_dataloader = predict_dataloader = val_dataloader


def from_datasets() -> pl.LightningDataModule:
    datasets = {f"{name}_dataset": tensors() for name in ("val", "test", "predict")}
    train = candidates(t=16, u=2)[0]  # any dataset
    return pl.LightningDataModule.from_datasets(Subset(train, range(16)), **datasets, batch_size=4)


KINDS = [UserData, Dicts, Combined, Iterables, Tuples, Tokens, Bare, from_datasets]
ALL_HOOKS = [*HOOKS, "train_dataloader", "setup", "teardown", "state_dict", "load_state_dict"]


def logged(dm: Any) -> list[str]:
    """Log every call of a hook that the DataModule has."""
    calls: list[str] = []

    def wrap(name: str, hook: Any) -> Any:
        @functools.wraps(hook)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [str(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, str | int)]
            calls.append(" ".join([name, *given]))
            return hook(*args, **kwargs)

        return call

    for name in ALL_HOOKS:
        if is_overridden(name, dm):
            setattr(dm, name, wrap(name, getattr(dm, name)))
    return calls


def run_all(folder: Path, dm: Any) -> tuple[Stages, dict[str, Any]]:
    """Fit, validate, test and predict; return the model, and what it saw after training."""
    pl.seed_everything(1, verbose=False)
    model, run = Stages(), trainer(folder)
    run.fit(model, datamodule=dm)
    run.save_checkpoint(folder / "end.ckpt")
    run.validate(model, datamodule=dm, ckpt_path=folder / "end.ckpt", verbose=False)
    run.test(model, datamodule=dm, verbose=False)
    predicted = run.predict(model, datamodule=dm)
    return model, {
        "validated": model.validated,
        "tested": model.tested,
        "predicted": predicted,
        "n_trained": len(model.batches),
    }


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling")
@pytest.mark.parametrize("kind", KINDS)
def test_bare_and_wrapped_see_and_call_the_same(tmp_path: Path, kind: Any):
    bare, inner = kind(), kind()
    expected_calls, calls = logged(bare), logged(inner)
    (tmp_path / "bare").mkdir()
    bare_model, expected = run_all(tmp_path / "bare", bare)
    transform = inner.tokens if kind is Tokens else None
    wrapped = SynqueDataModule(
        candidates(), wraps=inner, epoch_length=16, train_transform=transform
    )
    model, actual = run_all(tmp_path, wrapped)
    assert str(actual) == str(expected)
    assert calls == expected_calls
    assert expected["n_trained"] == 4
    assert model.structures == bare_model.structures
    assert [len(ids) for ids in model.batches] == [len(ids) for ids in bare_model.batches]
    dataset = SynqueDataModule(candidates(), epoch_length=16).mixture_loader().dataset
    assert model.ids == [dataset[draw]["id"] for draw in range(16)]


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

    def test_a_loader_that_says_something_else_than_the_attribute(self, tmp_path: Path):
        class Shared(UserData):
            """Its batch size is the sum over all ranks."""

            def train_dataloader(self) -> Any:
                return DataLoader(records("train", 16), batch_size=self.batch_size // 2)

        dm = SynqueDataModule(candidates(), wraps=Shared(batch_size=4))
        model = fit(tmp_path, dm)
        assert {len(batch) for batch in model.batches} == {2}
        assert dm.batch_size == 2

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

        loader = SynqueDataModule(candidates(), wraps=Detailed()).mixture_loader()
        assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (3, 2, 4)
        assert (loader.timeout, loader.drop_last, loader.persistent_workers) == (60, True, True)
        assert (loader.collate_fn, loader.worker_init_fn) == (collate, init)
        given = SynqueDataModule(candidates(), wraps=Detailed(), num_workers=0, batch_size=7)
        loader = given.mixture_loader()
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

    def test_no_training_loader_at_all(self):
        class Measures(pl.LightningDataModule):
            def val_dataloader(self) -> Any:
                return DataLoader(records("v", 4))

        loader = SynqueDataModule(candidates(), wraps=Measures()).train_dataloader()
        assert loader.batch_size == 32

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


@pytest.mark.parametrize("kind", [Dicts, Combined])
def test_a_loader_in_a_collection_resumes_at_the_exact_position(tmp_path: Path, kind: Any):
    def made() -> SynqueDataModule:
        return SynqueDataModule(candidates(), wraps=kind(), epoch_length=16)

    def train(n_steps: int, ckpt_path: Path | None = None) -> list[str]:
        model = Stages()
        run = trainer(tmp_path, max_epochs=-1, max_steps=n_steps, limit_val_batches=0)
        run.fit(model, datamodule=made(), ckpt_path=ckpt_path)
        run.save_checkpoint(tmp_path / f"{n_steps}.ckpt")
        return model.ids

    whole, part = train(11), train(6)
    assert part + train(11, tmp_path / "6.ckpt") == whole


# -------------------------------------------------------- a collate_fn that takes no raw records


def raw(n: int) -> list[dict[str, Any]]:
    return [{"text": f"a {i}", "label": i % 2} for i in range(n)]


class LabeledTokens(Tokens):
    def tokens(self, record: dict[str, Any]) -> dict[str, Any]:
        return {**self.tokenizer(record["text"]), "labels": 1}


@pytest.mark.parametrize("inner", [Tokens, LabeledTokens, Tuples])
def test_a_collate_fn_that_takes_no_record_is_one_error_whose_example_works(inner: Any):
    wrapped = inner()
    data = SynqueDataModule({"near": raw(8), "far": raw(8)}, view="text", wraps=wrapped)
    with pytest.raises(
        DataError, match=r"cannot take an example of far, \{'text': 'a 0'"
    ) as caught:
        data.train_dataloader()
    message, code = str(caught.value).split("such as\n")
    assert "Its own training examples are {" in message
    if inner is Tuples:
        assert "'id': …" in code
        return
    names: dict[str, Any] = {"tokenizer": wrapped.tokenizer}
    exec(textwrap.dedent(code), names)
    data = SynqueDataModule(
        {"near": raw(8), "far": raw(8)},
        view="text",
        wraps=wrapped,
        train_transform=names["train_transform"],
    )
    batch = next(iter(data.train_dataloader()))
    assert ("labels" in batch) == (inner is LabeledTokens)
    assert batch["input_ids"].shape[0] == 4


def test_a_transform_whose_result_the_collate_fn_cannot_take():
    data = SynqueDataModule(
        {"near": raw(8)},
        view="text",
        wraps=Tokens(),
        train_transform=lambda record: 1 / len(record),
    )
    with pytest.raises(DataError, match=r"an example of near that train_transform returns, 0\.5"):
        data.train_dataloader()
