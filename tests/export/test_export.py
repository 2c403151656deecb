"""Exported data are the draws that training serves: same examples, order, weights and labels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, load_from_disk

from synque_select import Candidate, Mixture, SynqueDataModule
from synque_select.data.label_edits import LabelEdits
from synque_select.errors import ConfigError, DataError, RecordError
from synque_select.export.rows import ORIGIN
from synque_select.training.draws import export_draws
from synque_select.training.mixture_loader import MixtureDataset

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def candidates(n: int = 200) -> list[Candidate]:
    return [
        Candidate(
            name,
            [{"text": f"{name}{i}", "label": i % 3, "score": i / 7} for i in range(n)],
            view="text",
            label="label",
        )
        for name in WEIGHTS
    ]


def module(**options: object) -> SynqueDataModule:
    options = {"mixture": WEIGHTS, "batch_size": 8, "seed": 3, **options}
    return SynqueDataModule(candidates(), collate_fn=list, **options)


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return list(load_from_disk(str(path)))


@pytest.mark.parametrize("name", ["mix.parquet", "mix.jsonl", "mix"])
def test_the_draws_of_an_epoch(name: str, tmp_path: Path):
    dm = module()
    export = dm.export(tmp_path / name)
    served = [example for batch in dm.train_dataloader() for example in batch]
    rows = read(tmp_path / name)
    assert [{k: v for k, v in row.items() if k != ORIGIN} for row in rows] == served
    assert [row[ORIGIN] for row in rows] == [row["text"][0] for row in rows]
    assert export.n == len(rows) == 400
    assert export.drawn == {"a": 200, "b": 120, "c": 80}
    assert set(export.most_repeated.values()) == {1}
    assert os.listdir(tmp_path) == [name]


def test_draws_beyond_an_epoch_are_those_of_the_next(tmp_path: Path):
    export = module(epoch_length=50).export(tmp_path / "mix.jsonl", n=120)
    rows = read(export.path)
    dm = module(epoch_length=50)
    dataset = dm.train_dataloader().dataset
    assert [row["text"] for row in rows] == [dataset[draw]["text"] for draw in range(120)]


def test_repeats_are_counted(tmp_path: Path):
    export = module(epoch_length=1000).export(tmp_path / "mix.jsonl")
    assert export.most_repeated == {"a": 3, "b": 2, "c": 1}


@pytest.mark.parametrize("relabel", [False, True])
def test_the_label_filter_is_applied(relabel: bool, tmp_path: Path):
    dm = module()
    dm.set_label_edits(LabelEdits({"a": {0: "2", 1: "0"}}, relabel))
    rows = read(dm.export(tmp_path / "mix.parquet", n=2000).path)
    labels = {row["text"]: row["label"] for row in rows}
    if relabel:
        assert (labels["a0"], labels["a1"]) == (2, 0)
    else:
        assert not {"a0", "a1"} & labels.keys()
    assert labels["a2"] == 2


def test_labeled_real_data_and_no_transform(tmp_path: Path):
    real = [{"text": f"r{i}", "label": 0, "score": 0.5} for i in range(50)]
    dm = module(labeled_real={"real": real}, real_share=0.25, train_transform=str, view="text")
    rows = read(dm.export(tmp_path / "mix.jsonl").path)
    assert sum(row[ORIGIN] == "real" for row in rows) == len(rows) // 4


def test_an_existing_file_is_kept(tmp_path: Path):
    path = tmp_path / "mix.jsonl"
    path.write_text("mine")
    with pytest.raises(RecordError, match="exists already: give another path, or --force"):
        module().export(path)
    assert path.read_text() == "mine"
    module().export(path, force=True, n=3)
    assert len(read(path)) == 3


def test_a_folder_is_replaced_only_if_it_is_a_saved_dataset(tmp_path: Path):
    folder = tmp_path / "mix"
    module().export(folder, n=3)
    module().export(folder, n=5, force=True)
    assert len(read(folder)) == 5
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(RecordError, match="is not a saved dataset"):
        module().export(other, force=True)
    assert (other / "thesis.tex").exists()


def test_a_failure_leaves_nothing(tmp_path: Path):
    class Broken(list):
        def __getitem__(self, index):
            if index == 150:
                raise OSError("disk")
            return super().__getitem__(index)

    rows = Broken({"text": str(i)} for i in range(200))
    dataset = MixtureDataset([Candidate("a", rows)], Mixture.equal(["a"]))
    for name in ("mix.parquet", "mix.jsonl", "mix"):
        with pytest.raises(DataError, match="a, example 150"):
            export_draws(dataset, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_bad_arguments(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"allowed are .parquet and .jsonl, and a folder"):
        module().export(tmp_path / "mix.csv")
    with pytest.raises(ConfigError, match="n=0: allowed is a whole number from 1"):
        module().export(tmp_path / "mix.jsonl", n=0)
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="is not a writable directory"):
        module().export(tmp_path / "file" / "mix.jsonl")


def exported(rows: list[object], path: Path, **options: object) -> list[dict[str, object]]:
    candidate = Candidate("a", rows, **options)
    dataset = MixtureDataset([candidate], Mixture.equal(["a"]))
    return read(export_draws(dataset, path).path)


def test_types_that_change_after_the_first_batch(tmp_path: Path):
    rows = [{"text": str(i), "value": None if i < 2500 else i / 2} for i in range(3000)]
    rows[7]["extra"] = "here"
    out = exported(rows, tmp_path / "mix.parquet", view="text")
    by_text = {row["text"]: row for row in out}
    assert len(out) == 3000
    assert by_text["2999"] == {"text": "2999", "value": 1499.5, "extra": None, ORIGIN: "a"}
    assert by_text["7"]["extra"] == "here"


def test_nested_records_have_native_types(tmp_path: Path):
    rows = [
        {"prompt": f"p{i}", "messages": [{"role": "user", "content": f"m{i}"}] * (i % 3 + 1)}
        for i in range(10)
    ]
    for name in ("mix.parquet", "mix"):
        out = exported(rows, tmp_path / name, view="prompt")
        out = [{k: v for k, v in row.items() if k != ORIGIN} for row in out]
        assert sorted(out, key=lambda row: row["prompt"]) == rows


def test_values_that_no_column_holds(tmp_path: Path):
    rows = [{"text": str(i), "value": "x" if i % 2 else [1]} for i in range(4)]
    with pytest.raises(DataError, match=r"field .value. holds values of several types.*jsonl"):
        exported(rows, tmp_path / "mix.parquet", view="text")
    out = exported(rows, tmp_path / "mix.jsonl", view="text")
    assert sorted(map(str, (row["value"] for row in out))) == ["[1]", "[1]", "x", "x"]


def test_texts_tuples_and_arrays(tmp_path: Path):
    assert {row["text"] for row in exported(["x", "y"], tmp_path / "a.jsonl")} == {"x", "y"}
    rows = [("x", 0, np.arange(2)), ("y", np.int64(1), np.arange(2))]
    out = exported(rows, tmp_path / "b.jsonl", view=0, label=1)
    assert {(row["text"], row["label"], str(row["2"])) for row in out} == {
        ("x", 0, "[0, 1]"),
        ("y", 1, "[0, 1]"),
    }


def test_images(tmp_path: Path):
    from PIL import Image as PILImage

    shades = [PILImage.new("L", (4, 4), color) for color in (10, 200)]
    rows = [{"image": image, "label": i} for i, image in enumerate(shades)]
    exported(rows, tmp_path / "mix", view="image")
    saved = load_from_disk(str(tmp_path / "mix"))
    assert saved.features["image"] == Image()
    assert {row["image"].getpixel((0, 0)) for row in saved} == {10, 200}
    exported(rows, tmp_path / "mix.parquet", view="image")
    assert Dataset.from_parquet(str(tmp_path / "mix.parquet")).features["image"] == Image()
    with pytest.raises(DataError, match=r"write a \.parquet file or a folder instead"):
        exported(rows, tmp_path / "mix.jsonl", view="image")


def labeled(name: str, names: list[str]) -> Candidate:
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    rows = {"text": [f"{name}0", f"{name}1"], "label": [0, 1]}
    return Candidate(name, Dataset.from_dict(rows, features=features), "text", "label")


def test_class_labels_stay(tmp_path: Path):
    parts = [labeled("a", ["neg", "pos"]), labeled("b", ["neg", "pos"])]
    export_draws(MixtureDataset(parts, Mixture.equal(["a", "b"])), tmp_path / "mix")
    assert load_from_disk(str(tmp_path / "mix")).features["label"].names == ["neg", "pos"]


def test_class_labels_that_disagree(tmp_path: Path):
    parts = [labeled("a", ["neg", "pos"]), labeled("b", ["pos", "neg"])]
    with pytest.raises(DataError, match=r"'label' mean other classes .* a: neg, pos; b: pos, neg"):
        export_draws(MixtureDataset(parts, Mixture.equal(["a", "b"])), tmp_path / "mix")


def test_the_column_of_origin_is_not_overwritten(tmp_path: Path):
    with pytest.raises(DataError, match="rename the field"):
        exported([{"text": str(i), ORIGIN: "web"} for i in range(2)], tmp_path / "m", view="text")


@pytest.mark.parametrize("name", ["mix.parquet", "mix.jsonl", "mix"])
def test_memory_is_bounded(name: str, tmp_path: Path):
    import tracemalloc

    class Long(list):  # 4,000 texts of 20 kB, made when they are read: 80 MB
        def __len__(self):
            return 4000

        def __getitem__(self, index):
            return {"text": f"{index:06d}" * 3400}

    dataset = MixtureDataset([Candidate("a", Long())], Mixture.equal(["a"]))
    tracemalloc.start()
    try:
        export = export_draws(dataset, tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert export.n == 4000
    assert peak < 40 << 20
