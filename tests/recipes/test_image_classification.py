"""The image recipe: tiles that share no pixel, no leak, held-out images, metrics, its configs."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

pytest.importorskip("torchvision")
pytest.importorskip("skimage")

from synque_select.cli.main import main
from synque_select.data.examples import Examples
from synque_select.errors import ConfigError, DataError
from synque_select.experiment import TaskDataModule
from synque_select.recipes._surfaces import GENERATORS, SIDE, SURFACES, real_tiles
from synque_select.recipes.image_classification import (
    ImageClassifier,
    ImageData,
    ImageTask,
    _rank_of_label,
)
from synque_select.recipes.options import FitOptions
from synque_select.records.run_folder import read_json
from synque_select.types import Mixture


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return ImageTask(fit=FitOptions(n_distinct=24, max_steps=2, batch_size=8))


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


def test_real_tiles_do_not_repeat_and_cover_every_surface():
    tiles, labels = real_tiles()
    assert tiles.shape == (len(labels), SIDE, SIDE)
    assert np.bincount(labels).min() >= 60
    assert len(np.bincount(labels)) == len(SURFACES)
    # black sky apart, no two tiles are the same
    assert len({tile.tobytes() for tile in tiles}) > 0.98 * len(tiles)


def test_no_real_sample_shares_a_tile_with_validation_or_test(task: ImageTask):
    validation, test = contents(task.validation), contents(task.test)
    assert not validation & test
    for replicate in range(8):
        sample = task.real_sample(replicate)
        assert set(sample[0]) == {"image"}
        assert not contents(sample) & (validation | test)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.name)
def test_equal_seeds_give_equal_tiles_with_balanced_surfaces(generator):
    tiles, labels = generator.render(12, seed=3)
    again, _ = generator.render(12, seed=3)
    other, _ = generator.render(12, seed=4)
    assert tiles.dtype == np.uint8
    assert np.array_equal(tiles, again)
    assert not np.array_equal(tiles, other)
    if not generator.false_labels:
        assert np.bincount(labels).tolist() == [2] * 6


def test_the_stated_share_of_labels_is_false():
    by_name = {generator.name: generator for generator in GENERATORS}
    careful = by_name["careful_false_labels"]
    rng = np.random.default_rng([0, zlib.crc32(careful.name.encode())])
    true = rng.permutation(np.arange(600) % len(SURFACES))
    _, labels = careful.render(600, seed=0)
    assert 0.4 < np.mean(labels != true) < 0.6


def test_mean_reciprocal_rank_counts_ties_against_the_model():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    ranks = _rank_of_label(logits, torch.tensor([0, 2, 1]))
    assert ranks.tolist() == [1, 3, 3]


def test_training_images_are_random_and_measured_ones_are_not(task: ImageTask):
    record = task.candidates[0][0]
    assert torch.equal(task.transform(record)["image"], task.transform(record)["image"])
    assert not torch.equal(
        task.train_transform(record)["image"], task.train_transform(record)["image"]
    )
    assert task.transform(record)["image"].shape == (3, SIDE, SIDE)


def trainer(n_steps: int, **options: object) -> Trainer:
    return Trainer(
        max_steps=n_steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,  # type: ignore[arg-type]
    )


def test_a_fit_logs_accuracy_and_reciprocal_rank(task: ImageTask):
    torch.manual_seed(0)
    module = task.model(0)
    data = task.datamodule(task.candidates, Mixture.equal(["careful"]), seed=0)
    fit = trainer(2, check_val_every_n_epoch=1000)
    fit.fit(module, datamodule=data)
    (metrics,) = fit.test(module, datamodule=data, verbose=False)
    assert 0 <= metrics["test_acc"] <= metrics["test_mrr"] <= 1
    weight = module.network.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_tenth_of_each_candidate_is_held_out_of_training():
    data = TaskDataModule(ImageTask(fit=FitOptions(batch_size=16)), held_out=0.1)
    kept = {c.name: contents(c) for c in data.candidates}
    for candidate in data.candidates:
        held = data._held_out[candidate.name]
        assert (len(candidate), len(held)) == (540, 60)
        shown = Examples("held", [held[i] for i in range(60)], "image")
        assert len(contents(shown) & kept[candidate.name]) < 3  # equal drawings of empty sky
    data.set_mixture(Mixture.equal(["careful", "drawn"]))
    assert sum(len(batch["label"]) for batch in data.val_dataloader()) == 120


def test_a_network_is_one_of_torchvision():
    network = ImageClassifier(3, "resnet18")
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ConfigError, match="network='resnet51'"):
        ImageClassifier(3, "resnet51")


def write_folder(folder: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def test_folders_of_your_own(tmp_path: Path):
    for i in range(3):
        write_folder(tmp_path / "candidates" / f"c{i}", 6, i)
    write_folder(tmp_path / "real", 5, 10)
    write_folder(tmp_path / "labeled", 9, 11)
    paths = {name: str(tmp_path / name) for name in ("real", "labeled")}
    data = ImageData(candidates=str(tmp_path / "candidates" / "*"), **paths)
    task = ImageTask(data, FitOptions(batch_size=4), side=16)
    assert (len(task.candidates), len(task.classes), len(task.real_sample(0))) == (3, 2, 5)
    assert len(task.validation) + len(task.test) == 18
    served = task.datamodule(task.candidates, Mixture.equal(["c0"]), seed=0)
    batch = next(iter(served.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert set(batch["label"].tolist()) <= {0, 1}


def test_images_of_any_mode_look_to_the_network_as_to_the_encoders(task: ImageTask):
    grey = Image.new("L", (40, 30), 100)
    clear = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    for image, pixel in ((grey, 100), (clear, 255), (grey.convert("P"), 100)):
        shown = task.transform({"image": image, "label": SURFACES[0]})["image"]
        expected = task.transform(
            {"image": np.full((30, 40, 3), pixel, np.uint8), "label": SURFACES[0]}
        )
        assert torch.equal(shown, expected["image"])
        assert (
            task.train_transform({"image": image, "label": SURFACES[0]})["image"].shape
            == shown.shape
        )


def test_a_third_of_the_examples_outside_the_real_data_is_for_validation(tmp_path: Path):
    for i in range(2):
        write_folder(tmp_path / "candidates" / f"c{i}", 6, i)
    write_folder(tmp_path / "labeled", 12, 11)
    shutil.copytree(tmp_path / "labeled" / "cat", tmp_path / "real")
    paths = {name: str(tmp_path / name) for name in ("real", "labeled")}
    data = ImageData(candidates=str(tmp_path / "candidates" / "*"), **paths)
    task = ImageTask(data, side=16)
    assert (len(task.validation), len(task.test)) == (4, 8)
    assert {record["label"] for record in task.test} == {"dog"}
    assert "12 of the 24 labeled examples are also among" in task.messages({})[-1]


def test_a_class_that_no_candidate_has_is_named(tmp_path: Path):
    for i in range(2):
        write_folder(tmp_path / "candidates" / f"c{i}", 6, i)
    write_folder(tmp_path / "labeled", 6, 2)
    (tmp_path / "labeled" / "dog").rename(tmp_path / "labeled" / "emu")
    paths = {"real": str(tmp_path / "labeled" / "cat"), "labeled": str(tmp_path / "labeled")}
    with pytest.raises(DataError, match=r"example 6 .*: label='emu'; the candidates have 'cat', "):
        ImageTask(ImageData(candidates=str(tmp_path / "candidates" / "*"), **paths), side=16)


def test_a_network_of_the_wrong_size_is_refused_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    options = ["--model.n_classes=4", "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"]
    assert main(["fit", "--config", "image-small-fit", *options]) == 1
    assert "give --model.n_classes 6" in capsys.readouterr().err


def test_wrong_arguments_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="side=1"):
        ImageTask(side=1)
    with pytest.raises(DataError, match="images"):
        ImageTask(ImageData(candidates=str(tmp_path / "images"), real="x", labeled="y"))


def test_the_fit_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    options = [
        "--data.task.fit.batch_size=8",
        "--trainer.fast_dev_run=1",
        "--trainer.accelerator=cpu",
    ]
    assert main(["fit", "--config", "image-small-fit", *options]) == 0


def test_a_small_experiment_from_the_packaged_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(
        [
            "experiment",
            "--config=image-small",
            "--task.fit.n_distinct=24",
            "--task.data.n_real=20",
            "--task.fit.max_steps=2",
            "--task.fit.batch_size=8",
            "--task.init_args.proxies=[mmd]",
            "--experiment.rank_by=mmd",
            "--experiment.replicates=2",
            "--experiment.single_replicates=1",
            "--experiment.arms=[chosen,all,none]",
            "--experiment.progress=false",
            f"--experiment.root={tmp_path}",
            f"--experiment.store={tmp_path / 'store.sqlite'}",
            f"--experiment.cache_dir={tmp_path / 'cache'}",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (folder,) = (tmp_path / "image_classification").iterdir()
    result = read_json(folder / "result.json")
    assert result["correlations"]["mmd"]["n"] == 10
    assert result["correlations_without_false_labels"]["mmd"]["n"] == 9
    assert any("none of which share a pixel" in message for message in result["messages"])
    # a network with random weights; six classes
    assert result["arms"]["none"]["mean"] == pytest.approx(1 / 6, abs=0.15)
    assert {"chosen_vs_none", "all_vs_none"} <= set(result["comparisons"])
