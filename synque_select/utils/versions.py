"""Versions of the code and of the packages that results depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["hash_of_code", "package_versions", "source_hash"]

_PACKAGES = (
    "synque-select",
    "torch",
    "transformers",
    "sentence-transformers",
    "pytorch-lightning",
    "numpy",
    "scipy",
    "scikit-learn",
    "mauve-text",
)


@cache
def source_hash() -> str:
    """Return a hash of this library's code: a changed formula must not meet kept results.

    All of the code counts, as what reads and encodes the data changes scores like a formula. The
    code of a release does not change; only who works on the library scores again more often.
    """
    return hash_of_code(Path(__file__).resolve().parents[1])


def hash_of_code(root: Path) -> str:
    """Return a hash of the names and the content of all Python files in a folder, at any depth."""
    hashed = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        hashed.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return hashed.hexdigest()


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a score depends on, of those that are there."""
    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
