"""What `--help` says."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

import pytest
import yaml

from synque_select.cli.commands import COMMANDS, Command
from synque_select.cli.main import main
from synque_select.cli.options import packaged_configs


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if isinstance(c, Command)])
def test_a_default_is_said_once_and_in_words(name: str, capsys):
    text = shown(name, capsys)
    assert "default: null" not in text
    assert "()" not in text
    for option in text.partition("options:")[2].split(" --"):
        assert option.count("default: ") <= 1


@pytest.mark.parametrize("name", ["fit", "influence", "sweep", "tune"])
def test_every_packaged_config_that_fits_is_listed(name: str, capsys):
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    listed = text.partition("or a packaged config: ")[2].partition(" --")[0]
    fits = {
        config
        for config, path in packaged_configs().items()
        if "trainer" in yaml.safe_load(path.read_text())
    }
    assert "digits-surrogate" in fits
    assert set(listed.replace("- ", "-").split(", ")) == fits  # lines may end at a hyphen


def test_other_defaults_are_still_there(capsys):
    text = shown("rank", capsys)
    assert "(type: int, default: 0)" in text
    assert "(default: a GPU if there is one)" in text


@pytest.mark.parametrize("name", ["fit", "influence", "sweep", "tune"])
def test_help_shows_our_options_and_says_how_to_see_those_of_lightning(name: str, capsys):
    with pytest.raises(SystemExit) as done:
        main([name, "--help-all"])
    assert done.value.code == 0
    everything = capsys.readouterr().out
    assert main([name, "--config", "digits-fit", "--help"]) == 0
    ours = capsys.readouterr().out
    assert len(everything.splitlines()) > 400 > 220 > len(ours.splitlines())
    assert "--trainer.sync_batchnorm" in everything
    assert "--trainer.sync_batchnorm" not in ours
    assert "(type: " not in ours
    shown = set(re.findall(r"^  (?:-\w(?: \w+)?, )?(--[\w.-]+)", ours, re.MULTILINE))
    assert {"--help-all", "--config", "--data.candidates", "--trainer.max_steps"} <= shown
    if name != "fit":
        own = "dims" if name == "influence" else "monitor"
        assert {f"--{name}.{own}", f"--{name}.run_dir"} <= shown
        assert shown - {"--help-all", "--name"} <= {*re.findall(r"--[\w.-]+", everything)} | {
            option for option in shown if option.startswith("--data.")
        }
    assert f"synque-select {name} --help-all" in " ".join(ours.split())


@pytest.mark.parametrize("name", [*COMMANDS, None])
def test_every_help_says_what_the_exit_status_means(name: str | None, capsys):
    with contextlib.suppress(SystemExit):
        main(["--help"] if name is None else [name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "exit status: 0 if all is done, also where the advice is to train on all; 3 if" in text
    assert "130 if interrupted" in text


def test_the_command_is_a_module_too():
    command = [sys.executable, "-m", "synque_select", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("synque-select ")


@pytest.mark.parametrize("arguments", [["--help"], ["rank", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_torch(arguments: list[str]):
    code = (
        "import contextlib, sys\n"
        "from synque_select.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(sys.argv[1:])\n"
        "print('heavy:', *sorted({'torch', 'numpy', 'pytorch_lightning'} & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "usage: synque-select" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
