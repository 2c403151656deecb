"""Packages whose names are imported on first use, so that importing the package stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

__all__ = ["lazy_names"]


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package that imports its names on first use.

    No name may be that of a module of the package: once imported, the module would replace it.

    Args:
        package: Name of the package: `__name__` in its `__init__`.
        modules: The module below the package that defines each name.

    Example:
        >>> get, names = lazy_names("synque_select.functional", {"round_sizes": "racing"})
        >>> get("round_sizes")(100, 2)
        (50, 100)
        >>> get("round_size")
        Traceback (most recent call last):
        ...
        AttributeError: module 'synque_select.functional' has no attribute 'round_size'
        >>> names()
        ['round_sizes']
    """

    def __getattr__(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    def __dir__() -> list[str]:
        return sorted(modules)

    return __getattr__, __dir__
