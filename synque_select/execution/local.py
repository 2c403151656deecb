"""Units in this process, one after another: the default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, TypeVar

from synque_select.execution.base import Executor, Unit, UnitFailure, Worker, run_unit

__all__ = ["LocalExecutor"]

_T = TypeVar("_T")


class LocalExecutor(Executor):
    """Runs units in this process, one after another.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Square:
        ...     x: int
        ...
        ...     @property
        ...     def key(self):
        ...         return str(self.x)
        ...
        ...     name = key
        ...
        ...     def run(self, worker):
        ...         return self.x**2
        >>> [result for _, result in LocalExecutor().run([Square(2), Square(3)])]
        [4, 9]
    """

    is_remote: ClassVar[bool] = False
    takes_data: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._worker = Worker()

    def run(self, units: Iterable[Unit[_T]]) -> Iterator[tuple[Unit[_T], _T | UnitFailure]]:
        """See `Executor.run`."""
        for unit in units:
            self.counts.started += 1
            result = run_unit(unit, self._worker, "in this process")
            self.counts.finished += 1
            yield unit, result

    def close(self) -> None:
        """Free the models."""
        self._worker.close()
