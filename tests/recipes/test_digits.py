"""The demo recipe: no leak, no label of a real sample, a real fit, its configs, a small run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from synque_select.cli.main import main
from synque_select.data.examples import Examples
from synque_select.errors import ConfigError
from synque_select.experiment import TaskDataModule
from synque_select.recipes.digits import DigitClassifier, DigitsTask, real_digits
from synque_select.recipes.options import FitOptions
from synque_select.records.run_folder import read_json
from synque_select.types import Mixture


@pytest.fixture(scope="module")
def task() -> DigitsTask:
    return DigitsTask(FitOptions(n_distinct=40, max_steps=2, batch_size=8))


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


def test_no_real_sample_shares_an_image_with_validation_or_test(task: DigitsTask):
    validation, test = contents(task.validation), contents(task.test)
    assert not validation & test
    for replicate in range(12):
        drawn = contents(task.real_sample(replicate))
        assert not drawn & (validation | test)


def test_five_consecutive_real_samples_are_disjoint(task: DigitsTask):
    samples = [contents(task.real_sample(replicate)) for replicate in range(5)]
    assert all(len(sample) == 100 for sample in samples)
    assert len(set.union(*samples)) == 500
    assert contents(task.real_sample(0)) == samples[0]
    assert contents(task.real_sample(5)) != samples[0]


def test_a_real_sample_has_no_labels(task: DigitsTask):
    assert set(task.real_sample(0)[0]) == {"image"}


def test_all_real_digits_are_used_once(task: DigitsTask):
    assert len(real_digits()) == 1797
    assert len(task.validation) + len(task.test) == 1297
    counts = np.bincount([task.test[i]["label"] for i in range(len(task.test))])
    assert counts.min() > 60


def test_every_candidate_has_the_size_that_arms_train_on(task: DigitsTask):
    assert len(task.candidates) >= 10
    assert {len(candidate) for candidate in task.candidates} == {40}
    assert set(task.false_labels.values()) <= {candidate.name for candidate in task.candidates}


def test_equal_seeds_give_equal_initial_weights(task: DigitsTask):
    def weights() -> torch.Tensor:
        torch.manual_seed(3)
        return task.model(3).state_dict()["network.conv1.weight"]

    assert torch.equal(weights(), weights())


def test_labels_are_in_the_fingerprint():
    first, second = (
        DigitsTask(FitOptions(n_distinct=40), seed=seed).fingerprint() for seed in (0, 1)
    )
    assert first != second
    assert first["model"] == second["model"]


@pytest.mark.parametrize("name", ["max_steps", "batch_size"])
def test_a_budget_that_batch_normalization_cannot_train_with_is_refused(name: str):
    with pytest.raises(ConfigError, match=f"{name}=1"):
        DigitsTask(FitOptions(**{name: 1}))


def fitted(data: Any, n_steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    trainer = Trainer(
        max_steps=n_steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_test_batches=3,
        check_val_every_n_epoch=1000,
    )
    model = DigitClassifier()
    trainer.fit(model, datamodule=data)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return metrics


def test_the_datamodule_fits_without_a_callback():
    data = TaskDataModule(DigitsTask(FitOptions(n_distinct=40, batch_size=32)))
    metrics = fitted(data, 3)
    assert 0 <= metrics["test_acc"] <= 1
    assert data.mixture is not None
    assert len(data.mixture.names) == len(data.candidates)


@pytest.mark.slow
def test_the_nearest_generator_trains_a_good_model_and_the_furthest_a_bad_one(tmp_path: Path):
    task = DigitsTask()
    accuracy = {}
    for name in ("pen", "tiny"):
        data = task.datamodule(task.candidates, Mixture.equal([name]), seed=0)
        accuracy[name] = fitted(data, task.max_steps)["test_acc"]
    assert accuracy["pen"] > 0.65
    assert accuracy["tiny"] < 0.3


def test_the_fit_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--data.task.fit.n_distinct=20",
        "--trainer.fast_dev_run=1",
        "--trainer.accelerator=cpu",
    ]
    assert main(["fit", "--config", "digits-fit", *options]) == 0


def test_the_surrogate_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--data.task.fit.n_distinct=100",
        "--data.val.init_args.size=24",
        "--data.val.init_args.held_out=0.3",
        "--trainer.fast_dev_run=1",
        "--trainer.accelerator=cpu",
    ]
    assert main(["fit", "--config", "digits-surrogate", *options]) == 0


def test_a_small_experiment_from_the_packaged_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    few = Examples("few", [real_digits()[i] for i in range(600, 640)], "image", "label")
    monkeypatch.setattr(DigitsTask, "validation", few)
    monkeypatch.setattr(DigitsTask, "test", few)
    monkeypatch.setattr(DigitsTask, "real_sample", lambda self, r: _first_digits(self, r))
    status = main(
        [
            "experiment",
            "--config=digits",
            "--task.fit.n_distinct=24",
            "--task.fit.max_steps=2",
            "--task.fit.batch_size=8",
            "--task.init_args.proxies=[mmd]",
            "--experiment.rank_by=mmd",
            "--experiment.replicates=2",
            "--experiment.single_replicates=1",
            "--experiment.arms=[chosen,all]",
            "--experiment.progress=false",
            f"--experiment.root={tmp_path}",
            f"--experiment.store={tmp_path / 'store.sqlite'}",
            f"--experiment.cache_dir={tmp_path / 'cache'}",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (folder,) = (tmp_path / "digits").iterdir()
    assert str(folder / "report.html") in printed.out
    result = read_json(folder / "result.json")
    assert result["correlations"]["mmd"]["n"] == len(result["candidates"]) == 12
    assert result["correlations_without_false_labels"]["mmd"]["n"] == 11


def _first_digits(task: DigitsTask, replicate: int) -> Any:
    from synque_select.data.candidate import RealSample

    images = [{"image": real_digits()[i]["image"]} for i in range(replicate * 8, replicate * 8 + 8)]
    return RealSample("few", images, view="image")
