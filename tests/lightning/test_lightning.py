"""`synque_select.lightning`: the same behaviour for both packages of Lightning, in one process."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import synque_select
import synque_select.callbacks
import synque_select.experiment
import synque_select.lightning
from synque_select import ProbeSweep, TuneOptions, tune_mixture
from synque_select.cli.main import main
from synque_select.errors import LightningError
from synque_select.probing.sweep import run_sweep
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer
from tests.training.tiny import (
    LETTERS,
    REAL_WORDS,
    WORDS,
    LetterEncoder,
    candidates,
    collate,
    real_sample,
    texts,
)

ROOTS = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
FACES = {
    "pytorch_lightning": (synque_select, synque_select.callbacks, synque_select.experiment),
    "lightning": (synque_select.lightning,),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # the data is tiny, and warnings say so
both_packages = pytest.mark.parametrize("package", ROOTS)


class Parts:
    """A model, a DataModule and the classes of this library for one package of Lightning."""

    def __init__(self, package: str) -> None:
        self.pl: Any = importlib.import_module(ROOTS[package])
        self.package, root = package, self.pl

        class Model(root.LightningModule):
            def __init__(self, lr: float = 0.5) -> None:
                super().__init__()
                self.save_hyperparameters()
                torch.manual_seed(0)
                self.layer = torch.nn.Linear(len(LETTERS), 2)
                self.seen: list[str] = []

            def training_step(self, batch: Any, _: int) -> torch.Tensor:
                inputs, labels, names = batch
                self.seen += names
                return torch.nn.functional.cross_entropy(self.layer(inputs), labels)

            def validation_step(self, batch: Any, _: int) -> None:
                inputs, labels, names = batch
                loss = torch.nn.functional.cross_entropy(self.layer(inputs), labels)
                accuracy = (self.layer(inputs).argmax(1) == labels).float().mean()
                self.log_dict({"val_acc": accuracy, "val_loss": loss}, batch_size=len(names))

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

        class Data(root.LightningDataModule):
            def train_dataloader(self) -> Any:
                examples = texts(REAL_WORDS, 32, 5)
                return torch.utils.data.DataLoader(examples, batch_size=8, collate_fn=collate)

            def val_dataloader(self) -> Any:
                return self.train_dataloader()

        self.Model, self.Data = Model, Data

    def __getattr__(self, name: str) -> Any:
        return next(getattr(face, name) for face in FACES[self.package] if hasattr(face, name))

    def data(self, wraps: Any = None, **options: Any) -> Any:
        return self.SynqueDataModule(
            candidates(), real_sample(), wraps=self.Data() if wraps is None else wraps, **options
        )

    def selection(self, **options: Any) -> Any:
        return self.SelectionCallback(["mmd"], top_k=2, encoder=LetterEncoder(), **options)

    def trainer(self, folder: Path, *callbacks: Any, **options: Any) -> Any:
        defaults: dict[str, Any] = {
            "max_steps": 8,
            "val_check_interval": 8,
            "check_val_every_n_epoch": None,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "default_root_dir": str(folder),
        }
        return self.pl.Trainer(callbacks=list(callbacks), **(defaults | options))


@pytest.mark.parametrize("name", synque_select.lightning.__all__)
def test_the_classes_of_both_packages_have_no_code_of_their_own(name: str):
    kinds = [getattr(Parts(package), name) for package in ROOTS]
    assert kinds[0] is not kinds[1]
    for kind, package in zip(kinds, ROOTS, strict=True):
        own = {key for key, value in vars(kind).items() if callable(value)}
        assert own <= {"__new__"}
        assert kind.__mro__[-2].__module__.startswith((package, ROOTS[package]))
    shared = [[k for k in kind.__mro__ if k.__name__ == f"Base{name}"] for kind in kinds]
    assert shared[0] == shared[1]
    assert len(shared[0]) == 1


def test_a_fit_is_the_same_in_both(tmp_path: Path):
    outcomes = []
    for package in ROOTS:
        parts, folder = Parts(package), tmp_path / package
        selection = parts.selection(cache_dir=folder)
        probes = ProbeSweep(max_steps=2, progress=False)
        correlation = parts.ProxyCorrelationCallback(probes=probes, store=folder / "r.sqlite")
        model, logger = parts.Model(), parts.pl.loggers.CSVLogger(folder)
        run = parts.trainer(folder, selection, correlation, logger=logger)
        run.fit(model, datamodule=parts.data())
        logged = {p.name for p in Path(logger.log_dir).glob("synque_*")}
        assert {"synque_ranking.csv", "synque_mixture.csv", "synque_decision.md"} <= logged
        assert (selection.run_dir / "report.html").is_file()
        record = correlation.record
        assert record is not None
        outcomes.append((model.seen, record.scores, record.metrics, record.mixture, logged))
        assert {r.kind for r in RunStore(folder / "r.sqlite").read()} == {"mixture", "probe"}
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0][0]) == 64


@pytest.mark.parametrize("then", ROOTS)
def test_a_checkpoint_of_one_resumes_in_the_other(then: str, tmp_path: Path):
    (now,) = set(ROOTS) - {then}
    whole, first, second = (Parts(name) for name in (then, then, now))
    reference = whole.Model()
    whole.trainer(tmp_path, whole.selection()).fit(reference, datamodule=whole.data())
    model, selection = first.Model(), first.selection()
    half = first.trainer(tmp_path, selection, max_steps=4)
    half.fit(model, datamodule=first.data())
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = second.Model(), second.selection()
    run = second.trainer(tmp_path, again)
    run.fit(resumed, datamodule=second.data(), ckpt_path=str(tmp_path / "half.ckpt"))
    assert model.seen + resumed.seen == reference.seen
    assert again.run_id == selection.run_id


@both_packages
def test_a_collection_of_loaders_is_of_the_trainers_package(package: str, tmp_path: Path):
    parts = Parts(package)

    class Paired(parts.Data):
        def train_dataloader(self) -> Any:
            loader = super().train_dataloader()
            combined = parts.pl.utilities.CombinedLoader(
                {"x": [1] * 4, "mixed": loader}, "min_size"
            )
            return combined

    loaders = parts.data(wraps=Paired()).train_dataloader()
    assert type(loaders) is parts.pl.utilities.CombinedLoader
    assert {type(loader).__name__ for loader in loaders.flattened} == {"list", "MixtureLoader"}


@both_packages
def test_a_sweep_and_a_study_use_the_package_of_the_data(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (other,) = set(ROOTS) - {package}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a Trainer of the other package was made")

    monkeypatch.setattr(importlib.import_module(ROOTS[other]).Trainer, "__init__", refuse)
    parts, scorer = Parts(package), Scorer(["mmd"], encoder=LetterEncoder(), seed=0)
    options = {"accelerator": "cpu"}
    data = parts.data()
    run_sweep(
        parts.Model(), data, max_steps=2, scorer=scorer, run_dir="run", trainer_options=options
    )
    assert Path("run", "correlations.json").is_file()
    study = TuneOptions(n_trials=3, monitor="val_acc", storage="s.sqlite", pruner="median")
    result = tune_mixture(
        parts.Model,
        data,
        max_steps=2,
        options=study,
        scorer=scorer,
        trainer_options=options,
        progress=False,
    )
    assert len(result.trials) == 3


def test_a_model_of_one_and_data_of_the_other(tmp_path: Path):
    pl_parts, l_parts = Parts("pytorch_lightning"), Parts("lightning")
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), seed=0)
    line = "the model .* comes from the package lightning.*from synque_select.lightning import Sy"
    with pytest.raises(LightningError, match=line):
        run_sweep(
            l_parts.Model(), pl_parts.data(), max_steps=2, scorer=scorer, run_dir=str(tmp_path)
        )
    line = "the model .* comes from the package pytorch_lightning.*`from synque_select import Sy"
    with pytest.raises(LightningError, match=line):
        run_sweep(
            pl_parts.Model(), l_parts.data(), max_steps=2, scorer=scorer, run_dir=str(tmp_path)
        )


def test_our_own_part_of_the_other_package_is_named(tmp_path: Path):
    parts, others = Parts("lightning"), Parts("pytorch_lightning")
    with pytest.raises(LightningError, match=r"`from synque_select.lightning import SynqueDataM"):
        parts.trainer(tmp_path, parts.selection()).fit(parts.Model(), datamodule=others.data())
    correlation = others.ProxyCorrelationCallback()
    run = parts.trainer(tmp_path, parts.selection(), correlation)
    with pytest.raises(LightningError, match=r"`from synque_select.lightning import ProxyCorr"):
        run.fit(parts.Model(), datamodule=parts.data())


USER = """
import torch
from {root} import LightningDataModule, LightningModule
from torch.utils.data import DataLoader
from tests.training.tiny import REAL_WORDS, collate, letters, texts
class Data(LightningDataModule):
    def val_dataloader(self):
        return DataLoader(texts(REAL_WORDS, 16, 7), batch_size=8, collate_fn=collate)
class Model(LightningModule):
    def __init__(self, lr: float = 0.5):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(26, 2)
    def training_step(self, batch, i):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def validation_step(self, batch, i):
        accuracy = (self.layer(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_acc", accuracy, batch_size=8)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("theirs_l.py").write_text(USER.format(root="lightning.pytorch"))
    Path("theirs_pl.py").write_text(USER.format(root="pytorch_lightning"))
    Path("pool").mkdir()
    for seed, (name, words) in enumerate(WORDS.items()):
        Path("pool", f"{name}.json").write_text(json.dumps(texts(words, 20, seed)))
    Path("real.json").write_text(json.dumps(texts(REAL_WORDS, 20, 9)))
    selection = {"proxies": ["ngram"], "top_k": 2, "run_dir": "run"}
    return {
        "model": {"class_path": "theirs_l.Model"},
        "data": {
            "class_path": "synque_select.lightning.SynqueDataModule",
            "init_args": {
                "wraps": {"class_path": "theirs_l.Data"},
                "candidates": "pool/*.json",
                "real": "real.json",
                "view": "text",
                "collate_fn": "tests.training.tiny.collate",
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 2,
            "logger": False,
            "callbacks": [
                {"class_path": "synque_select.lightning.SelectionCallback", "init_args": selection}
            ],
        },
    }


class TestCommands:
    def test_fit(self, config: dict[str, Any]):
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", "mine.yaml"]) == 0
        assert Path("run", "ranking.json").is_file()

    def test_sweep(self, config: dict[str, Any]):
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        assert main(["sweep", "--config", "mine.yaml", "--sweep.run_dir", "swept"]) == 0
        assert Path("swept", "correlations.json").is_file()

    def test_a_model_on_the_command_line(self, config: dict[str, Any]):
        del config["model"]
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", "mine.yaml", "--model", "theirs_l.Model"]) == 0

    def test_mixed(self, config: dict[str, Any], capsys: pytest.CaptureFixture[str]):
        config["model"]["class_path"] = "theirs_pl.Model"
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", "mine.yaml"]) != 0
        shown = " ".join(capsys.readouterr().err.split())
        assert "the model (Model) comes from the package pytorch_lightning" in shown
        assert "`from synque_select import SynqueDataModule`" in shown

    @pytest.mark.parametrize(
        ("part", "wrong", "right"),
        [
            (
                "callbacks",
                "synque_select.ProxyCorrelationCallback",
                "synque_select.lightning.ProxyCorrelationCallback "
                "(`from synque_select.lightning import ProxyCorrelationCallback`)",
            ),
            (
                "callbacks",
                "pytorch_lightning.callbacks.ModelSummary",
                "lightning.pytorch.callbacks.ModelSummary",
            ),
            (
                "logger",
                "pytorch_lightning.loggers.CSVLogger",
                "lightning.pytorch.loggers.CSVLogger",
            ),
            (
                "plugins",
                "pytorch_lightning.plugins.MixedPrecision",
                "lightning.pytorch.plugins.MixedPrecision",
            ),
        ],
    )
    def test_a_part_of_the_trainer_is_mixed(
        self,
        config: dict[str, Any],
        part: str,
        wrong: str,
        right: str,
        capsys: pytest.CaptureFixture[str],
    ):
        config["trainer"][part] = [{"class_path": wrong}]
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", "mine.yaml"]) != 0
        shown = " ".join(capsys.readouterr().err.split())
        assert f"{wrong} is for the package pytorch_lightning" in shown
        assert f"from which the model (Model) comes: write {right}, or change" in shown
        # the model's script is the one to change, so the line that it has is named first
        change = "`import lightning as L` to `import pytorch_lightning as L`"
        assert f"or change {change}" in shown
        assert shown.endswith("everywhere in the script of the model")


ALONE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
FIT = """
import synque_select
import lightning as L, torch
from synque_select import ProbeSweep
from synque_select.lightning import ProxyCorrelationCallback, SelectionCallback, SynqueDataModule
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, i):
        return self.layer(torch.ones(1, 1)).sum()
    def validation_step(self, batch, i):
        self.log("val_acc", 0.5, batch_size=1)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
names = ["red stone", "blue stone", "tall tree"]
pools = {name[0]: [{"text": f"{name} {i}"} for i in range(20)] for name in names}
data = SynqueDataModule(pools, pools["r"][:8], view="text", val=[{"text": "x"}], batch_size=4)
probes = ProbeSweep(max_steps=1, progress=False)
correlation = ProxyCorrelationCallback(probes=probes, store="r.sqlite")
trainer = L.Trainer(
    callbacks=[SelectionCallback(["ngram"], top_k=2), correlation], max_steps=3, logger=False,
    accelerator="cpu", enable_progress_bar=False, val_check_interval=3,
    check_val_every_n_epoch=None,
)
trainer.fit(Model(), datamodule=data)
assert correlation.record.metrics == {"val_acc": 0.5}
assert not [name for name in sys.modules if name.startswith(("pytorch_lightning", "lightning_f"))]
print("fitted")
"""


def _python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_where_only_lightning_is_installed(tmp_path: Path):
    missing = ("pytorch_lightning", "lightning_fabric")
    done = _python(ALONE.format(missing=missing) + FIT, tmp_path)
    assert done.stdout.endswith("fitted\n"), done.stderr


def test_where_lightning_is_not_installed(tmp_path: Path):
    script = ALONE.format(missing=("lightning",)) + "import synque_select.lightning"
    done = _python(script, tmp_path)
    assert "pip install 'synque-select[lightning]'" in done.stderr


TYPED = """
import lightning as L
import pytorch_lightning as pl
import synque_select.callbacks
import synque_select.lightning
from synque_select import tune_mixture
from synque_select.probing.sweep import run_sweep

class Mine(synque_select.SelectionCallback):
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)

class MineL(synque_select.lightning.SelectionCallback):
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)

class DataL(synque_select.lightning.SynqueDataModule):
    def setup(self, stage: str) -> None:
        super().setup(stage)

class ModelL(L.LightningModule): ...

data = DataL([], wraps=L.LightningDataModule())
callbacks: list[L.Callback] = [MineL(), synque_select.lightning.ProxyCorrelationCallback()]
L.Trainer(callbacks=callbacks).fit(ModelL(), datamodule=data)
pl.Trainer(callbacks=[Mine()]).fit(
    pl.LightningModule(), datamodule=synque_select.SynqueDataModule([])
)
run_sweep(ModelL(), data, max_steps=2)
tune_mixture(ModelL, data, max_steps=2)
reveal_type(data.trainer)
reveal_type(data.wraps)
L.Trainer(callbacks=[Mine()])  # an error
synque_select.SynqueDataModule([], wraps=L.LightningDataModule())  # an error
"""


@pytest.mark.slow
def test_type_hints_of_both(tmp_path: Path):
    (tmp_path / "user.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [*command, "user.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": root, "PATH": ""},
        timeout=500,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    errors = [line for line in lines if ": error:" in line]
    shown = TYPED.splitlines()
    wrong = [n for n, text in enumerate(shown, start=1) if text.endswith("# an error")]
    assert {int(line.split(":")[1]) for line in errors} == set(wrong), done.stdout
    notes = " ".join(line for line in lines if ": note:" in line)
    assert 'lightning.pytorch.trainer.trainer.Trainer | None"' in notes
    assert 'lightning.pytorch.core.datamodule.LightningDataModule | None"' in notes
