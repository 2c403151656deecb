"""What commands import: most of the time of a command that finds everything cached."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import ROOT

CODE = """
import contextlib, sys
from synque_select.cli.main import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
"""
# half a second each, or more; torch, and datasets for reading, are what a ranking needs
HEAVY = {
    *("IPython", "PIL", "jinja2", "lightning", "matplotlib", "openai", "optuna", "peft"),
    *("pytorch_lightning", "rich", "scipy.optimize", "scipy.stats", "sentence_transformers"),
    *("sklearn", "sqlglot", "synque_select.report.page", "tokenizers", "torchmetrics"),
    *("torchvision", "transformers", "trl"),
}
RANK = ["rank", "--candidates", "c*.jsonl", "--real", "real.jsonl", "--view", "text", "--quiet"]


def modules_of(arguments: list[str], folder: Path) -> set[str]:
    """Run a command in a folder and return the names of all modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=folder,
        env={"PATH": "", "HOME": str(folder), "SYNQUE_CACHE": "cache", "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout, done.stderr[:1000]
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Path:
    """A folder with a ranking of which everything is cached."""
    folder = tmp_path_factory.mktemp("ranked")
    draw = random.Random(0)
    for name, n_rows in (("c1", 40), ("c2", 40), ("real", 20)):
        texts = [
            " ".join(draw.choices(f"{name} up down left right".split(), k=6)) for _ in range(n_rows)
        ]
        lines = [json.dumps({"text": f"{text} {number}"}) for number, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    assert "transformers" in modules_of([*RANK, "--json", "run"], folder)
    return folder


def test_a_ranking_from_the_caches_imports_nothing_heavy(ranked: Path):
    loaded = modules_of(RANK, ranked)
    assert not HEAVY & loaded
    assert {"torch", "datasets"} <= loaded  # the names in the set are those of modules


@pytest.mark.parametrize(
    "arguments",
    [["ls", "configs"], ["ls", "runs"], ["report", "run"], ["compare", "run", "run"]],
    ids=" ".join,
)
def test_commands_that_read_results_do_not_wait_for_torch(arguments: list[str], ranked: Path):
    loaded = modules_of(arguments, ranked)
    assert not {"torch", "scipy", "pandas", "datasets", "matplotlib", *HEAVY} & loaded - {
        "jinja2",
        "synque_select.report.page",
    }
