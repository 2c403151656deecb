"""What the wheel contains and what the commands of the Makefile install."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_in_the_wheel():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    # recipes, callbacks and configs are links to folders, which rglob does not follow
    folders = [ROOT / "synque_select", *(ROOT / "synque_select").iterdir()]
    present = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in folders
        for path in folder.rglob("__init__.py")
    }
    assert present == listed


def test_extras_that_errors_name_exist():
    extras = set(PROJECT["project"]["optional-dependencies"])
    named = {
        name
        for path in [*(ROOT / "synque_select").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
        for name in re.findall(r'extra="([a-z0-9-]+)"', path.read_text())
    }
    assert named
    assert not named - extras


def _commands(*options: str) -> list[str]:
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", *options],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return printed.stdout.splitlines()


def test_torch_and_torchvision_come_from_one_index_before_the_rest():
    lines = _commands("TORCH_INDEX=https://index.invalid/cpu")
    torch = [n for n, line in enumerate(lines) if "--index-url" in line]
    rest = [n for n, line in enumerate(lines) if "--editable" in line]
    assert len(torch) == 1
    assert torch[0] < min(rest)
    assert lines[torch[0]].endswith("torch torchvision --index-url https://index.invalid/cpu")


@pytest.mark.parametrize("options", [(), ("TORCH_INDEX=",)])
def test_without_an_index_torch_comes_with_the_rest(options):
    assert not any("--index-url" in line for line in _commands(*options))
