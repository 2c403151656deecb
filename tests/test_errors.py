"""Errors show no key, wherever in a config it is; names of models, files and data are shown."""

from __future__ import annotations

import pickle

import pytest

from synque_select.cli.main import main
from synque_select.errors import ConfigError, without_keys

KEY = "sk-proj-Ab3dEf6hIj9kLmN0pQrStUv"
ENGINE = "scorer:\n  engine: openai\n  model_id: fake\n  base_url: http://127.0.0.1:9/v1\n"


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        "sk-abc123def456",
        "sk-ant-api03-xYz_a",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz12345678",
        "gsk_0a1b2c3d4e5f6a7b8c9d",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-_d",
        "Ab3dEf6hIj9kLmN0pQrStUvWx1",
    ],
)
def test_keys_are_not_shown(key):
    error = ConfigError(f"scorer: 'openai:{key}' is not an engine")
    assert str(error) == "scorer: 'openai:…' is not an engine"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "text",
    [
        "sk-translation-v2",
        "sk-learn",
        "task-proj-data",
        "risk-abc123def",
        "hf_datasets",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4",
        "BertForSequenceClassification2",
        "/data/tmpA1b2C3d4E5f6G7h8I9j0K1/x",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    ],
)
def test_other_names_are_shown(text):
    assert without_keys(text) == text


@pytest.mark.parametrize(
    "config",
    [
        f"{ENGINE}  key_variable: [{KEY}]\n",
        f"{ENGINE}  key_variable: {{{KEY}: a}}\n",
        f"{ENGINE}  max_retries: {KEY}\n",
        f"{ENGINE}  timeout_s: {KEY}\n",
        f"{ENGINE}  {KEY}: 1\n",
        f"{ENGINE}  key_variable: *{KEY}\n",
        f"{KEY}: 1\n",
        f"scorer: openai:{KEY}\n",
    ],
)
def test_a_key_at_a_wrong_place_of_a_config_is_not_printed(config, tmp_path, capsys):
    for name in ("a", "b", "real"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "lens.yaml").write_text(config)
    options = ["--view", "text", "--proxies", "lens", "--lens", str(tmp_path / "lens.yaml")]
    files = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b")]
    real = str(tmp_path / "real.jsonl")
    assert main(["rank", "--candidates", *files, "--real", real, *options]) == 1
    output = "".join(capsys.readouterr())
    assert "error:" in output
    assert KEY[8:] not in output
