"""Imports point down the layers; the test reads every one and fails where it points up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# top row first; a module may import from its own row and from the rows below
ROWS: tuple[tuple[str, ...], ...] = (
    ("__main__", "cli", "commands", "doctor", "recipes"),
    ("experiment", "probe_process", "probe_worker", "probes", "short_fits", "sweep", "tuning"),
    ("callbacks", "data._given", "data._wrapping", "data.datamodule", "fitting"),
    ("benchmark", "records", "report"),
    ("proxies", "selection"),
    ("data", "encoders", "lens", "llm"),
    ("functional",),
    ("atomic", "checks", "configs", "errors", "progress", "seeding", "types", "views"),
)
LIGHTNING_ROWS = 3
# the package's front door re-exports from all rows; testing and configs are for users and data
EXEMPT = ("__init__", "configs", "testing")


def row_of(module: str) -> int:
    """Row of "synque_select.x.y": the longest name that a row lists."""
    name = module.removeprefix("synque_select.")
    best = [
        (len(entry), number)
        for number, row in enumerate(ROWS)
        for entry in row
        if name == entry or name.startswith(entry + ".")
    ]
    if not best:
        raise AssertionError(f"{module} stands in no row: add it to ROWS and to the design")
    return max(best)[1]


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(_walk(ROOT / "synque_select")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] not in EXEMPT and "__pycache__" not in parts:
            found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def _walk(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_dir():
            found += _walk(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


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
    own = row_of(module)
    for name in imports(path):
        if name.startswith("synque_select.") and _is_module(name):
            assert row_of(name) >= own, f"{module} imports {name}, which stands above it"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_lightning_only_in_the_top_rows(module: str, path: Path):
    uses = any(name.split(".")[0] in ("pytorch_lightning", "lightning") for name in imports(path))
    assert not uses or row_of(module) < LIGHTNING_ROWS, f"{module} imports Lightning"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_a_private_module_is_imported_in_its_package_only(module: str, path: Path):
    for name in imports(path):
        owner, is_private, _ = name.partition("._")
        private = is_private and name.startswith("synque_select.")
        assert not private or f"{module}.".startswith(f"{owner}."), f"{module} imports {name}"


def _is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
