"""A mixture of streams: weights in every 1,000 draws, the same on all ranks and when resumed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.data.stream_rows import WINDOW, StreamError
from synque_select.errors import ConfigError, DataError
from synque_select.training.mixture_loader import MixtureDataset, MixtureLoader, MixtureSampler
from synque_select.types import Mixture
from tests.lightning_package import SynqueDataModule, pl
from tests.training.serving import Rows, fit, records
from tests.training.test_datamodule_ddp import interleaved, launch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]

SIZES = {"a": 2500, "h": 3200, "m": 700}
MIXTURE = Mixture({"a": 0.5, "h": 0.3, "m": 0.2})
LENGTH = 4000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def candidates() -> list[Candidate]:
    """A stream of torch, one of datasets and a list: the first and the last are used up early."""
    hub = datasets.Dataset.from_list(records("h", SIZES["h"])).to_iterable_dataset(num_shards=4)
    given = {"a": Rows("a", SIZES["a"]), "h": hub, "m": records("m", SIZES["m"])}
    return load_candidates(given, view="text", reservoir=100)


def loader(parts: list[Candidate], rank: int, n_ranks: int, workers: int) -> MixtureLoader:
    sampler = MixtureSampler(MixtureDataset(parts, MIXTURE, epoch_length=LENGTH), n_ranks, rank)
    return MixtureLoader(
        sampler.dataset, sampler=sampler, begin=lambda _: None, batch_size=10, num_workers=workers
    )


def served(parts: list[Candidate], rank: int = 0, n_ranks: int = 1, workers: int = 0) -> list[str]:
    return [name for batch in loader(parts, rank, n_ranks, workers) for name in batch["id"]]


def test_weights_are_kept_in_every_1000_draws(candidates: list[Candidate]):
    dataset = MixtureDataset(candidates, MIXTURE, epoch_length=LENGTH)
    ids = [dataset[draw]["id"] for draw in range(2 * LENGTH)]  # type: ignore[index]
    for start in range(0, len(ids), 1000):
        counts = Counter(name[0] for name in ids[start : start + 1000])
        assert counts == {"a": 500, "h": 300, "m": 200}


def test_each_pass_has_every_example_once(candidates: list[Candidate]):
    dataset = MixtureDataset(candidates, MIXTURE, epoch_length=LENGTH)
    ids = [dataset[draw]["id"] for draw in range(3 * LENGTH)]  # type: ignore[index]
    for name, n in SIZES.items():
        own = [int(one.split("-")[1]) for one in ids if one[0] == name]
        for start in range(0, len(own) - n + 1, n):
            assert sorted(own[start : start + n]) == list(range(n))
    streamed = [int(one.split("-")[1]) for one in ids if one[0] == "a"]
    first, second = streamed[: SIZES["a"]], streamed[SIZES["a"] : 2 * SIZES["a"]]
    assert first != second
    # windows come in their order, shuffled inside
    assert sorted(first[:WINDOW]) == list(range(WINDOW))
    assert first[:WINDOW] != list(range(WINDOW))


def test_another_seed_is_another_order(candidates: list[Candidate]):
    orders = [
        [MixtureDataset(candidates, MIXTURE, seed=seed)[draw] for draw in range(50)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("n_ranks", "workers"), [(1, 2), (2, 0), (2, 1)])
def test_ranks_and_workers_share_the_draws(candidates: list[Candidate], n_ranks: int, workers: int):
    expected = served(candidates)
    by_rank = [served(candidates, rank, n_ranks, workers) for rank in range(n_ranks)]
    assert [name for part in zip(*by_rank, strict=True) for name in part] == expected


def data(**options: Any) -> SynqueDataModule:
    given = {"a": Rows("a", 1300), "b": Rows("b", 300), "c": Rows("c", 200)}
    return SynqueDataModule(
        given,
        **{
            "view": "text",
            "reservoir": 100,
            "mixture": {"a": 0.75, "b": 0.25},
            "epoch_length": 480,
            "batch_size": 16,
            **options,
        },
    )


PER_EPOCH, EPOCHS = 30, 4  # 480 draws in batches of 16; a and b are each used up


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [7, 30, 95])
def test_a_resumed_run_is_the_same(tmp_path: Path, step: int, workers: int):
    folder = tmp_path / "whole"
    saver = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=step, save_top_k=-1, monitor=None
    )
    whole = fit(folder, data(), saver, max_epochs=EPOCHS)
    assert len(whole.batches) == PER_EPOCH * EPOCHS
    ckpt = str(folder / f"step={step}.ckpt")
    resumed = fit(
        tmp_path / "resumed", data(num_workers=workers), ckpt_path=ckpt, max_epochs=EPOCHS
    )
    assert resumed.batches == whole.batches[step:]
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert mine.equal(theirs)


def test_two_processes(tmp_path: Path, candidates: list[Candidate]):
    ranks = launch(tmp_path / "ddp", "ddp", workers=1, streams=1, max_epochs=2)
    given = {"a": Rows("a", 1300), "b": Rows("b", 300), "c": Rows("c", 200)}
    parts = load_candidates(given, view="text", reservoir=100)
    dataset = MixtureDataset(parts, Mixture({"a": 0.7, "b": 0.3}), epoch_length=428)
    expected = [dataset[draw]["id"] for draw in range(2 * 428)]  # type: ignore[index]
    assert interleaved(ranks) == expected


def test_workers_are_kept_as_new_ones_would_read_from_the_beginning():
    assert data(num_workers=1).mixture_loader().persistent_workers
    assert not data().mixture_loader().persistent_workers
    plain = SynqueDataModule({"a": records("a", 20), "b": records("b", 20)}, num_workers=1)
    assert not plain.mixture_loader().persistent_workers


def test_the_longest_epoch_is_that_of_all_examples():
    dm = data(epoch_length=None)
    assert dm.mixture_loader().dataset.schedule.epoch_length == 1200  # 300 / 0.25


def test_an_iterator_is_refused_before_training():
    once = {"a": iter(records("a", 300)), "b": records("b", 300)}
    dm = SynqueDataModule(once, view="text", reservoir=100)
    with pytest.raises(DataError, match="a: 300 examples were read from an iterator"):
        dm.train_dataloader()


def test_a_stream_that_becomes_shorter_is_named():
    rows = Rows("a", 1300)
    dm = SynqueDataModule({"a": rows, "b": records("b", 300)}, view="text", reservoir=100)
    _ = dm.candidates
    rows.n = 900
    with pytest.raises(StreamError, match="a: the stream ended after 900 examples, but had 1,300"):
        list(dm.mixture_loader())


def test_what_needs_all_examples_in_the_ranking(tmp_path: Path):
    dm = data(real=records("r", 30), val="surrogate", label="x")
    with pytest.raises(ConfigError, match="a surrogate validation set needs all examples"):
        dm.draw_surrogate()
    with pytest.raises(ConfigError, match="reservoir=5: allowed is a whole number from 100"):
        data(reservoir=5)


def test_export(tmp_path: Path):
    dm = data()
    export = dm.export(tmp_path / "mix.jsonl")
    assert export.drawn == {"a": 360, "b": 120}
    assert {*export.most_repeated.values()} == {1}
