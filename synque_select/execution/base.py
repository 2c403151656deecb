"""The contract of all executors: units of work in, results or failures out, in any order."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, cast

from synque_select import errors
from synque_select.errors import ExecutorError, SynqueError
from synque_select.utils.wording import one_line

__all__ = ["Counts", "Executor", "Shared", "Unit", "UnitFailure", "Worker", "run_unit"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_MAX_SHOWN = 500  # characters of an error


class Worker:
    """The process that runs units, and what it keeps between them, such as loaded models."""

    def __init__(self) -> None:
        self._kept: dict[str, object] = {}

    def keep(self, key: str, make: Callable[[], _T]) -> _T:
        """Return what was made for this key, or make it; only one value per kind is kept.

        Args:
            key: The kind, a colon, and what identifies the value, as in "encoder:all-MiniLM-L6-v2".
            make: Makes the value. One that has a method `close` is closed when another of its
                kind takes its place: two models may not fit into the memory.
        """
        if key not in self._kept:
            kind = key.partition(":")[0]
            for other in [kept for kept in self._kept if kept.partition(":")[0] == kind]:
                self._close(other)
            self._kept[key] = make()
        return cast("_T", self._kept[key])

    def close(self) -> None:
        """Close everything that is kept."""
        for key in [*self._kept]:
            self._close(key)

    def _close(self, key: str) -> None:
        close = getattr(self._kept.pop(key), "close", None)
        if close is not None:
            close()


class Unit(Protocol[_T_co]):
    """A piece of work that is addressed by its content and may be run any number of times.

    Units are small frozen dataclasses. They are pickled when they are sent to a worker, which is
    when one reads the data that the worker needs. They write nothing but files of a shared cache,
    each by an atomic rename.
    """

    @property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        ...

    @property
    def name(self) -> str:
        """What it does, for messages: "encode shard 1 of 4 of news"."""
        ...

    def run(self, worker: Worker) -> _T_co:
        """Return the result.

        Args:
            worker: The process that runs it.
        """
        ...


@dataclass(frozen=True)
class UnitFailure:
    """Why a unit has no result.

    Args:
        kind: Name of the class of the error, if it is one of this library; else "".
        message: The error's message.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception, unit: Unit[object], place: str) -> UnitFailure:
        """Return the failure for an error, in a form that every process can read.

        Args:
            error: The error.
            unit: The unit that raised it.
            place: Where it ran, as in "on node-3".
        """
        if isinstance(error, SynqueError) and hasattr(errors, type(error).__name__):
            return cls(type(error).__name__, str(error))
        text = one_line(f"{type(error).__name__}: {error}", _MAX_SHOWN)
        return cls("", f"{unit.name} failed {place}: {text}")

    @property
    def error(self) -> SynqueError:
        """The error to raise, of the class that it had."""
        kind = getattr(errors, self.kind, ExecutorError) if self.kind else ExecutorError
        error = cast("SynqueError", kind.__new__(kind))
        # not by the constructor, as DependencyError takes other arguments than a message
        SynqueError.__init__(error, self.message)
        return error


class Shared(Generic[_T]):
    """A value that several units read; see `Executor.share`."""

    def __init__(self, value: _T) -> None:
        self._value = value

    def get(self) -> _T:
        """Return the value."""
        return self._value


@dataclass
class Counts:
    """How many units an executor has run.

    Args:
        started: Units that were given to a worker, each time counted.
        finished: Units with a result or a failure.
        lost: Units whose worker ended before it had answered; they were started again.
    """

    started: int = 0
    finished: int = 0
    lost: int = 0


class Executor(ABC):
    """Runs units, in this process or elsewhere; a context manager that ends its workers.

    Attributes:
        is_remote: Whether units run in other processes.
        takes_data: Whether what is shared travels without a copy per worker, so that proxies are
            scored by workers, too.
        counts: How many units were run so far.
    """

    is_remote: ClassVar[bool] = True
    takes_data: ClassVar[bool] = False

    def __init__(self) -> None:
        self.counts = Counts()

    @abstractmethod
    def run(self, units: Iterable[Unit[_T]]) -> Iterator[tuple[Unit[_T], _T | UnitFailure]]:
        """Run units and yield each with its result or failure as soon as it is there, in any order.

        A unit whose worker is lost is run again by another one. Only so many units are read ahead
        as there are workers.

        Args:
            units: The units; their keys differ.

        Raises:
            ExecutorError: No worker can be started, or one has other versions than this process.
        """

    def share(self, value: _T) -> Shared[_T]:
        """Return a handle on a value, by which units that are sent elsewhere find it.

        Args:
            value: A value that can be pickled.
        """
        return Shared(value)

    def close(self) -> None:  # noqa: B027 - an executor may have nothing to end
        """End the workers; the next `run` starts new ones."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_unit(unit: Unit[_T], worker: Worker, place: str) -> _T | UnitFailure:
    """Run a unit and return its result, or what it raised as a failure.

    Args:
        unit: The unit.
        worker: The process that runs it.
        place: Where that is, as in "on node-3".
    """
    try:
        return unit.run(worker)
    except Exception as error:
        # the traceback stays where it happened: the driver gets the message
        _log.debug("%s failed", unit.name, exc_info=True)
        return UnitFailure.of(error, unit, place)
