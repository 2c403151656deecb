"""The package of Lightning that tests train with, and the classes of this library for it.

`SYNQUE_TEST_LIGHTNING=lightning` runs tests with `lightning`, also in processes that they start.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

_ROOTS = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
_LIBRARY = {"pytorch_lightning": "synque_select", "lightning": "synque_select.lightning"}
_CALLBACKS = {**_LIBRARY, "pytorch_lightning": "synque_select.callbacks"}

PACKAGE = os.environ.get("SYNQUE_TEST_LIGHTNING", "pytorch_lightning")
(OTHER_PACKAGE,) = set(_ROOTS) - {PACKAGE}
ROOT, OTHER_ROOT = _ROOTS[PACKAGE], _ROOTS[OTHER_PACKAGE]

pl: Any = importlib.import_module(ROOT)
importlib.import_module(f"{ROOT}.tuner")
_callbacks: Any = importlib.import_module(_CALLBACKS[PACKAGE])

ProxyCorrelationCallback: Any = _callbacks.ProxyCorrelationCallback
PruningCallback: Any = _callbacks.PruningCallback
ReselectionCallback: Any = _callbacks.ReselectionCallback
SelectionCallback: Any = _callbacks.SelectionCallback
SynqueDataModule: Any = importlib.import_module(_LIBRARY[PACKAGE]).SynqueDataModule


def import_path_of(name: str) -> str:
    """Return the path of a class of this library, as configs have it."""
    return f"{_LIBRARY[PACKAGE]}.{name}"


def import_of(name: str, package: str = PACKAGE) -> str:
    """Return the line that imports a class of this library for a package of Lightning."""
    return f"from {_LIBRARY[package]} import {name}"
