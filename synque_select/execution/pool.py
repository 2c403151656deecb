"""What executors with workers have in common: who gets which unit, and what if one is lost."""

from __future__ import annotations

import logging
import operator
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from synque_select.errors import ExecutorError
from synque_select.execution.base import Executor, Unit, UnitFailure
from synque_select.execution.environment import Environment

__all__ = ["Lost", "PoolExecutor"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Handle = TypeVar("_Handle")
_MOST_LOSSES = 3  # of the workers of one unit


@dataclass(frozen=True)
class Lost:
    """A worker has ended before it had answered.

    Args:
        reason: Why, as far as it is known.
    """

    reason: str


class PoolExecutor(Executor, Generic[_Handle]):
    """Base class of executors with several workers, each of which runs one unit at a time.

    A worker first answers with its environment, which is compared with that of this process. If it
    is lost, another is started, and its unit is run again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starting: set[_Handle] = set()
        self._idle: deque[_Handle] = deque()
        self._failed_starts = 0

    @abstractmethod
    def _n_slots(self) -> int:
        """Return the number of workers that there is room for."""

    @abstractmethod
    def _start(self) -> _Handle:
        """Start a worker, whose first answer will be its `Environment`."""

    @abstractmethod
    def _send(self, worker: _Handle, unit: Unit[object]) -> None:
        """Give a unit to a worker that is idle."""

    @abstractmethod
    def _answers(self, workers: Sequence[_Handle]) -> list[tuple[_Handle, object]]:
        """Wait for at least one answer, or for a while; a worker that has ended answers `Lost`."""

    @abstractmethod
    def _end(self, worker: _Handle) -> None:
        """End a worker, whatever it does."""

    def run(self, units: Iterable[Unit[_T]]) -> Iterator[tuple[Unit[_T], _T | UnitFailure]]:
        """See `Executor.run`."""
        most = operator.length_hint(units, 1 << 30)
        if not most:
            return
        busy: dict[_Handle, Unit[_T]] = {}
        try:
            there = len(self._starting) + len(self._idle)
            for _ in range(min(self._n_slots(), most) - there):
                self._starting.add(self._start())
            yield from self._run(_Queue(units), busy)
        finally:
            if busy:  # also where the caller does not ask for the rest: nothing goes on in vain
                for worker in busy:
                    self._end(worker)
                self.close()

    def _run(
        self, queue: _Queue[_T], busy: dict[_Handle, Unit[_T]]
    ) -> Iterator[tuple[Unit[_T], _T | UnitFailure]]:
        while True:
            while self._idle and (unit := queue.next()) is not None:
                worker = self._idle.popleft()
                busy[worker] = unit
                self.counts.started += 1
                self._send(worker, unit)
            if not busy and queue.is_empty:
                return
            for worker, answer in self._answers([*busy, *self._starting]):
                if isinstance(answer, Lost):
                    self._replace(worker, answer)
                if worker not in busy:
                    self._welcome(worker, answer)
                    continue
                unit = busy.pop(worker)
                if not isinstance(answer, Lost):
                    self._idle.append(worker)
                    self.counts.finished += 1
                    yield unit, cast("_T | UnitFailure", answer)
                    continue
                self.counts.lost += 1
                _log.warning("%s: its worker was lost (%s)", unit.name, answer.reason)
                if queue.put_back(unit):
                    continue
                self.counts.finished += 1
                message = f"{unit.name} lost its worker {_MOST_LOSSES} times: {answer.reason}"
                yield unit, UnitFailure("", message)

    def _welcome(self, worker: _Handle, answer: object) -> None:
        if isinstance(answer, Lost):
            return
        self._starting.discard(worker)
        if isinstance(answer, UnitFailure):
            raise answer.error
        assert isinstance(answer, Environment)
        Environment.here().check_same(answer, f"the worker on {answer.host}")
        self._failed_starts = 0
        self._idle.append(worker)

    def _replace(self, worker: _Handle, lost: Lost) -> None:
        self._end(worker)
        if worker in self._starting:
            self._starting.discard(worker)
            self._failed_starts += 1
            if self._failed_starts > _MOST_LOSSES:
                raise ExecutorError(f"no worker can be started: {lost.reason}")
        self._starting.add(self._start())


class _Queue(Generic[_T]):
    """Units that wait: those of a lost worker before all others."""

    def __init__(self, units: Iterable[Unit[_T]]) -> None:
        self._units = iter(units)
        self._again: deque[Unit[_T]] = deque()
        self._losses: Counter[str] = Counter()
        self._is_read = False

    def next(self) -> Unit[_T] | None:
        """Return the next unit; None if none waits."""
        if self._again:
            return self._again.popleft()
        unit = next(self._units, None)
        self._is_read = unit is None
        return unit

    @property
    def is_empty(self) -> bool:
        """Whether no unit waits; only known after `next` has returned None."""
        return self._is_read and not self._again

    def put_back(self, unit: Unit[_T]) -> bool:
        """Take a unit whose worker was lost; return False if that has happened too often."""
        self._losses[unit.key] += 1
        if self._losses[unit.key] >= _MOST_LOSSES:
            return False
        self._again.append(unit)
        return True
