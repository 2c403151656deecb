"""`plan sweep`, `work` and `gather`: probes in processes that share nothing but a folder."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from synque_select.cli.main import main
from synque_select.records.correlation_file import load_correlations
from synque_select.records.store import RunStore
from synque_select.types import RunRecord
from tests.cli.test_tune import CONFIG
from tests.training.tiny import REAL_WORDS, WORDS, texts

pytestmark = pytest.mark.filterwarnings("ignore")  # a user's command line: warnings are shown
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "own-cache"))
    monkeypatch.setenv("SLOW_STEPS_LOG", str(tmp_path / "log"))
    (tmp_path / "pool").mkdir()
    words = list(WORDS.values())
    for i in range(15):
        rows = json.dumps(texts(words[i % len(words)], 20 + i, i))
        (tmp_path / "pool" / f"c{i:02d}.json").write_text(rows)
    (tmp_path / "real.json").write_text(json.dumps(texts(REAL_WORDS, 20, 9)))
    config = copy.deepcopy(CONFIG)
    config["model"] = {"class_path": "tests.execution.models.SlowModel"}
    config["trainer"] |= {"max_steps": 1, "logger": False}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def planned(*more: str) -> list[str]:
    files = ["--sweep.store", "together.sqlite", "--sweep.run_dir", "together"]
    return ["plan", "sweep", "--config", "mine.yaml", *files, "--out", "plan", *more]


def records(path: str) -> list[tuple[object, ...]]:
    def content(record: RunRecord) -> tuple[object, ...]:
        details = {k: v for k, v in record.details.items() if k != "seconds"}
        state = {**vars(record), "created": "", "details": details, "mixture": 0}
        return (record.run_id, record.mixture.weights, json.dumps(state, default=str))

    return sorted((content(r) for r in RunStore(path).read()), key=str)


def work(*arguments: str) -> int:
    return main(["work", "plan", "--quiet", *arguments])


def test_eight_processes_of_which_two_are_killed(folder: Path, capsys: pytest.CaptureFixture[str]):
    alone = ["--sweep.store", "alone.sqlite", "--sweep.run_dir", "alone"]
    assert main(["sweep", "--config", "mine.yaml", *alone]) == 0
    log = folder / "log"
    log.unlink()
    assert main(planned()) == 0
    assert "wrote plan: 15 probes to train, and the model as it is" in capsys.readouterr().out
    assert not log.exists()
    command = [sys.executable, "-m", "tests.execution.array_job", "plan", str(log)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, -9, 0, 0, -9, 0, 0]
    assert not Path("together.sqlite").exists()  # no job opens a database

    assert main(["gather", "plan"]) == 1
    message = capsys.readouterr().err
    assert "4 of 16 units of plan not finished" in message
    assert message.count("train the probe of c") == 4
    assert "synque-select work plan --index 0 --of 1" in message

    n_before = len(log.read_text().split())
    assert n_before == 15 - 4 + 2  # the killed ones had begun one each
    assert work("--index", "0", "--of", "1") == 0
    assert len(log.read_text().split()) == n_before + 4
    capsys.readouterr()
    assert work("--index", "3", "--of", "8") == 0
    assert capsys.readouterr().out == "no unit is left for process 3 of 8\n"
    assert main(["gather", "plan"]) == 0
    assert len(log.read_text().split()) == n_before + 4  # nothing is trained by gather
    assert records("together.sqlite") == records("alone.sqlite")
    assert load_correlations("together") == load_correlations("alone")


def test_a_unit_that_fails_or_is_damaged_is_named_and_run_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from tests.execution import models

    for path in sorted((folder / "pool").glob("*.json"))[3:]:
        path.unlink()
    assert main(planned()) == 0
    train, calls = models.SlowModel.training_step, []

    def fails_once(self: models.SlowModel, batch: object, index: int) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the GPU is gone")
        return train(self, batch, index)

    monkeypatch.setattr(models.SlowModel, "training_step", fails_once)
    assert work("--index", "0", "--of", "1") == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "failed: train" in text]
    assert "RuntimeError: the GPU is gone" in line
    assert main(["gather", "plan"]) == 1
    assert "failed: RuntimeError: the GPU is gone" in capsys.readouterr().err
    key = line.split("(")[1].split(")")[0]
    assert work("--unit", key) == 0

    plan = json.loads(Path("plan", "plan.json").read_text())
    units = {unit["name"]: Path("plan", "done", f"{unit['key']}.json") for unit in plan["units"]}
    paths = list(units.values())
    other = json.loads(paths[1].read_text())["record"]
    for damaged in ("", "{}", "[]", json.dumps({"key": "0", "seconds": 1})):
        paths[0].write_text(damaged)
        assert main(["gather", "plan"]) == 1
        assert "1 of 4 units of plan not finished" in capsys.readouterr().err
    state = {"key": paths[0].stem, "seconds": 1, "record": other}
    for record, why in (
        (other, "it is that of another fit"),
        ({"run_id": 3}, "record.run_id must be a text"),
    ):
        paths[0].write_text(json.dumps({**state, "record": record}))
        assert main(["gather", "plan"]) == 1
        message = capsys.readouterr().err
        assert f"what it wrote is damaged: {why}" in message
        assert f"--unit {paths[0].stem[:12]}" in message
        assert not paths[0].exists()
    assert work("--index", "0", "--of", "1") == 0
    assert main(["gather", "plan"]) == 0


def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]):
    def error(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return " ".join(capsys.readouterr().err.split())

    for path in sorted((folder / "pool").glob("*.json"))[3:]:
        path.unlink()
    assert "plan sweep needs --out FOLDER" in error("plan", "sweep", "--config", "mine.yaml")
    assert "sweep.stop_early: leave it out of a plan" in error(*planned("--sweep.stop_early=true"))
    assert "sweep.executor and sweep.n_workers: leave them out" in error(*planned("--executor=ray"))
    assert "plan tune: a trial is chosen from the results of those before it. Use" in error(
        "plan", "tune", "--config", "mine.yaml", "--out", "plan"
    )
    assert "What can be planned is a ranking and a sweep" in error("plan", "experiment")
    assert main(planned()) == 0
    assert "plan.json exists: continue it with" in error(*planned())
    assert "--index 8: allowed is 0 to 7" in error("work", "plan", "--index", "8", "--of", "8")
    assert "--of 0: allowed is" in error("work", "plan", "--index", "0", "--of", "0")
    assert "--json: leave it out" in error("gather", "plan", "--json", "x")

    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("seed_everything: 0", "seed_everything: 1"))
    message = error("work", "plan", "--index", "0", "--of", "1")
    assert "has changed since" in message
    assert "the model, its initial weights, its data or an option of train the probe of" in message
    (folder / "mine.yaml").write_text(text)
    (folder / "pool" / "c01.json").write_text(json.dumps(texts(REAL_WORDS, 20, 77)))
    assert "was made: c01:" in error("work", "plan", "--index", "0", "--of", "1")

    path = folder / "plan" / "plan.json"
    state = json.loads(path.read_text())
    for change, message in (
        ({"command": "swep"}, "command must be 'rank' or 'sweep', found 'swep'"),
        ({"units": [{"key": "../../x", "name": "a", "stage": "probe"}]}, "a hash in hexadecimal"),
        ({"units": None}, "units must be a list"),
        ({"environment": []}, "environment must be an object"),
    ):
        path.write_text(json.dumps({**state, **change}))
        assert message in error("gather", "plan")
    path.write_text(json.dumps(state))
    (folder / "plan" / "ranking.json").unlink()
    assert "ranking.json" in error("work", "plan", "--index", "0", "--of", "1")
