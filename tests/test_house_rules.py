"""Rules on the code that only a person would remember otherwise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import FLOORS, ROOT, modules

MAX_ARGUMENTS = 12
# each is the whole configuration of its part in one call
EXEMPT = ("BaseSynqueDataModule.__init__", "BaseSelectionCallback.__init__")
MAX_ANY_PER_1000_LINES = 20


def code_lines(source: str) -> int:
    """Count lines that are not blank, comment or docstring."""
    documented: set[int] = set()
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(source.split("\n"), 1)
    )


def test_any_is_rare():
    sources = [path.read_text() for module, path in modules() if ".recipes" not in module]
    n_any = sum(len(re.findall(r"\bAny\b", source)) for source in sources)
    n_lines = sum(code_lines(source) for source in sources)
    assert 1000 * n_any / n_lines <= MAX_ANY_PER_1000_LINES, f"{n_any} in {n_lines} lines"


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    def walk(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                yield f"{owner}{node.name}", node

    yield from walk(ast.parse(path.read_text()).body, "")


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_public_functions_take_few_arguments(module: str, path: Path):
    for name, node in functions(path):
        last = name.rpartition(".")[2]
        if name in EXEMPT or (last.startswith("_") and last != "__init__"):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [node.args.kwarg] if node.args.kwarg else []
        taken = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        assert len(taken) <= MAX_ARGUMENTS, f"{module}.{name} takes {len(taken)} arguments"


def test_tests_mirror_the_tree():
    packages = {name for floor in FLOORS for name in floor}
    allowed = packages | {"benchmarks", "docs", "fixtures", "reliability", "scripts"}
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))
    }
    assert folders <= allowed
