"""Calls of one function as units of work: workers get the function once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from synque_select.execution.base import Executor, Shared, Worker

__all__ = ["Call", "calls_of"]

_U = TypeVar("_U")
_R = TypeVar("_R")


@dataclass(frozen=True, eq=False)
class Call(Generic[_U, _R]):
    """Apply a function to a value: train probe k, or trial t.

    Args:
        function: The function.
        identity: What tells it from other functions.
        argument: The value, whose `repr` tells it from others.
        name: What the call does, for messages.
    """

    function: Shared[Callable[[_U], _R]]
    identity: str
    argument: _U
    name: str

    @property
    def key(self) -> str:
        """Hash of the function and the argument."""
        return hashlib.sha256(f"{self.identity}\0{self.argument!r}".encode()).hexdigest()

    def run(self, worker: Worker) -> _R:
        """Return the result."""
        function = worker.keep(f"function:{self.identity}", self.function.get)
        return function(self.argument)


def calls_of(
    executor: Executor,
    function: Callable[[_U], _R],
    arguments: Iterable[_U],
    *,
    name_of: Callable[[_U], str],
    given: MutableMapping[str, _U],
) -> Iterator[Call[_U, _R]]:
    """Yield a call per argument, whose function is shared by all.

    Args:
        executor: The executor that will run the calls.
        function: The function; it changes nothing outside of itself.
        arguments: The arguments, taken as workers are free.
        name_of: Takes an argument and returns what the call does, for messages.
        given: Receives the argument of each call by its key.
    """
    identity, shared = uuid.uuid4().hex, None
    for argument in arguments:
        if shared is None:
            shared = executor.share(function)
        call = Call(shared, identity, argument, name_of(argument))
        given[call.key] = argument
        yield call
