"""`synque-select ls` and `compare`, and the names of runs."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from synque_select.cli.ls import KINDS
from synque_select.cli.main import main
from synque_select.records.ranking_file import load_ranking
from synque_select.records.runs import Runs
from tests.cli.test_tune import CONFIG

pytestmark = pytest.mark.filterwarnings("ignore")  # a user's command line: warnings are shown


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a fit, a sweep, a study and a saved ranking, each with a name."""
    from tests.training.tiny import REAL_WORDS, WORDS, texts

    folder = tmp_path_factory.mktemp("project")
    (folder / "pool").mkdir()
    for seed, (name, words) in enumerate(WORDS.items()):
        (folder / "pool" / f"{name}.json").write_text(json.dumps(texts(words, 40, seed)))
    (folder / "real.json").write_text(json.dumps(texts(REAL_WORDS, 20, 9)))
    config = copy.deepcopy(CONFIG)
    config["trainer"]["callbacks"].append(
        {
            "class_path": "synque_select.ProxyCorrelationCallback",
            "init_args": {"monitor": "val_acc"},
        }
    )
    config["trainer"] |= {"logger": False, "val_check_interval": 2}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SYNQUE_CACHE", str(folder / "cache"))
        assert main(["fit", "--config", "mine.yaml", "--name", "baseline"]) == 0
        assert main(["sweep", "--config", "mine.yaml", "--name=alone"]) == 0
        tune = ["tune", "--config", "mine.yaml", "--tune.n_trials", "2", "--tune.pruner", "none"]
        assert main([*tune, "--name", "search"]) == 0
        rank = ["rank", "--candidates", "pool/*.json", "--real", "real.json", "--view", "text"]
        assert main([*rank, "--proxies", "ngram", "--json", "runs/ranked"]) == 0
    return folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("SYNQUE_CACHE", str(project / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return project


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    assert main(["ls", *arguments, "--json", "-"]) == 0
    rows: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize("what", KINDS)
def test_every_list_fits_80_columns(what: str, inside: Path, capsys):
    assert main(["ls", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines[2:])) <= 80


def test_the_command_of_a_run_can_be_copied(inside: Path):
    commands = {run.path.name: run.info.command for run in Runs("runs") if run.info is not None}
    starts = {" ".join(command.split()[:4]) for command in commands.values()}
    assert starts >= {f"synque-select {each} --config mine.yaml" for each in ("sweep", "tune")}


def test_runs_are_told_apart(inside: Path, capsys):
    rows = {row["run"]: row for row in listed(capsys, "runs")}
    assert set(rows) == {"baseline", "alone", "search", "ranked"}
    assert rows["baseline"]["what"] == "TinyModel, fit"
    assert rows["alone"]["what"] == "TinyModel, sweep"
    assert rows["search"]["what"] == "TinyModel, tune"
    assert rows["ranked"]["what"] == "rank"
    assert rows["baseline"]["trains on"] == "2 of 5"
    assert {row["candidates"] for row in rows.values()} == {"5"}
    assert rows["baseline"]["monitor"].startswith("val_acc 0.")
    assert rows["alone"]["monitor"].startswith("best val_acc ")
    assert rows["search"]["monitor"].startswith("val_acc ")
    assert rows["ranked"]["monitor"] == "-"
    dates = [row["began (UTC)"] for row in listed(capsys, "runs")]
    assert dates == sorted(dates, reverse=True)


def test_a_damaged_run_is_listed_with_its_problem(inside: Path, tmp_path: Path, capsys):
    run = tmp_path / "runs" / "digits" / "20260101T120000Z-red-fox"
    run.mkdir(parents=True)
    (run / "ranking.json").write_text("{}")
    (row,) = listed(capsys, "runs", str(tmp_path / "runs"))
    assert (row["run"], row["began (UTC)"]) == ("red-fox", "2026-01-01 12:00")
    assert "ranking.json" in row["trains on"]
    assert main(["ls", "runs", str(tmp_path / "none")]) == 1
    assert "give the folder of your runs" in capsys.readouterr().err
    assert main(["ls", "proxies", "here"]) == 1
    assert "ls proxies takes no directory, found 'here'" in capsys.readouterr().err


def test_lists_name_what_commands_take(inside: Path, capsys):
    proxies = {row["key"]: row for row in listed(capsys, "proxies")}
    assert proxies["pad"]["better"] == "lower"
    assert proxies["transfer"]["reads"] == "labels"
    assert {row["key"] for row in listed(capsys, "encoders")} >= {"efficientnet-lite0"}
    assert {row["key"] for row in listed(capsys, "engines")} == {
        "anthropic",
        "openai",
        "transformers",
        "vllm",
    }
    assert "digits-fit" in {row["name"] for row in listed(capsys, "configs")}
    assert "scores" in {row["what"] for row in listed(capsys, "cache")}
    assert main(["ls", "proxys"]) == 1
    assert "proxies" in capsys.readouterr().err


def test_two_runs_are_compared_by_name_or_path(inside: Path, capsys):
    (fit,) = Path("runs/TinyModel").glob("*-baseline")
    assert main(["compare", "baseline", "runs/ranked"]) == 0
    by_name = capsys.readouterr().out
    assert main(["compare", str(fit), "ranked"]) == 0
    assert capsys.readouterr().out == by_name
    assert "baseline against ranked" in by_name
    assert "TinyModel, fit" in by_name
    assert "encoder" not in by_name  # the same in both
    names = {row.name for row in load_ranking("runs/ranked")}
    assert all(name in by_name for name in names)
    assert max(map(len, by_name.splitlines())) <= 80
    assert main(["compare", "baseline", "search"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the monitored figures must not be compared" in text
    assert main(["compare", "baseline", "baselin"]) == 1
    assert "no run 'baselin': did you mean 'baseline'?" in capsys.readouterr().err
    assert main(["compare", "baseline", "baseline", "--json", "-"]) == 0
    differences, places = json.loads(capsys.readouterr().out)
    assert differences == []
    assert {row["candidate"] for row in places} == names


def test_a_report_is_found_by_the_name_of_its_run(inside: Path, capsys):
    assert main(["report", "baseline", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["report", "baselin"]) == 1
    assert "no run 'baselin': did you mean 'baseline'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a/b"], "name='a/b': allowed is a plain name without slashes"),
        (["--name"], "--name needs a name of the run"),
        (
            ["--name", "x", "--trainer.callbacks.init_args.run_dir=here"],
            "name='x' and run_dir='here': give one of them",
        ),
    ],
)
def test_names_that_a_run_cannot_have(inside: Path, arguments: list[str], message: str, capsys):
    config = yaml.safe_load(Path("mine.yaml").read_text())
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][0]
    Path("one.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "one.yaml", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_name_without_a_selection_is_refused(inside: Path, capsys):
    config = yaml.safe_load(Path("mine.yaml").read_text())
    config["trainer"]["callbacks"] = []
    Path("none.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "none.yaml", "--name", "x"]) == 1
    assert "the config has none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["l"], {"ls"}),
        (["rank", "--cand"], {"--candidates"}),
        (["tune", "--tune.n_s"], {"--tune.n_startup"}),
        (["ls", ""], set(KINDS)),
    ],
)
def test_a_shell_completes_commands_options_and_choices(
    words: list[str], expected: set[str], script: Path
):
    line = " ".join(["synque-select", *words])
    code = (
        f"source {script}; COMP_WORDS=(synque-select {' '.join(map(repr, words))}); "
        f"COMP_CWORD={len(words)}; COMP_LINE='{line}'; "
        f"_shtab_synque_select synque-select {words[-1]!r} ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab")
    path = tmp_path_factory.mktemp("completion") / "synque-select.bash"
    with path.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path
