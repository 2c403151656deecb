"""A package with a proxy, an encoder, an engine and a reader: installed by pip, then used.

Each use is a process of its own, as the package must be on its path from the start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SOURCE = Path(__file__).parent / "plugin"
WORDS = {"near": "apple fig cherry grape", "half": "apple fig night owl", "far": "moon owl sun sky"}

TRAINING = """
import pytorch_lightning as pl
import torch


def collate(records):
    inputs = torch.tensor([[float(r["text"].count(c)) for c in "abcdefgh"] for r in records])
    return inputs, torch.tensor([r["label"] for r in records])


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""

# the same parts under another name: nothing of it is registered
LOOSE = """
from synque_demo_plugin import *
from synque_demo_plugin import Letters, LengthLLM, NoteReader, WordOverlap


class LooseOverlap(WordOverlap):
    key = "loose_overlap"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package, without any network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return folder / "site"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "candidates").mkdir()
    for name, text in {**WORDS, "real": WORDS["near"]}.items():
        words = text.split()
        lines = [f"{i % 2} | {words[i % 4]} {words[i // 4 % 4]} {name} {i}" for i in range(24)]
        folder = tmp_path if name == "real" else tmp_path / "candidates"
        (folder / f"{name}.note").write_text("\n".join(lines))
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "loose.py").write_text(LOOSE)
    return tmp_path


def run(site: Path, folder: Path, *command: str) -> str:
    source = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{source}",
        "SYNQUE_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def cli(site: Path, folder: Path, *arguments: str) -> str:
    return run(site, folder, str(Path(sys.executable).parent / "synque-select"), *arguments)


def ranked(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "ranking.json").read_text())
    return state


PYTHON = """
from synque_select import rank, load_candidates
from synque_select.encoders import get_encoder
from synque_select.llm import get_llm

data = {name: f"candidates/{name}.note" for name in ("near", "half", "far")}
for prefix in ("", "synque_demo_plugin."):
    spec = lambda key, name: f"{prefix}{name}" if prefix else key
    lens = {"zero_shot": True, "progress": False, "scorer": {
        "engine": spec("length", "LengthLLM"), "scale": 50.0}}
    ranking = rank(
        data,
        f"{spec('note', 'NoteReader')}:real.note",
        view="text",
        proxies=[
            {"key": spec("word_overlap", "WordOverlap"), "min_length": 2},
            "mmd",
            {"key": "lens", "config": lens},
        ],
        encoder=spec("letters", "Letters") + ":n=20",
        top_k=1,
        rank_by="word_overlap",
        progress=False,
    )
    assert ranking.top().names == ("near",), ranking
    assert ranking.encoder.id == "letters:n=20" and ranking.encoder.dim == 20
    assert dict(ranking.proxies["word_overlap"].options) == {"min_length": 2}
    assert get_encoder(ranking.encoder.id, "text").key == get_encoder(
        spec("letters", "Letters") + ":n=20", "text").key
assert get_llm({"engine": "length"}).options() == {"scale": 1000.0}
assert [c.name for c in load_candidates("candidates")] == ["far", "half", "near"]
print("all used")
"""


def test_from_python_by_key_and_by_dotted_name(installed: Path, project: Path):
    assert "all used" in run(installed, project, sys.executable, "-c", PYTHON)


def test_from_the_command_line_by_key(installed: Path, project: Path):
    lens = {"scorer": {"engine": "length", "scale": 50.0}, "zero_shot": True}
    (project / "lens.yaml").write_text(yaml.safe_dump(lens))
    cli(
        installed, project, "rank", "--candidates", "candidates", "--real", "real.note", "--view",
        "text",
        "--proxies", "word_overlap:min_length=2,mmd,lens", "--lens", "lens.yaml", "--encoder",
        "letters:n=20", "--rank-by", "word_overlap", "--top-k", "1", "--json", "ranking.json",
    )  # fmt: skip
    state = ranked(project)
    assert [chosen["name"] for chosen in state["selected"]] == ["near"]
    assert state["proxies"]["word_overlap"]["options"] == {"min_length": 2}
    assert '"engine": "length"' in state["proxies"]["lens"]["options"]["config"]


def test_from_the_command_line_by_dotted_names_of_the_working_folder(
    installed: Path, project: Path
):
    cli(
        installed, project, "rank", "--candidates", "loose.NoteReader:candidates/*.note", "--real",
        "loose:NoteReader:real.note", "--view", "text", "--proxies",
        "loose.LooseOverlap:min_length=2", "loose:WordOverlap,mmd", "--encoder",
        "loose.Letters:n=20", "--rank-by", "loose_overlap", "--top-k", "1", "--json",
        "ranking.json",
    )  # fmt: skip
    state = ranked(project)
    assert [chosen["name"] for chosen in state["selected"]] == ["near"]
    assert set(state["proxies"]) == {"loose_overlap", "word_overlap", "mmd"}
    assert state["encoder"]["id"] == "letters:n=20"


@pytest.mark.parametrize("prefix", ["", "loose."])
def test_from_a_config_of_fit(installed: Path, project: Path, prefix: str):
    def name(key: str, cls: str) -> str:
        return f"{prefix}{cls}" if prefix else key

    lens = {"zero_shot": True, "scorer": {"engine": name("length", "LengthLLM"), "scale": 50.0}}
    config = {
        "seed_everything": 0,
        "model": {"class_path": "training.Model"},
        "data": {
            "class_path": "synque_select.SynqueDataModule",
            "init_args": {
                "candidates": f"{prefix}NoteReader:candidates/*.note" if prefix else "candidates",
                "real": f"{name('note', 'NoteReader')}:real.note",
                "view": "text",
                "batch_size": 8,
                "collate_fn": "training.collate",
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
                        "proxies": [
                            {"key": name("word_overlap", "WordOverlap"), "min_length": 2},
                            "mmd",
                            "lens",
                        ],
                        "rank_by": "word_overlap",
                        "top_k": 1,
                        "encoder": f"{name('letters', 'Letters')}:n=20",
                        "lens": lens,
                        "run_dir": "run",
                    },
                }
            ],
        },
    }
    (project / "fit.yaml").write_text(yaml.safe_dump(config))
    cli(installed, project, "fit", "--config", "fit.yaml")
    state = ranked(project / "run")
    assert [chosen["name"] for chosen in state["selected"]] == ["near"]
    assert state["proxies"]["word_overlap"]["options"] == {"min_length": 2}
    assert {"mmd", "lens"} <= set(state["proxies"])
    assert state["encoder"]["id"] == "letters:n=20"


CACHED = """
import sys
from synque_select.data import load_candidates, load_real
from synque_select.llm import get_llm
from synque_select.selection.scorer import Scorer

real = load_real("real.note", view="text")
pool = load_candidates("candidates", view="text")
scorer = Scorer(["word_overlap"], "word_overlap", 1, cache_dir="cache")
print(scorer.cached_ranking(pool, real)["far"].scores["word_overlap"].value)
print(get_llm({"engine": "length"}).key)
"""


def test_an_edited_helper_is_not_served_from_the_cache(
    installed: Path, project: Path, tmp_path: Path
):
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    first = run(site, project, sys.executable, "-c", CACHED)
    assert first == run(site, project, sys.executable, "-c", CACHED)
    assert len(list((project / "cache" / "rankings").glob("*.json"))) == 1
    helper = site / "synque_demo_plugin" / "words.py"
    helper.write_text(helper.read_text().replace("view.lower().split()", "view.upper()"))
    second = run(site, project, sys.executable, "-c", CACHED)
    (score, key), (other_score, other_key) = first.splitlines(), second.splitlines()
    assert other_score != score
    assert other_key != key  # by which an engine's answers are kept


def test_doctor_lists_it(installed: Path, project: Path):
    out = cli(installed, project, "doctor")
    for what in ("proxy word_overlap", "encoder letters", "engine length", "reader note"):
        assert f"ok  {what}" in out
    assert "from the package synque-demo-plugin 1.0" in out
