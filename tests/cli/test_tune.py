"""`synque-select tune` on the config of a fit: what it prints, writes, continues and rejects."""

from __future__ import annotations

import copy
import json
import logging
import sys
from pathlib import Path

import pytest
import yaml

from synque_select.cli.main import main
from synque_select.errors import RecordError
from synque_select.records.ranking_file import load_ranking
from synque_select.records.store import RunStore

pytestmark = pytest.mark.filterwarnings("ignore")  # a user's command line: warnings are shown

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "tests.training.tiny.TinyModel"},
    "data": {
        "class_path": "synque_select.SynqueDataModule",
        "init_args": {
            "wraps": {"class_path": "tests.training.tiny.TinyData"},
            "candidates": "pool/*.json",
            "real": "real.json",
            "view": "text",
            "collate_fn": "tests.training.tiny.collate",
            "batch_size": 8,
        },
    },
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 4,
        "callbacks": [
            {
                "class_path": "synque_select.SelectionCallback",
                "init_args": {"proxies": ["ngram"], "top_k": 2},
            }
        ],
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.training.tiny import REAL_WORDS, WORDS, texts

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    for seed, (name, words) in enumerate(WORDS.items()):
        (tmp_path / "pool" / f"{name}.json").write_text(json.dumps(texts(words, 40, seed)))
    (tmp_path / "real.json").write_text(json.dumps(texts(REAL_WORDS, 20, 9)))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_a_study_from_a_config(folder: Path, capsys: pytest.CaptureFixture[str]):
    command = ["tune", "--config", "mine.yaml", "--tune.run_dir", "run", "--tune.pruner", "none"]
    assert main([*command, "--tune.n_trials", "5", "--tune.task", "letters"]) == 0
    out = capsys.readouterr().out
    assert "Study letters-" in out
    assert "best val_acc" in out
    assert main([*command, "--tune.n_trials", "6", "--tune.task", "letters"]) == 0
    study = json.loads((folder / "run" / "study.json").read_text())
    assert [trial["start"] for trial in study["trials"]][:3] == ["top 2", "all", "top 1"]
    assert len(study["trials"]) == 6
    assert len(RunStore(folder / "runs" / "records.sqlite").read(kind="trial")) == 6
    assert load_ranking(folder / "run").top().weights == study["mixture"]["weights"]
    assert "Tuning: the trials of the search" in (folder / "run" / "report.html").read_text()
    config = {**CONFIG, "trainer": {"accelerator": "cpu", "max_steps": 2, "logger": False}}
    config["trainer"]["callbacks"] = [
        {
            "class_path": "synque_select.SelectionCallback",
            "init_args": {"ranking": "run/ranking.json"},
        }
    ]
    (folder / "tuned.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "tuned.yaml"]) == 0


def test_what_was_measured_on_other_candidates_is_reused(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    from tests.training.tiny import WORDS, texts

    def run(command: str, name: str, *options: str) -> str:
        options = (*options, f"--{command}.task", "letters", f"--{command}.run_dir", name)
        for logger in logging.root.manager.loggerDict.values():
            for handler in getattr(logger, "handlers", ()):
                if type(handler) is logging.StreamHandler:  # made in another test, whose is closed
                    handler.stream = sys.stderr
        assert main([command, "--config", "mine.yaml", *options]) == 0
        printed = capfd.readouterr()
        return " ".join(f"{printed.err} {printed.out}".split())

    tuning = ["--tune.pruner", "none", "--tune.n_trials", "6"]
    assert "reused" not in run("sweep", "sweep-1")
    assert "5 of 5 probes are reused as measured" in run("tune", "tune-1", *tuning)
    (folder / "pool" / "half.json").write_text(json.dumps(texts(WORDS["half"], 40, 70)))
    printed = run("sweep", "sweep-2")
    assert "4 of 5 probes are reused from the run store; trained now: half" in printed
    printed = run("tune", "tune-2", *tuning)
    assert "5 of 5 probes and " in printed
    assert "are reused as measured, " in printed
    assert "for the sampler (regenerated: half)" in printed
    study = json.loads((folder / "tune-2" / "study.json").read_text())
    roles = [trial["role"] for trial in study["trials"]]
    assert roles.count("reused") > 5
    assert len(roles) - roles.count("reused") == 6
    assert study["priors"]
    assert {trial["role"] for trial in study["priors"]} == {"prior"}
    page = (folder / "tune-2" / "report.html").read_text()
    assert "measured before the study" in page
    assert ") prior" in page
    alone = run("tune", "tune-3", *tuning, "--tune.reuse", "false")
    assert "reused as measured" not in alone


@pytest.mark.parametrize("command", ["sweep", "tune", "fit"])
def test_no_labeled_example_is_needed(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
):
    surrogate = {
        "class_path": "synque_select.SurrogateOptions",
        "init_args": {"size": 50, "held_out": 0.4, "encoder": "tests.training.tiny.LetterEncoder"},
    }
    config = copy.deepcopy(CONFIG)
    arguments = config["data"]["init_args"]
    del arguments["wraps"]
    config["data"]["init_args"] = {**arguments, "label": "label", "val": surrogate}
    config["trainer"]["val_check_interval"] = 2
    config["trainer"]["logger"] = {
        "class_path": "pytorch_lightning.loggers.CSVLogger",
        "init_args": {"save_dir": "logs"},
    }
    (folder / "surrogate.yaml").write_text(yaml.safe_dump(config))
    options = {
        "tune": ["--tune.n_trials", "4", "--tune.task", "x", "--tune.run_dir", "run"],
        "sweep": ["--sweep.task", "x", "--sweep.run_dir", "run", "--sweep.n_workers", "2"],
    }
    assert main([command, "--config", "surrogate.yaml", *options.get(command, [])]) == 0
    out = capsys.readouterr().out
    if command == "fit":
        (metrics,) = folder.glob("logs/**/metrics.csv")
        assert "surrogate/val_acc" in metrics.read_text()
        return
    assert "surrogate/val_acc" in out
    assert "no labeled real example" in out
    kind = "probe" if command == "sweep" else "trial"
    records = RunStore(folder / "runs" / "records.sqlite").read(kind=kind)
    assert {record.monitor for record in records} == {"surrogate/val_acc"}
    assert "surrogate/val_acc" in (folder / "run" / "report.html").read_text()


def test_a_typo_in_the_short_form_of_surrogate_validation(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["fit", "--config", "mine.yaml", "--data.init_args.val", "surrogat"]
    assert main(arguments) == 1
    assert "the only text allowed is 'surrogate'" in capsys.readouterr().err


def test_bad_options_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "damaged.journal").write_text("{no journal\n")
    for option, message in (
        ("--tune.sampler=tpee", "sampler='tpee': did you mean 'tpe'?"),
        ("--tune.pruner=medium", "pruner='medium': did you mean 'median'?"),
        ("--tune.n_trials=0", "n_trials=0: allowed is a whole number from 1"),
        ("--tune.k_range=[3,9]", "k_range=(3, 9)"),
        ("--tune.proxy=mdd", "proxy='mdd'"),
        ("--trainer.max_steps=-1", "trainer.max_steps is not set: give the optimizer steps"),
        ("--tune.storage=real.json/x.sqlite", "storage of studies real.json/x.sqlite"),
        ("--tune.storage=damaged.journal", "the storage of studies is damaged"),
        ("--tune.storage=mysql://me:secret@host/x", "storage of studies mysql://host/x"),
        ("--tune.run_dir=real.json", "real.json is a file: give a directory"),
        ("--tune.task=../x", "task='../x': allowed is a plain name"),
    ):
        assert main(["tune", "--config", "mine.yaml", option]) == 1, option
        error = capsys.readouterr().err
        assert message in error
        assert "secret" not in error


def test_trials_that_cannot_be_saved_are_printed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(ranking: object, run_dir: Path) -> None:
        raise RecordError(f"cannot write {run_dir}: no space left")

    monkeypatch.setattr("synque_select.tuning.command.save_ranking", full)
    command = ["tune", "--config", "mine.yaml", "--tune.run_dir", "run", "--tune.pruner", "none"]
    assert main([*command, "--tune.n_trials", "2", "--tune.task", "letters"]) == 1
    output = capsys.readouterr()
    assert "cannot write run: no space left" in output.err
    assert "best val_acc" in output.out
    assert "report:" not in output.out
