"""The README's code and commands run, on files like those that it speaks of."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- test: (.+?) -->\n```\w+\n(.*?)```", README, flags=re.DOTALL)

GOOD, BAD = ("beats", "rises", "upgraded", "record"), ("misses", "falls", "cut", "weak")
FIRMS = ("Acme", "Globex", "Initech", "Umbrella", "Hooli", "Stark", "Wayne", "Wonka")


def headlines(seed: int, n: int, template: str) -> list[dict[str, object]]:
    generator = random.Random(seed)
    records = []
    for _ in range(n):
        label = generator.randrange(3)
        word = generator.choice((BAD, GOOD, ("holds", "meets", "plans", "says"))[label])
        text = template.format(firm=generator.choice(FIRMS), word=word, n=generator.randrange(100))
        records.append({"headline": text, "sentiment": label})
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "candidates").mkdir()
    templates = {
        "close": "{firm} {word} estimates by {n}%",
        "plain": "{firm} {word}",
        "chatty": "Did you hear that {firm} {word} again today, number {n}?",
        "far": "qx {n} zz {word} vv",
    }
    for seed, (name, template) in enumerate(templates.items()):
        text = json.dumps(headlines(seed, 120, template))
        (folder / "candidates" / f"{name}.json").write_text(text)
    for name, seed, n in (("real", 10, 40), ("val", 11, 60)):
        records = headlines(seed, n, "{firm} {word} quarterly estimates by ${n}m")
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder


def run(command: list[str] | str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SYNQUE_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400,
        shell=isinstance(command, str), check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_readme_has_blocks_of_each_kind():
    assert {kind for kind, _ in BLOCKS} == {"python", "python script", "commands"}


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python script"])
def test_script(code: str, folder: Path):
    (folder / "train.py").write_text(code)
    out = run([sys.executable, "train.py"], folder)
    assert re.search(r"\{'\w+': 0\.33\d*, '\w+': 0\.33\d*, '\w+': 0\.33\d*\}", out)


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python"])
def test_snippet(code: str, folder: Path):
    run([sys.executable, "-c", code], folder)


@pytest.mark.parametrize(
    "command",
    [line for kind, code in BLOCKS if kind == "commands" for line in code.splitlines() if line],
)
def test_command(command: str, folder: Path):
    assert run(command, folder)


def test_ranking_file_of_the_first_command(folder: Path):
    ranking = json.loads((folder / "ranking.json").read_text())
    assert ranking["version"] == 1
    assert "far" not in [entry["name"] for entry in ranking["selected"]]


def test_set_up_commands_exist():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test"} <= named <= set(targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
