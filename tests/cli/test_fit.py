"""`synque-select fit` and LightningCLI in a user's directory with a package and a config."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from synque_select.cli import fit
from synque_select.errors import ConfigError
from synque_select.llm.openai import OpenAILLM
from synque_select.records.store import RunStore
from tests.warm_processes import run_warm

PARTS = """
import json

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from synque_select import BaseEncoder


def features(text):
    return torch.tensor([float(text.count(c)) for c in "abcdefghijklmnopqrstuvwxyz"])


def view(record):
    return record["text"].split(":")[1]


def label(record):
    return record["label"]


def length(record):
    return len(record["text"])


def transform(record):
    return {**record, "text": record["text"].lower()}


def collate(records):
    inputs = torch.stack([features(r["text"]) for r in records])
    return [r["id"] for r in records], inputs, torch.tensor([r["label"] for r in records])


class Letters(BaseEncoder):
    id, modality = "letters", "text"

    def encode(self, views):
        with open("encoded.txt", "a") as file:
            print(len(views), file=file)
        return torch.stack([features(view) for view in views])


class Data(pl.LightningDataModule):
    num_classes = 2

    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = self.hparams.batch_size

    def val_dataloader(self):
        records = [{"id": f"v{i}", "text": "apple fig", "label": i % 2} for i in range(8)]
        assert set(self.hparams) == {"batch_size"}  # and nothing of what stands around it
        return DataLoader(records, batch_size=self.batch_size, collate_fn=collate)


class Generator(pl.LightningDataModule):
    def __init__(self, name: str):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        path = f"candidates/{self.hparams.name}.json"
        return DataLoader(json.loads(open(path).read()), batch_size=5)


class Model(pl.LightningModule):
    def __init__(self, lr: float = 0.1, num_classes: int = 3, batch_size: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(26, num_classes)
        print("classes", num_classes, "batch size", batch_size)

    def training_step(self, batch, _):
        with open("seen.txt", "a") as file:
            print(*batch[0], sep="\\n", file=file)
        return torch.nn.functional.cross_entropy(self.layer(batch[1]), batch[2])

    def validation_step(self, batch, _):
        right = (self.layer(batch[1]).argmax(1) == batch[2]).float().mean()
        self.log("val_acc", right, batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])
"""

LINKED = """
from pytorch_lightning.cli import LightningCLI
from synque_select import SynqueDataModule
from their_package.parts import Model


class CLI(LightningCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.batch_size", "model.batch_size")
        parser.link_arguments("data", "model.num_classes", lambda d: d.num_classes, "instantiate")


CLI(Model, SynqueDataModule)
"""

WORDS = {"near": "apple fig cherry grape", "half": "apple fig night owl", "far": "moon owl sun sky"}


def config(**selection: Any) -> dict[str, Any]:
    return {
        "seed_everything": 0,
        "model": {"class_path": "their_package.parts.Model", "init_args": {"lr": 0.5}},
        "data": {
            "class_path": "synque_select.SynqueDataModule",
            "init_args": {
                "candidates": "candidates/*.json",
                "real": "real.json",
                "view": "their_package.parts.view",
                "batch_size": 5,
                "collate_fn": "their_package.parts.collate",
                "wraps": {"class_path": "their_package.parts.Data", "init_args": {}},
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "callbacks": [
                {
                    "class_path": "synque_select.SelectionCallback",
                    "init_args": {
                        "proxies": ["mmd"],
                        "top_k": 1,
                        "encoder": {"class_path": "their_package.parts.Letters"},
                        **selection,
                    },
                },
                {
                    "class_path": "synque_select.ProxyCorrelationCallback",
                    "init_args": {"monitor": "val_acc", "store": "runs/records.sqlite"},
                },
            ],
        },
    }


def with_data(**arguments: Any) -> dict[str, Any]:
    given = config()
    given["data"]["init_args"].update(arguments)
    return given


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "parts.py").write_text(PARTS)
    (tmp_path / "candidates").mkdir()
    for name, words in WORDS.items():
        (tmp_path / "candidates" / f"{name}.json").write_text(json.dumps(records(name, words)))
    real = [{"text": record["text"]} for record in records("real", WORDS["near"])]
    (tmp_path / "real.json").write_text(json.dumps(real))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config()))
    return tmp_path


def records(name: str, words: str) -> list[dict[str, Any]]:
    vocabulary = words.split()
    texts = [f"{vocabulary[i % 4]} {vocabulary[i // 4 % 4]} {i}{name[0]}" for i in range(30)]
    return [
        {"id": f"{name}-{i}", "text": f"headline:{t}", "label": i % 2} for i, t in enumerate(texts)
    ]


SYNQUE_SELECT = str(Path(sys.executable).parent / "synque-select")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "SYNQUE_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_warm([script, *arguments], cwd=folder, env=environment(folder))


def synque_select(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, SYNQUE_SELECT, *arguments)


def seen(folder: Path) -> list[str]:
    return sorted((folder / "seen.txt").read_text().split())


NEAR = sorted(f"near-{i}" for i in range(30))


def test_a_users_own_package(project: Path):
    done = synque_select(project, "fit", "--config", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert seen(project) == NEAR
    assert "LeafSpec" not in done.stdout + done.stderr
    assert "1 distinct mixture, runs of kind mixture, val_acc (max)" in done.stdout + done.stderr


def test_print_config_is_a_config_and_a_second_run_encodes_nothing(project: Path):
    done = synque_select(project, "fit", "--config", "mine.yaml", "--print_config")
    assert done.returncode == 0, done.stderr
    callback = yaml.safe_load(done.stdout)["trainer"]["callbacks"][0]
    assert callback["class_path"] == "synque_select.SelectionCallback"
    assert callback["init_args"]["top_k"] == 1
    assert not (project / "encoded.txt").exists()
    (project / "printed.yaml").write_text(done.stdout)
    for n_runs in (1, 2):
        done = synque_select(project, "fit", "-c", "printed.yaml")
        assert done.returncode == 0, done.stderr
        assert seen(project) == sorted(n_runs * NEAR)
        assert sum(map(int, (project / "encoded.txt").read_text().split())) == 4 * 30


def test_tokens_and_a_curriculum_from_yaml(project: Path):
    for file in (project / "candidates").iterdir():
        rows = json.loads(file.read_text())
        for i, row in enumerate(rows):
            row["level"] = (7 * i) % 30
        file.write_text(json.dumps(rows))
    given = {
        "weigh_by": "tokens",
        "length": "their_package.parts.length",
        "max_length": 20,
        "curriculum": {"by": "level", "order": "descending"},
    }
    (project / "mine.yaml").write_text(yaml.safe_dump(with_data(**given)))
    done = synque_select(project, "fit", "--config", "mine.yaml")
    assert done.returncode == 0, done.stderr
    levels = [
        (7 * int(one.split("-")[1])) % 30 for one in (project / "seen.txt").read_text().split()
    ]
    assert levels == sorted(levels, reverse=True)
    assert len(levels) == 30
    kept = yaml.safe_load((project / "config.yaml").read_text())["data"]["init_args"]
    assert kept["weigh_by"] == "tokens"
    assert kept["length"] == "their_package.parts.length"
    assert kept["curriculum"]["by"] == "level"
    (record,) = RunStore(project / "runs" / "records.sqlite").read()
    assert record.key["sampling"] == {
        "weigh_by": "tokens",
        "max_length": 20,
        "curriculum": "level, descending",
    }


@pytest.mark.parametrize(
    "given",
    [
        {"view": "text", "label": "label"},
        {"view": "their_package.parts.view", "label": "their_package.parts.label"},
    ],
)
def test_a_printed_and_a_saved_config_keep_the_view(project: Path, given: dict[str, str]):
    first = with_data(**given, train_transform="their_package.parts.transform")
    (project / "mine.yaml").write_text(yaml.safe_dump(first))
    done = synque_select(project, "fit", "--config", "mine.yaml", "--print_config")
    (project / "printed.yaml").write_text(done.stdout)
    rankings = []
    for path in ("printed.yaml", "config.yaml"):  # the second is what the first fit has saved
        kept = yaml.safe_load((project / path).read_text())["data"]["init_args"]
        for name in ("view", "label", "train_transform", "collate_fn"):
            assert kept[name] == first["data"]["init_args"][name]
        assert "JsonargparseWarning" not in done.stderr
        done = synque_select(project, "fit", "--config", path)
        assert done.returncode == 0, done.stderr
        (ranking,) = project.glob("**/ranking.json")
        rankings.append(json.loads(ranking.read_text())["candidates"])
        ranking.unlink()
    assert "JsonargparseWarning" not in done.stderr
    assert rankings[0] == rankings[1]


def test_a_position_in_a_config_or_an_option_stays_a_number(project: Path):
    (project / "mine.yaml").write_text(yaml.safe_dump(with_data(label=1)))
    command = [SYNQUE_SELECT, "fit", "--config", "mine.yaml", "--data.view=0", "--print_config"]
    # imports must not print anything either
    done = subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    kept = yaml.safe_load(done.stdout)["data"]["init_args"]
    assert repr((kept["view"], kept["label"])) == "(0, 1)"


def generators(**init_args: Any) -> dict[str, Any]:
    modules = {
        name: {"class_path": "their_package.parts.Generator", "init_args": {"name": name}}
        for name in ("near", "half")
    }
    modules["near"]["init_args"].update(init_args)
    return with_data(candidates={**modules, "far": "candidates/far.json"})


def test_candidates_that_are_datamodules_in_a_config(project: Path):
    (project / "mine.yaml").write_text(yaml.safe_dump(generators()))
    for path in ("mine.yaml", "config.yaml"):  # the second is what the first fit has saved
        done = synque_select(project, "fit", "--config", path)
        assert done.returncode == 0, done.stderr
        assert seen(project) == NEAR
        (project / "seen.txt").unlink()


def test_a_datamodule_in_a_config_that_cannot_be_made(project: Path):
    (project / "mine.yaml").write_text(yaml.safe_dump(generators(size=3)))
    done = synque_select(project, "fit", "--config", "mine.yaml")
    assert done.returncode == 1
    assert "the candidate 'near': no object could be made of" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "encoded.txt").exists()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"topk": 1}, "has no option 'topk': did you mean 'top_k'?"),
        ({"proxies": ["mmdd"]}, "unknown proxy 'mmdd': did you mean 'mmd'?"),
    ],
)
def test_an_error_in_the_config_comes_before_anything_runs(
    project: Path, selection: dict[str, Any], message: str
):
    (project / "mine.yaml").write_text(yaml.safe_dump(config(**selection)))
    done = synque_select(project, "fit", "--config", "mine.yaml")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "encoded.txt").exists()
    assert not (project / "seen.txt").exists()


PLAIN = """
from pytorch_lightning.cli import LightningCLI

LightningCLI()
"""


def test_a_wrapped_datamodule_with_the_hyper_parameters_of_another_is_refused(project: Path):
    (project / "train.py").write_text(PLAIN)
    done = run(project, "train.py", "fit", "--config", "mine.yaml")
    assert done.returncode != 0
    assert "LightningCLI(datamodule_class=SynqueDataModule, subclass_mode_data=True)" in done.stderr
    assert not (project / "encoded.txt").exists()


def test_linked_arguments_of_a_users_own_command_line(project: Path):
    given = config()
    for part in ("model", "data"):
        given[part] = given[part]["init_args"]
    (project / "linked.yaml").write_text(yaml.safe_dump(given))
    (project / "train.py").write_text(LINKED)
    done = run(project, "train.py", "fit", "--config", "linked.yaml")
    assert done.returncode == 0, done.stderr
    assert "classes 2 batch size 5" in done.stdout
    assert seen(project) == NEAR


def test_the_packaged_digits(tmp_path: Path):
    small = ["--data.task.fit.n_distinct=40", "--data.task.fit.batch_size=8"]
    small += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=2"]
    done = synque_select(tmp_path, "fit", "--config", "digits-fit", *small)
    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.glob("runs/digits-fit/version_0/metrics.csv")
    assert "val_acc" in metrics.read_text()
    (ranking,) = tmp_path.glob("runs/**/ranking.json")
    assert len(json.loads(ranking.read_text())["selected"]) == 3


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_the_saved_config_has_no_key_of_a_server(tmp_path: Path, package: str):
    cli_module = importlib.import_module(f"{package}.cli")
    config = {
        "base_url": "http://host/s3cret/v1?k=s3cret",
        "api_key": "s3cret-9",
        "tracking_uri": "http://host/mlflow",
    }
    parser = SimpleNamespace(dump=lambda config, skip_none: yaml.safe_dump(config))
    strategy = SimpleNamespace(broadcast=lambda value: value)
    logs = str(tmp_path / "logs")
    trainer = SimpleNamespace(log_dir=logs, is_global_zero=True, strategy=strategy)
    saver = fit._config_saver(cli_module.LightningCLI)
    assert issubclass(saver, cli_module.SaveConfigCallback)
    saver(parser, config, save_to_log_dir=False).setup(trainer, None, "fit")
    saved = yaml.safe_load((tmp_path / "logs" / "config.yaml").read_text())
    assert saved == {
        "base_url": "http://host/…/v1?…",
        "api_key": "…",
        "tracking_uri": "http://host/mlflow",
    }
    with pytest.raises(ConfigError, match="contains '…', which replaces"):  # it is not sent
        OpenAILLM("m", base_url=saved["base_url"])
