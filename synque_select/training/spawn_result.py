"""What a process that was launched for a fit leaves for the one that launched it.

After `ddp_spawn` or `ddp_notebook` the launching process has the objects as they were before the
fit: all that was learnt was learnt by copies of them, in processes that are gone.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from synque_select.utils.atomic import write_text_atomic

__all__ = ["SpawnResult"]


class SpawnResult:
    """A file that a launched copy of an object writes, and the original reads once.

    Its name is settled when the object is made, so that both know it. In the process that made
    the object nothing is ever written, and elsewhere nothing is read.

    Example:
        >>> note = SpawnResult()
        >>> note.write({"top_k": 2}), note.take()
        (None, None)
    """

    def __init__(self) -> None:
        self._home = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"synque-select-{uuid.uuid4().hex}.json"
        weakref.finalize(self, _remove, self._path, self._home)

    def __deepcopy__(self, memo: Any) -> SpawnResult:
        return type(self)()  # a copy is another object, to which other things happen

    def write(self, state: Mapping[str, Any]) -> None:
        """Leave plain values for the process that made this; without effect in that process."""
        if os.getpid() != self._home:
            write_text_atomic(self._path, json.dumps(state))

    def take(self) -> dict[str, Any] | None:
        """Return what a launched process left since the last time; None where none did."""
        if os.getpid() != self._home or not self._path.exists():
            return None
        state: dict[str, Any] = json.loads(self._path.read_text())
        _remove(self._path, self._home)
        return state


def _remove(path: Path, home: int) -> None:
    if os.getpid() == home:  # a forked copy that ends must not take the file along
        with suppress(OSError):
            path.unlink(missing_ok=True)
