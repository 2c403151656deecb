"""Imports point down the floors; the test reads every one and fails where it points up."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# ground floor first; a module may import from its own floor and from those below
FLOORS: tuple[tuple[str, ...], ...] = (
    ("configs", "errors"),
    ("functional", "hub", "sql", "utils"),
    ("llm", "types"),
    ("data", "records"),
    ("encoders", "lens"),
    ("execution", "export", "proxies", "report"),
    ("selection",),
    ("benchmark", "generation", "training"),
    ("reselection",),
    ("callbacks", "hf", "probing", "tuning"),
    ("experiment", "lightning"),
    ("cli", "testing"),
    ("recipes",),
    ("__init__", "__main__"),
)
LIGHTNING = (
    "training",
    "callbacks",
    "probing",
    "tuning",
    "experiment",
    "lightning",
    "cli",
    "recipes",
)


def package_of(module: str) -> str:
    """Return "x" of "synque_select.x.y"; "__init__" of the front door."""
    return (*module.split("."), "__init__")[1]


def floor_of(module: str) -> int:
    """Return the floor of "synque_select.x.y", the ground floor being 0."""
    name = package_of(module)
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"{module} is on no floor: add it to FLOORS and to docs/architecture.md")


def modules() -> list[tuple[str, Path]]:
    named = []
    for path in sorted(_walk(ROOT / "synque_select")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "__pycache__" not in parts:
            named.append((".".join(parts).removesuffix(".__init__"), path))
    return named


def _walk(folder: Path) -> list[Path]:
    paths = []
    for path in folder.iterdir():
        if path.is_dir():
            paths += _walk(path)
        elif path.suffix == ".py":
            paths.append(path)
    return paths


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_there_are_modules_to_check():
    names = [name for name, _ in modules()]
    assert "synque_select.types" in names
    assert "synque_select.callbacks" in names


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_imports_point_down(module: str, path: Path):
    own = floor_of(module)
    for name in imports(path):
        if _is_ours(name):
            assert floor_of(name) <= own, f"{module} imports {name}, which is on a floor above it"


def test_packages_do_not_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = {}
    for module, path in modules():
        own = package_of(module)
        used = {package_of(name) for name in imports(path) if _is_ours(name)}
        arrows.setdefault(own, set()).update(used - {own})
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_lightning_from_training_upwards_only(module: str, path: Path):
    uses = any(name.split(".")[0] in ("pytorch_lightning", "lightning") for name in imports(path))
    assert not uses or package_of(module) in LIGHTNING, f"{module} imports Lightning"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_a_private_module_is_imported_in_its_package_only(module: str, path: Path):
    for name in imports(path):
        owner, is_private, _ = name.partition("._")
        private = is_private and name.startswith("synque_select.")
        assert not private or f"{module}.".startswith(f"{owner}."), f"{module} imports {name}"


def _is_ours(name: str) -> bool:
    return name.startswith("synque_select.") and _is_module(name)


def _is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
