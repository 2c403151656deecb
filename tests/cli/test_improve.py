"""The command `synque-select improve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from synque_select.cli.main import main
from tests.generation.sentences import WritingServer, engine, write_data


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)


def config(server: WritingServer, **more: Any) -> dict[str, Any]:
    return {
        "candidate": "made.json", "real": "real.json", "view": "text", "label": "kind",
        "run_dir": "run", "proxies": ["mmd", "ngram"], "examples": 30, "per_call": 10,
        "cache_dir": "cache", "generator": engine(server),
    } | more  # fmt: skip


def test_a_config_and_its_output(capsys):
    with WritingServer({1: "real", 2: "made"}) as server:
        Path("improve.yaml").write_text(yaml.safe_dump(config(server)))
        prices = json.dumps({"generator": {"input": 1.0, "output": 2.0}})
        assert main(["improve", "--config", "improve.yaml", "--prices", prices]) == 0
    out, err = capsys.readouterr()
    words = " ".join(out.split())
    assert "1 round kept, 80 examples before and" in words
    assert "No improvement shown" in words or "Shown to be worse" in words
    assert "40 others decided (split with seed 0)" in words
    assert "calls, 120 input and 60 output tokens, 0.00024 at the given prices" in words
    assert "wrote run/improved.jsonl" in words
    assert "3 rounds at most: 18 calls" in err
    for key in ("mmd", "ngram"):
        assert key in out


def test_quiet_and_files_of_engines(capsys):
    with WritingServer({1: "made"}) as server:
        Path("writer.yaml").write_text(yaml.safe_dump(engine(server)))
        Path("improve.yaml").write_text(yaml.safe_dump(config(server, generator="writer.yaml")))
        more = ["--reasoner", json.dumps(engine(server, revision="2")), "--quiet"]
        assert main(["improve", "--config", "improve.yaml", *more]) == 0
    out, err = capsys.readouterr()
    assert "no improvement shown: kept the old data" in " ".join(out.split())
    assert "wrote run/improve.json" in out
    assert err == ""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--generator", "{"], "--generator, line 1: not JSON"),
        (["--generator", "opnai"], "unknown engine 'opnai': did you mean 'openai'?"),
        (["--prices", "cheap"], "--prices: expected a YAML file or JSON"),
        (["--keep", "all"], "keep='all': allowed are add, replace"),
        (["--label", "knd"], "no field 'knd'; did you mean 'kind'?"),
        (["--real", "absent.json"], "absent.json"),
    ],
)
def test_errors_are_one_line(more: list[str], words: str, capsys):
    with WritingServer({1: "made"}) as server:
        Path("improve.yaml").write_text(yaml.safe_dump(config(server)))
        assert main(["improve", "--config", "improve.yaml", *more]) == 1
        assert server.requests == []
    err = capsys.readouterr().err
    assert words in err
    assert len(err.strip().splitlines()) == 1
