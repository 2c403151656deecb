"""The recipe web_navigation: steps, no leak, pages for LENS, LoRA on a tiny model, its configs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer

from synque_select.cli.main import main
from synque_select.data.examples import Examples
from synque_select.errors import ConfigError, DataError
from synque_select.recipes.options import FitOptions, LoRAOptions
from synque_select.recipes.web_navigation import WebData, WebTask, rank_partitions, steps_of
from synque_select.records.run_folder import read_json
from synque_select.types import Mixture
from tests.benchmark.released_layout import write_web
from tests.llm.models import save_model

RELEASED = os.environ.get("SYNQUE_BENCHMARK_DATA")
FIT, MODEL = FitOptions(batch_size=32), LoRAOptions()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_web(tmp_path_factory.mktemp("released")))


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


def released(path: str | None, **options: Any) -> WebTask:
    return WebTask(WebData(path=path, **options))


def conversation(task: str, n_steps: int = 2, **more: str) -> dict[str, object]:
    turns = [{"role": "user", "content": task}]
    for i in range(n_steps):
        turns.append({"role": "assistant", "content": f"click [{i}] {task}"})
        turns.append({"role": "user", "content": f"page {i}"})
    return {"messages": turns, **more}


def test_each_turn_of_the_agent_is_a_step():
    steps = steps_of(conversation("Buy tea", 2, page="Shop"), "line 1")
    assert [step["answer"] for step in steps] == ["click [0] Buy tea", "click [1] Buy tea"]
    assert [len(step["prompt"]) for step in steps] == [1, 3]
    assert {step["task"] for step in steps} == {"Buy tea"}
    assert {step["page"] for step in steps} == {"Shop"}


@pytest.mark.parametrize(
    "broken",
    [
        {"text": "no messages"},
        {"messages": "Buy tea"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "Buy tea"}]},
        {"messages": [{"role": "assistant", "content": "click"}]},
    ],
)
def test_a_broken_trajectory_is_named(broken: dict[str, object]):
    with pytest.raises(DataError, match="line 7: expected"):
        steps_of(broken, "line 7")


def test_the_released_layout_gives_partitions_of_one_site(data: str):
    task = released(data)
    assert task.real_sample(0).name.startswith("real, draw")
    assert [c.name for c in task.candidates] == [f"portion={i}" for i in range(4)]
    assert "maps" in task.candidates[0][0]["task"]
    assert "shop" in released(data, site="shop").candidates[0][0]["task"]
    with pytest.raises(ConfigError, match="site='shopp'"):
        released(data, site="shopp")


def test_real_samples_validation_and_test_share_no_task(data: str):
    task = released(data)
    validation, test = contents(task.validation), contents(task.test)
    assert not validation & test
    assert len(task.validation) + len(task.test) == 12
    for replicate in range(6):
        assert not contents(task.real_sample(replicate)) & (validation | test)
        assert set(task.real_sample(replicate)[0]) == {"task", "page"}


def test_a_proxy_sees_the_page_only_on_request(data: str):
    plain, paged = released(data), released(data, page_chars=20)
    assert plain.candidates[0].views[0] == plain.candidates[0][0]["task"]
    shown = json.loads(str(paged.candidates[0].views[0]))
    assert shown["page"] == "RootWebArea 'maps', "
    assert shown["task"] == plain.candidates[0].views[0]


def write_lines(path: Path, records: list[dict[str, object]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def own(folder: Path, fit: FitOptions = FIT, model: LoRAOptions = MODEL) -> WebTask:
    for i in range(3):
        made = [conversation(f"Made {i} {j}") for j in range(6)]
        write_lines(folder / "candidates" / f"{i}.jsonl", made)
    real = [{"task": f"Real {i}"} for i in range(9)]
    held = [conversation(f"Real {i}", 3) for i in range(4)]
    held += [conversation(f"Held {i}", 3) for i in range(6)]
    data = WebData(
        candidates=str(folder / "candidates" / "*.jsonl"),
        real=write_lines(folder / "real.jsonl", real),
        labeled=write_lines(folder / "held.jsonl", held),
    )
    return WebTask(data, fit, model)


def test_trajectories_of_your_own(tmp_path: Path):
    task = own(tmp_path, FitOptions(batch_size=4, epochs=2))
    assert task.n_distinct == 12
    assert task.max_steps == 6
    # what is in the real pool is measured by nothing, and a task's steps stay together
    assert len(task.validation) + len(task.test) == 18
    asked = [{step["task"] for step in part} for part in (task.validation, task.test)]
    assert not asked[0] & asked[1]
    assert not any(name.startswith("Real") for part in asked for name in part)
    assert task.messages({}) == (
        "the loss is that of held-out steps: no live environment, no success rate",
        "12 of the 30 labeled steps are also among those that real samples are drawn from: "
        "removed from validation and test",
    )


def test_a_task_of_the_real_sample_is_removed_whatever_its_page(tmp_path: Path):
    made = [conversation(f"Made {j}", page=f"shop {j}") for j in range(6)]
    held = [conversation(f"Held {i}", page=f"a long page {i}") for i in range(8)]
    held[3].pop("page")  # a reader of files gives None to those without
    real = [{"task": "Held 0", "page": "a long page 0"}, {"task": "Held 1", "page": "another"}]
    files = {
        "candidates": [write_lines(tmp_path / f"{name}.jsonl", made) for name in "ab"],
        "real": write_lines(tmp_path / "real.jsonl", [*real, {"task": "Held 2"}]),
        "labeled": write_lines(tmp_path / "held.jsonl", held),
    }
    task = WebTask(WebData(**files, page_chars=6, n_real=2))  # type: ignore[arg-type]
    asked = {step["task"] for part in (task.validation, task.test) for step in part}
    assert asked == {f"Held {i}" for i in range(3, 8)}
    assert task.messages({})[1].startswith("6 of the 16 labeled steps are also among")
    # proxies see as much of a candidate's page as of a real one
    assert {len(step["page"]) for step in task.candidates[0]} == {6}
    assert {record["page"] for record in task._data.draws.pool} == {"a long", "anothe", ""}


def test_answers_change_the_fingerprint_although_no_view_has_them(tmp_path: Path):
    first = own(tmp_path / "a").fingerprint()
    task = own(tmp_path / "b")
    task.candidates[0].dataset[0]["answer"] = "click nothing"  # type: ignore[index]
    assert task.fingerprint() != first


def test_missing_data_is_named(tmp_path: Path, data: str):
    with pytest.raises(ConfigError, match="page_chars"):
        WebData(page_chars=-1)
    (Path(data) / "web_agent" / "original" / "real" / "maps.json").rename(tmp_path / "away")
    try:
        with pytest.raises(DataError, match=r"no labeled real data; expected .*maps\.json"):
            released(data)
    finally:
        (tmp_path / "away").rename(Path(data) / "web_agent" / "original" / "real" / "maps.json")


def test_partitions_are_ranked_by_site(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    rankings = rank_partitions(data, proxies=["ngram", "baseline_length"], progress=False)
    assert set(rankings) == {"maps", "shop"}
    assert all(len(ranking.candidates) == 4 for ranking in rankings.values())


@pytest.mark.skipif(RELEASED is None, reason="SYNQUE_BENCHMARK_DATA is not set")
def test_every_site_of_the_released_data():
    rankings = rank_partitions(RELEASED, proxies=["ngram"], progress=False)
    for site in rankings:
        task = released(RELEASED, site=site, page_chars=300)
        assert len(task.test) >= 10
        assert "RootWebArea" in str(task.candidates[0].views[0])
        known = contents(task.validation) | contents(task.test)
        assert not contents(task.real_sample(1)) & known


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return str(folder)


def options_of(model: str) -> list[str]:
    return [
        f"--task.model.model_id={model}",
        "--task.fit.n_distinct=12",
        "--task.fit.max_steps=2",
        "--task.init_args.proxies=[ngram,baseline_length]",
        "--experiment.rank_by=ngram",
        "--experiment.replicates=2",
        "--experiment.arms=[chosen,all]",
        "--experiment.progress=false",
    ]


def test_a_small_experiment_from_the_packaged_config(
    data: str,
    tiny_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    status = main(
        [
            "experiment",
            "--config=web-small",
            f"--task.data.path={data}",
            *options_of(tiny_model),
            f"--experiment.root={tmp_path}",
            f"--experiment.store={tmp_path / 'store.sqlite'}",
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (folder,) = (tmp_path / "web_navigation").iterdir()
    result = read_json(folder / "result.json")
    assert result["metric"] == {"name": "test_loss", "mode": "min"}
    assert any("has no trajectories" in message for message in result["messages"])
    # four candidates: one fewer than a correlation needs
    assert any("4 distinct units" in message for message in result["messages"])


def test_training_on_steps_lowers_their_loss(tmp_path: Path, tiny_model: str):
    fit = FitOptions(batch_size=6, epochs=20, learning_rate=0.02)
    model = LoRAOptions(model_id=tiny_model, lora_rank=64, lora_alpha=128, dtype="float32")
    task = own(tmp_path, fit, model)
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
    module = task.model(0)
    data = task.datamodule(task.candidates, Mixture.equal(["0"]), seed=0)
    (before,) = trainer.test(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data)
    (after,) = trainer.test(module, datamodule=data, verbose=False)
    assert after["test_loss"] < 0.7 * before["test_loss"]


def test_the_fit_config_runs(
    data: str, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    options = [
        f"--data.task.data.path={data}",
        f"--data.task.model.model_id={tiny_model}",
        f"--model.model_id={tiny_model}",
        "--trainer.fast_dev_run=1",
        "--trainer.accelerator=cpu",
    ]
    assert main(["fit", "--config", "web-small-fit", *options]) == 0


def test_the_lens_config_reads_pages():
    from synque_select.lens.config import LensConfig

    assert LensConfig.from_file("web-lens").prompts == "web_page"
