"""What a process that was launched for a fit passes back to the process that launched it.

After `ddp_spawn` or `ddp_notebook` the launching process has its objects as they were before the
fit: copies of them have learned something, in processes that are gone.
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
from typing import Generic, TypeVar

from synque_select.utils.atomic import write_text_atomic

__all__ = ["SpawnResult"]

_State = TypeVar("_State", bound=Mapping[str, object])  # plain values, as JSON has them


class SpawnResult(Generic[_State]):
    """A file that a launched copy of an object writes, and the original reads once.

    Its name is chosen when the object is made, so that both know it. The process that made the
    object never writes, and other processes never read.

    Example:
        >>> result: SpawnResult[dict[str, int]] = SpawnResult()
        >>> result.write({"top_k": 2}), result.take()
        (None, None)
    """

    def __init__(self) -> None:
        self._owner_pid = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"synque-select-{uuid.uuid4().hex}.json"
        weakref.finalize(self, _remove, self._path, self._owner_pid)

    def __deepcopy__(self, memo: dict[int, object]) -> SpawnResult[_State]:
        return type(self)()  # a copy is a different object with its own result

    def write(self, state: _State) -> None:
        """Pass plain values to the process that made this object; no effect in that process."""
        if os.getpid() != self._owner_pid:
            write_text_atomic(self._path, json.dumps(state))

    def take(self) -> _State | None:
        """Return what a launched process has written since the last call, or None."""
        if os.getpid() != self._owner_pid or not self._path.exists():
            return None
        state: _State = json.loads(self._path.read_text())
        _remove(self._path, self._owner_pid)
        return state


def _remove(path: Path, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked copy that ends must not delete the file
        with suppress(OSError):
            path.unlink(missing_ok=True)
