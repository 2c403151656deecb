"""Configs of the paper's size run, with a tiny model instead of the named one and reduced sizes.

Everything else in them is as packaged: sources, proxies, callbacks, hyper-parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

pytest.importorskip("peft")
pytest.importorskip("sqlglot")
pytest.importorskip("torchvision")

from synque_select.cli.main import main
from synque_select.cli.options import packaged_config
from tests.benchmark.released_layout import write_sentiment, write_text2sql
from tests.llm.models import save_model

CUT = (
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.log_every_n_steps=1",
)
FEW = (
    "--experiment.replicates=2",
    "--experiment.single_replicates=1",
    "--experiment.n_random=1",
    "--experiment.arms=[chosen,all]",
    "--experiment.progress=false",
)


def save_tiny(folder: Path, model: Any, config: Any, **options: Any) -> None:
    """Write a model of two layers with random weights beside the tokenizer of a folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sizes = config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(sizes).save_pretrained(folder)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small Qwen2."""
    folder = tmp_path_factory.mktemp("qwen")
    save_model(folder)
    save_tiny(
        folder,
        transformers.Qwen2ForCausalLM,
        transformers.Qwen2Config,
        num_key_value_heads=2,
        max_position_embeddings=16384,
    )
    return str(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; all that a run writes stays in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SYNQUE_BENCHMARK_DATA", str(tmp_path / "released"))
    return tmp_path


def fit(config: str, *options: str) -> None:
    assert main(["fit", "--config", config, *CUT, *options]) == 0


def experiment(config: str, task: Sequence[str], *options: str) -> dict[str, Any]:
    """Run one in two replicates and return its result."""
    of_task = [f"--task.{option}" for option in task]
    assert main(["experiment", "--config", config, *FEW, *of_task, *options]) == 0
    (path,) = Path("runs").glob("*/*/result.json")
    result: dict[str, Any] = json.loads(path.read_text())
    assert result["arms"]["chosen"]["n"] == 2
    return result


def test_text2sql_one_fit(qwen: str, here: Path):
    write_text2sql(here / "released")
    fit(
        "text2sql-paper-fit",
        *(f"--model.model_id={qwen}", f"--data.task.model.model_id={qwen}"),
        *("--data.task.fit.batch_size=4", "--data.task.data.n_real=6", "--trainer.max_steps=2"),
    )
    assert (here / "runs" / "text2sql-paper-adapters" / "adapter_model.safetensors").is_file()


def test_text2sql_experiment(qwen: str, here: Path):
    write_text2sql(here / "released")
    result = experiment(
        "text2sql-paper",
        (
            *(f"model.model_id={qwen}", "data.n_real=6", "fit.precision=32-true"),
            *("fit.n_distinct=8", "fit.max_steps=2", "fit.batch_size=4"),
            *("n_generated=2", "max_new_tokens=4"),
        ),
    )
    assert any("rows are made up" in message for message in result["messages"])


def write_trajectories(folder: Path) -> None:
    """Files as the head of web-paper.yaml describes them."""

    def lines(name: str, tasks: Sequence[str]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        turns = (("user", "{}"), ("assistant", "click [1]"), ("user", "page"), ("assistant", "{}"))
        rows = [
            {
                "messages": [{"role": role, "content": text.format(task)} for role, text in turns],
                "task": task,
                "page": "link 'Home'",
            }
            for task in tasks
        ]
        path.write_text("\n".join(map(json.dumps, rows)))

    for i in range(3):
        lines(f"candidates/c{i}.jsonl", [f"Buy {i} {j}" for j in range(8)])
    lines("held_out.jsonl", [f"Find {i}" for i in range(6)])
    real = [{"task": f"Sell {i}", "page": "link 'Shop'"} for i in range(9)]
    (folder / "real_tasks.jsonl").write_text("\n".join(map(json.dumps, real)))


@pytest.fixture
def lens(qwen: str, here: Path) -> str:
    """Proxies as the web configs name them, with the tiny model as judge."""
    config = packaged_config("web-lens").read_text().replace("Qwen/Qwen2.5-7B-Instruct", qwen)
    path = here / "web-lens.yaml"
    path.write_text(config.replace("n_points: 10", "n_points: 2"))
    return f"[{{key: lens, config: {path}}}]"


def test_web_one_fit(qwen: str, lens: str, here: Path):
    write_trajectories(here / "trajectories")
    selection = "synque_select.callbacks.SelectionCallback"
    saver = "synque_select.recipes._causal_lm.AdapterSaver"
    fit(
        "web-paper-fit",
        *(f"--model.model_id={qwen}", f"--data.task.model.model_id={qwen}"),
        *("--data.task.fit.batch_size=4", "--trainer.max_steps=2"),
        f"--trainer.callbacks={selection}",
        f"--trainer.callbacks.init_args.proxies={lens}",
        *("--trainer.callbacks.init_args.rank_by=lens", "--trainer.callbacks.init_args.top_k=2"),
        f"--trainer.callbacks+={saver}",
        "--trainer.callbacks.init_args.folder=adapters/web",
    )
    assert (here / "adapters" / "web" / "adapter_model.safetensors").is_file()


def test_web_experiment(qwen: str, lens: str, here: Path):
    write_trajectories(here / "trajectories")
    result = experiment(
        "web-paper",
        (
            *(f"model.model_id={qwen}", f"proxies={lens}"),
            *("fit.batch_size=4", "fit.n_distinct=8", "fit.max_steps=2"),
        ),
    )
    assert result["metric"]["name"] == "test_loss"


@pytest.fixture
def images(here: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("candidates/c0", "candidates/c1", "candidates/c2", "real", "labeled"):
        for name in ("cat", "dog"):
            folder = here / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return here


IMAGES = "efficientnet-lite0/96px"


def test_images_one_fit(images: Path):
    selection = "synque_select.callbacks.SelectionCallback"
    stopping = "pytorch_lightning.callbacks.EarlyStopping"
    fit(
        "image-paper-fit",
        *("--model.n_classes=2", "--data.task.fit.batch_size=4", "--data.task.side=32"),
        *("--data.task.num_workers=0", "--trainer.max_epochs=1"),
        f"--trainer.callbacks={selection}",
        f"--trainer.callbacks.init_args.encoder={IMAGES}",
        "--trainer.callbacks.init_args.proxies=[pad,mmd,coverage,mdm]",
        "--trainer.callbacks.init_args.top_k=2",
        f"--trainer.callbacks+={stopping}",
        "--trainer.callbacks.init_args.monitor=val_loss",
    )
    (folder,) = (images / "runs" / "image-paper-fit").iterdir()
    assert "val_loss" in (folder / "metrics.csv").read_text()


@pytest.mark.slow
def test_images_experiment(images: Path):
    result = experiment(
        "image-paper",
        (
            *(f"encoder={IMAGES}", "side=32", "num_workers=0"),
            *("fit.batch_size=4", "fit.max_steps=2", "fit.precision=32-true"),
        ),
        "--experiment.top_k=2",
    )
    assert result["metric"]["name"] == "test_acc"


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small RoBERTa."""
    folder = tmp_path_factory.mktemp("roberta")
    save_model(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    save_tiny(folder, transformers.RobertaModel, transformers.RobertaConfig)
    return str(folder)


def test_sentiment_one_fit(roberta: str, here: Path):
    write_sentiment(here / "released")
    fit(
        "sentiment-paper-fit",
        *(f"--model.model_id={roberta}", "--data.task.fit.batch_size=8"),
        "--trainer.max_epochs=1",
    )
    (folder,) = (here / "runs" / "sentiment-paper-fit").iterdir()
    assert (folder / "metrics.csv").is_file()


def test_sentiment_experiment(roberta: str, here: Path):
    write_sentiment(here / "released")
    result = experiment(
        "sentiment-paper",
        (
            *(f"fine_tune={roberta}", "fit.max_steps=2"),
            *("fit.batch_size=8", "fit.precision=32-true"),
        ),
    )
    assert result["metric"]["name"] == "test_f1"
