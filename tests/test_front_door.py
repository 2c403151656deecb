"""The package's front door, and rules that only a person would remember otherwise."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import synque_select
from tests.test_layers import ROOT, modules

PROBE = """
import sys, time
import torch
start = time.perf_counter()
import synque_select
print(time.perf_counter() - start)
heavy = {"torchvision", "pytorch_lightning", "transformers", "datasets", "PIL"}
print(sorted(heavy & set(sys.modules)))
"""


def test_import_is_quick_and_pulls_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=120
    )
    seconds, heavy = done.stdout.split("\n")[:2]
    assert float(seconds) < 1
    assert heavy == "[]"


@pytest.mark.parametrize("name", synque_select.__all__)
def test_every_name_is_there_and_documented(name: str):
    assert getattr(synque_select, name).__doc__


def test_the_version_is_that_of_the_package():
    assert synque_select.__version__ == version("synque-select")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = synque_select.nothing


USER = """
from typing import assert_type
import synque_select as sq
from synque_select import Decision, Mixture, Ranking, Runs, rank
ranking = rank({"a": ["x y", "z"], "b": ["u", "v"]}, ["x", "y"], proxies=["ngram"], top_k=1)
assert_type(ranking, Ranking)
assert_type(ranking.decision, Decision | None)
assert_type(ranking.top(), Mixture)
assert_type(Runs("runs")[0].ranking, Ranking | None)
assert_type(sq.load_ranking("ranking.json"), Ranking)
ranking.plot().set_title("mine")
ranking.to_frame()
sq.rank({}, [], top_k="3")
"""


@pytest.mark.slow  # the types themselves are checked by mypy
def test_names_have_their_types_in_an_editor(tmp_path: Path):
    script = tmp_path / "user.py"
    reveals = [f"reveal_type(sq.{name})" for name in synque_select.__all__]
    script.write_text("\n".join([USER, *reveals]))
    # from the repository, with its cache: `make test` has filled it
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        capture_output=True, text=True, check=False, timeout=500, cwd=ROOT,
    )  # fmt: skip
    notes = [line for line in done.stdout.splitlines() if "note: Revealed type" in line]
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(notes) == len(reveals), done.stdout + done.stderr
    assert not [line for line in notes if line.endswith('"Any"')]
    assert len(errors) == 1
    assert 'Argument "top_k" to "rank" has incompatible type "str"' in errors[0]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ranks'"):
        synque_select.ranks  # noqa: B018


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_exports_are_listed_and_exist(module: str, path):
    tree = ast.parse(path.read_text())
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if path.stem.startswith("_"):
        return
    assert listed, f"{module} has no __all__"
    defined = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else [node.id]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert set(listed[0]) <= defined
