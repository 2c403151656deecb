"""`run.json`: the command, its configs, no key of a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.records.run_info import info_of_process, load_run_info, save_run_info


def test_a_command_comes_back_as_a_shell_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "my fit.yaml"
    config.write_text("a: 1\n")
    arguments = ["/usr/bin/synque-select", "fit", "--config", str(config), "--x", "a b"]
    monkeypatch.setattr(sys, "argv", arguments)
    save_run_info(tmp_path)
    info = load_run_info(tmp_path)
    assert info is not None
    assert info.command == f"synque-select fit --config '{config}' --x 'a b'"
    assert info.configs == {str(config): "a: 1\n"}
    assert info.python.startswith("3.")
    assert load_run_info(tmp_path / "nowhere") is None


def test_packaged_configs_and_scripts():
    info = info_of_process(["train.py", "--config=digits", "--config", "unknown", "-c"])
    assert info.command.startswith("python train.py --config=digits")
    assert list(info.configs) == ["digits"]
    assert "DigitsTask" in info.configs["digits"]


def test_no_key_of_a_server_is_kept(tmp_path: Path):
    config = tmp_path / "lens.yaml"
    config.write_text("api_key: sk-proj-a1b2c3d4e5f6\n")
    info = info_of_process(["x", "--config", str(config), "--key", "sk-proj-a1b2c3d4e5f6"])
    assert "a1b2c3d4" not in info.command + str(info.configs)


@pytest.mark.parametrize("state", [[], {"version": 2}, {"version": 1, "command": 3}])
def test_a_damaged_file_is_named(tmp_path: Path, state):
    (tmp_path / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecordError, match=r"run\.json"):
        load_run_info(tmp_path)
