"""Coroutines for code that is not asynchronous, inside a running event loop too."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["iterate_in_thread"]

T = TypeVar("T")


class _End(Generic[T]):
    """The last thing that arrives: all is done, or why it is not."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def iterate_in_thread(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> Iterator[T]:
    """Run a coroutine in a thread with a loop of its own, and yield what it hands over.

    When the caller stops listening, or dies, the coroutine is cancelled.

    Args:
        work: Takes a function that hands a value over, and returns the coroutine.

    Example:
        >>> async def count(give):
        ...     for i in range(3):
        ...         give(i)
        >>> list(iterate_in_thread(count))
        [0, 1, 2]
    """
    found: queue.SimpleQueue[T | _End[T]] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_all(work, found))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, name="synque-select-llm", daemon=True)
    thread.start()
    try:
        while not isinstance(value := found.get(), _End):
            yield value
        if value.error is not None:
            raise value.error
    finally:
        with suppress(RuntimeError):  # it is over already
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def _all(
    work: Callable[[Callable[[T], None]], Awaitable[None]], found: queue.SimpleQueue[T | _End[T]]
) -> None:
    try:
        await work(found.put)
    except Exception as error:
        found.put(_End(error))
    else:
        found.put(_End())
