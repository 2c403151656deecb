"""What `--help` says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from synque_select.cli.commands import COMMANDS, Command
from synque_select.cli.main import main


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


def test_other_defaults_are_still_there(capsys):
    text = shown("rank", capsys)
    assert "(type: int, default: 0)" in text
    assert "(default: a GPU if there is one)" in text


@pytest.mark.parametrize("name", ["sweep", "tune"])
def test_the_own_options_of_a_cli_come_first(name: str, capsys):
    before_options = shown(name, capsys).partition(" options: ")[0]
    assert f"Options of its own: --{name}." in before_options
    assert f"--{name}.monitor METRIC, --{name}.mode {{max,min}}" in before_options


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
