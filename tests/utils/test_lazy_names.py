from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

FACES = [f"synque_select.{name}" for name in ("data", "functional", "hub", "llm")]


@pytest.mark.parametrize("package", FACES)
def test_every_name_resolves_and_none_is_the_name_of_a_module(package: str):
    face = importlib.import_module(package)
    modules = {module.name for module in pkgutil.iter_modules(face.__path__)}
    assert face.__all__ == sorted(face.__all__, key=_isort_key)
    assert not modules & set(face.__all__)
    for name in face.__all__:
        assert getattr(face, name) is not None


@pytest.mark.parametrize("package", FACES)
def test_importing_a_package_imports_nothing_heavy(package: str):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _isort_key(name: str) -> tuple[int, str]:
    # the order that ruff enforces: constants, then classes, then functions
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
