"""Asynchronous work for synchronous code, which may itself run inside an event loop."""

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
    """The last message of the thread: success, or the error that ended the work."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def iterate_in_thread(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> Iterator[T]:
    """Run a coroutine in a thread with its own event loop, and yield the values that it emits.

    A thread, because the caller may be inside a running loop, such as a notebook's. If the caller
    stops iterating or fails, the coroutine is cancelled.

    Args:
        work: Function that gets a callback for emitting values and returns the coroutine.

    Raises:
        Exception: Whatever the coroutine raises.

    Example:
        >>> async def count(emit):
        ...     for i in range(3):
        ...         emit(i)
        >>> list(iterate_in_thread(count))
        [0, 1, 2]
    """
    values: queue.SimpleQueue[T | _End[T]] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_run_to_end(work, values))

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
        while not isinstance(value := values.get(), _End):
            yield value
        if value.error is not None:
            raise value.error
    finally:
        # the loop is closed if the work has ended already
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def _run_to_end(
    work: Callable[[Callable[[T], None]], Awaitable[None]], values: queue.SimpleQueue[T | _End[T]]
) -> None:
    try:
        await work(values.put)
    except Exception as error:
        values.put(_End(error))
    else:
        values.put(_End())
