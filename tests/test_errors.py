"""Errors show no key and no long value; names of models, files and data are shown."""

from __future__ import annotations

import pickle
import time

import pytest

from synque_select.cli.main import main
from synque_select.errors import ConfigError, DataError, without_keys

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
        "the server of m, https://host/v1?…, cannot be reached (see http://host/a)",
        "real/*.jsonl?, me@host and sqlite:///x.db",
    ],
)
def test_other_names_are_shown(text):
    assert without_keys(text) == text


LONG_TEXT = 'it\'s "so"\n' * 9000


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("timeout_s=", "9" * 400, ": allowed is a number of seconds"),
        ("line 3: found ", repr("two words " * 10_000), "; allowed is a number"),
        ("line 3: found ", repr(LONG_TEXT), "; allowed is a number"),
        ("", "a/" * 500, ": no such file or folder"),
        ("found ", "数" * 5000, ", which is too long"),
    ],
    ids=["digits", "cell", "quotes", "path", "without spaces"],
)
def test_a_long_value_is_shown_by_its_beginning_and_end(before, value, after):
    message = str(DataError(f"{before}{value}{after}"))
    assert message.startswith(before + value[:100])
    assert message.endswith(value[-10:] + after)
    assert len(message) < 400


@pytest.mark.parametrize(
    "message",
    [
        f"{'/folder' * 50}/a.jsonl: no such file or folder",
        "no proxy 'a'; there are: " + ", ".join(f"'name {i}'" for i in range(150)),
        "the user's file isn't read: " + "a few words " * 100,
    ],
)
def test_paths_lists_and_sentences_are_shown_as_a_whole(message):
    assert str(DataError(message)) == message


def test_a_long_message_keeps_its_beginning_and_end():
    message = str(ConfigError(f"names: found {['a b'] * 9000}; allowed is one name each"))
    assert len(message) < 3000
    assert message.startswith("names: found ['a b', 'a b'")
    assert message.endswith("'a b']; allowed is one name each")


def test_a_key_that_is_longer_than_what_is_shown_is_masked_as_a_whole():
    key = "eyJ" + "hbGci" * 60 + "." + "c2lnbmF0dXJl" * 30
    assert str(ConfigError(f"found {key}: allowed is a name")) == "found …: allowed is a name"


@pytest.mark.parametrize(
    "text",
    [part * 10**5 for part in ("'", "\\", " '", "'\\", "a.", "x://", "x://a?", "://a@", "a-")],
)
def test_hostile_texts_are_shortened_in_linear_time(text):
    start = time.perf_counter()
    assert len(str(DataError(text))) < 3000
    assert time.perf_counter() - start < 5


def test_addresses_are_shown_without_user_and_query():
    text = "at postgresql://me:a@pw@host/db?password=pw, or s3://bucket/x?sig=pw: pw"
    assert without_keys(text) == "at postgresql://…@host/db?…, or s3://bucket/x?…: pw"


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
