"""Candidates of every kind, trained on: the ids that training_step sees."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from synque_select.data.candidate import RealSample
from synque_select.encoders import BaseEncoder
from synque_select.errors import LightningError
from tests.lightning_package import SelectionCallback, SynqueDataModule, pl
from tests.training.serving import Recorder, fit, records, trainer
from tests.training.tiny import LetterEncoder, letters

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


class Stream(IterableDataset[Any]):
    def __init__(self, name: str, n: int = 12) -> None:
        self.name, self.n = name, n

    def __iter__(self) -> Iterator[Any]:
        return iter(records(self.name, self.n))


def ids_of(*names: str, n: int = 12) -> list[str]:
    return sorted(f"{name}-{i}" for name in names for i in range(n))


def selection(tmp_path: Path, encoder: BaseEncoder, **options: Any) -> SelectionCallback:
    return SelectionCallback(["mmd"], encoder=encoder, cache_dir=tmp_path / "embeddings", **options)


REAL = records("real a", 20)


def test_iterables_are_ranked_and_trained_on(tmp_path: Path):
    given = {
        "a": Stream("a"),
        "bb": datasets.Dataset.from_list(records("bb", 12)).to_iterable_dataset(),
        "c": (record for record in records("c", 12)),
    }
    encoder = LetterEncoder()
    dm = SynqueDataModule(given, REAL, view="text", batch_size=4)
    model = fit(tmp_path, dm, selection(tmp_path, encoder, top_k=2), max_epochs=2)
    assert dm.mixture is not None
    assert encoder.n_encoded == 3 * 12 + 20
    for ids in model.by_epoch().values():
        assert sorted(ids) == ids_of(*dm.mixture.names)
    for other in (copy.deepcopy(dm), pickle.loads(pickle.dumps(dm))):
        assert [list(c.views) for c in other.candidates] == [list(c.views) for c in dm.candidates]
    again = SynqueDataModule({**given, "c": records("c", 12)}, REAL, view="text", batch_size=4)
    fit(tmp_path, again, selection(tmp_path, encoder, top_k=2))
    assert encoder.n_encoded == 3 * 12 + 20, "a second run encodes nothing"


def test_a_view_computed_from_a_record(tmp_path: Path):
    def view(record: dict[str, Any]) -> str:
        return f"{record['question']} {record['schema'][0]}"

    def made(name: str) -> list[dict[str, Any]]:
        return [{"question": name, "schema": [f"t{i}"], "id": f"{name}-{i}"} for i in range(12)]

    def train(record: dict[str, Any]) -> dict[str, Any]:
        return {"id": record["id"], "x": float(len(record["question"]))}

    dm = SynqueDataModule(
        {"a": made("a"), "zz": made("zz")}, RealSample("real", made("a e"), view),
        view=view, train_transform=train, batch_size=4,
    )  # fmt: skip
    model = fit(tmp_path, dm, selection(tmp_path, LetterEncoder(), top_k=1))
    assert sorted(model.ids) == ids_of("a")


class Grey(BaseEncoder):
    id, modality = "grey", "image"

    def encode(self, views: Any) -> torch.Tensor:
        return torch.stack([torch.tensor(list(v.convert("L").tobytes())).float() for v in views])


def test_images_of_iterables(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")

    def made(name: str, shade: int) -> Iterator[dict[str, Any]]:
        for i in range(12):
            yield {"image": image.new("RGB", (3, 3), (shade + i,) * 3), "id": f"{name}-{i}"}

    def train(record: dict[str, Any]) -> dict[str, Any]:
        return {"id": record["id"], "x": float(record["image"].getpixel((0, 0))[0])}

    dm = SynqueDataModule(
        {"dark": made("dark", 0), "light": made("light", 200)}, made("real", 192),
        train_transform=train, batch_size=4,
    )  # fmt: skip
    model = fit(tmp_path, dm, selection(tmp_path, Grey(), top_k=1))
    assert sorted(model.ids) == ids_of("light")


class Synthetic(pl.LightningDataModule):
    """A DataModule for one generator; its loader makes batches in its own way."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.dataset_name = name
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        assert self.calls[-1] == "prepare_data"
        self.calls.append(f"setup {stage}")
        self.data = records(self.dataset_name, 12)

    def train_dataloader(self) -> Any:
        return DataLoader(self.data, batch_size=3, collate_fn=joined)  # type: ignore[arg-type]


def joined(batch: list[Any]) -> dict[str, Any]:
    features = torch.stack([letters(record["text"]) for record in batch])
    return {"id": [record["id"] for record in batch], "x": features.sum(1)}


def test_one_datamodule_a_candidate(tmp_path: Path):
    modules = {name: Synthetic(name) for name in ("a", "bb")}
    dm = SynqueDataModule(modules, REAL, view="text")
    model = fit(tmp_path, dm, selection(tmp_path, LetterEncoder(), top_k=1))
    assert sorted(model.ids) == ids_of("a")
    assert {len(batch) for batch in model.batches} == {3}, "batches as their loaders make them"
    assert [module.calls for module in modules.values()] == 2 * [["prepare_data", "setup fit"]]


def test_datamodules_and_files_in_one_mapping_without_a_trainer():
    dm = SynqueDataModule({"a": Synthetic("a"), "b": records("b", 5)}, view="text")
    assert [(candidate.name, len(candidate)) for candidate in dm.candidates] == [
        ("a", 12),
        ("b", 5),
    ]


def test_a_datamodule_with_an_iterable_dataset(tmp_path: Path):
    class Streaming(Synthetic):
        def train_dataloader(self) -> Any:
            return DataLoader(Stream(self.dataset_name), batch_size=4)

    dm = SynqueDataModule({"a": Streaming("a")}, view="text")
    assert sorted(fit(tmp_path, dm).ids) == ids_of("a")


def test_a_datamodule_that_trains_on_nothing():
    with pytest.raises(LightningError, match="LightningDataModule has no train_dataloader"):
        _ = SynqueDataModule({"a": pl.LightningDataModule()}).candidates


def test_resume_with_an_iterable(tmp_path: Path):
    def made() -> SynqueDataModule:
        return SynqueDataModule({"a": Stream("a", 30), "b": Stream("b", 30)}, view="text",
                                batch_size=4)  # fmt: skip

    whole = fit(tmp_path, made(), max_epochs=-1, max_steps=20).ids
    run, before = trainer(tmp_path, max_epochs=-1, max_steps=7), Recorder()
    run.fit(before, datamodule=made())
    run.save_checkpoint(tmp_path / "part.ckpt")
    after = fit(tmp_path, made(), max_epochs=-1, max_steps=20, ckpt_path=tmp_path / "part.ckpt")
    assert before.ids + after.ids == whole


def test_two_ranks_read_an_iterable_once_and_train_on_the_same(tmp_path: Path):
    script = ROOT / "tests" / "training" / "scripts" / "serve_iterables.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [len(ids) for ids in ranks] == [50, 50]
    assert sorted(ranks[0] + ranks[1]) == sorted([*ids_of("a", "b", n=40), *ids_of("r", n=20)])
