"""`synque-select influence` on the config of a fit: what it prints, writes and rejects."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from synque_select.cli.main import main
from synque_select.records.influence_file import load_influence
from tests.cli.test_tune import CONFIG, folder

__all__ = ["folder"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore")  # a user's command line: warnings are shown
COMMAND = ["influence", "--config", "mine.yaml"]


def test_influence_from_a_config(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SYNQUE_CACHE", str(folder / "cache"))
    more = ["--influence.checkpoints", "2", "--influence.run_dir", "run"]
    assert main([*COMMAND, *more]) == 0
    out = capsys.readouterr().out
    assert "Influence on the labeled validation loss" in out
    result = load_influence(folder / "run")
    assert result.steps == (2, 4)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cache" / "influence").iterdir()}
    assert len(kept) == 2 * (1 + 6)  # two checkpoints of five candidates and validation
    assert main([*COMMAND, *more]) == 0
    assert load_influence(folder / "run").candidates == result.candidates
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_influence_on_a_surrogate_with_a_name(folder: Path, capsys: pytest.CaptureFixture[str]):
    config = copy.deepcopy(CONFIG)
    del config["data"]["init_args"]["wraps"]
    config["data"]["init_args"] |= {
        "label": "label",
        "val": {
            "class_path": "synque_select.SurrogateOptions",
            "init_args": {"size": 50, "held_out": 0.3},
        },
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main([*COMMAND, "--name", "red-fox", "--influence.task", "letters"]) == 0
    assert "Influence on the surrogate validation loss" in capsys.readouterr().out
    (run,) = (folder / "runs" / "letters").iterdir()
    assert run.name.endswith("-red-fox")
    assert load_influence(run).validation == "surrogate"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--influence.checkpoints", "9"], "max_steps=4 with checkpoints=9"),
        (["--influence.gradients", "first"], "influence.gradients: expected"),
        (["--trainer.max_steps", "-1"], "trainer.max_steps is not set: give"),
        (["--influence.dimz", "3"], "did you mean"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*COMMAND, *options]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("synque-select: error: ")
    assert message in error
