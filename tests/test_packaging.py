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


def test_the_table_of_extras_is_that_of_pyproject():
    page = (ROOT / "docs" / "installation.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", page, flags=re.MULTILINE)
    packages = {tuple(re.findall("`([a-z0-9]+)`", names)): text for names, text in rows}
    extras = dict(PROJECT["project"]["optional-dependencies"])
    (everything,) = extras.pop("all")
    assert sorted(name for names in packages for name in names) == sorted(extras)
    listed = set(re.findall(r"\[(.+)\]", everything)[0].split(","))
    sentence = re.search(r"installs every extra below\s+except ([^.]+)\.", page)
    assert sentence is not None
    assert set(re.findall("`([a-z0-9]+)`", sentence[1])) == set(extras) - listed
    for names, text in packages.items():
        for name in set(names) - {"docs", "dev", "offline"}:  # these three in other words
            required = {re.split(r"[\[<>=]", each)[0] for each in extras[name]}
            missing = {each for each in required if each not in text}
            assert all(each.startswith("efficientnet") for each in missing), (name, missing)


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
