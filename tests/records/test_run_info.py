"""`run.json`: the command, its configs, no key of a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.llm.openai.masking import mask_keys, mask_secrets
from synque_select.records.run_info import (
    info_of_call,
    info_of_process,
    load_run_info,
    save_run_info,
)


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


SECRET = "Zq8R2mT5wX7cV1bN"


@pytest.mark.parametrize(
    "text",
    [
        f"scorer: {{engine: openai, base_url: 'http://host/{SECRET}/v1?k={SECRET},{SECRET}'}}",
        f"scorer:\n  base_url: >-\n    http://host/v1?key={SECRET}\n",
        f"base_url: &u http://host/tenant-{SECRET}/v1\nother: *u\n",
        f"base_url: http://me:{SECRET}@host/v1#{SECRET}",
        f'{{"scorer": {{"base_url": "http://host/{SECRET}/v1", "api_key": "{SECRET}"}}}}',
        f"key_variable: {SECRET}",
        f"storage: postgresql://me:p@{SECRET}@host/db",
        f"storage: postgresql://host/db?user=me&password={SECRET}",
        f"tracking_uri: https://me:{SECRET}@host/mlflow",
        f"headers: {{Authorization: 'Bearer {SECRET}'}}",
        f"COMET_API_KEY={SECRET}",
        f"auth_token: {SECRET}\npassword: {SECRET}\nsecret_access_key: {SECRET}",
    ],
)
def test_no_part_of_an_address_and_no_named_key_is_kept(tmp_path: Path, text: str):
    config = tmp_path / "fit.yaml"
    config.write_text(text)
    info = info_of_process(["x", "--config", str(config), text, f"--api-key={SECRET}"])
    assert SECRET not in info.command + str(info.configs)
    assert SECRET not in mask_keys(text)
    info = info_of_process(["x", "--trainer.logger.init_args.api_key", SECRET, "--seed"])
    assert SECRET not in info.command


def test_a_call_has_no_part_of_an_address():
    scorer = {"engine": "openai", "base_url": f"http://h/{SECRET}/v1?k={SECRET}", "token": SECRET}
    assert SECRET not in info_of_call("rank", {"candidates": "a"}, lens={"scorer": scorer}).command


@pytest.mark.parametrize(
    "text",
    [
        "scorer: {engine: openai, base_url: http://localhost:8000/v1, key_variable: MY_API_KEY}",
        "max_tokens: 400\ntokenizer: bert-base\ntoken: true\npad_token: <pad>\ntoken: null\n",
        "password: ${oc.env:PASSWORD}\napi_key: $KEY\n",
        "storage: sqlite:///studies.sqlite\ncandidates: real/*.jsonl?\n",
    ],
)
def test_what_is_not_a_key_is_kept(text: str):
    assert mask_secrets(text) == mask_keys(text) == text


@pytest.mark.parametrize("state", [[], {"version": 2}, {"version": 1, "command": 3}])
def test_a_damaged_file_is_named(tmp_path: Path, state):
    (tmp_path / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecordError, match=r"run\.json"):
        load_run_info(tmp_path)
