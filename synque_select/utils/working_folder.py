"""The working directory as a place of modules that dotted names refer to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["modules_of_working_folder"]


@contextmanager
def modules_of_working_folder() -> Iterator[None]:
    """Let dotted names refer to modules in the working directory, after installed packages."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
