"""Examples of a stream by position, for training: read forward, a window at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.data._utils.worker as torch_worker

from synque_select.errors import DataError
from synque_select.utils.wording import counted

__all__ = ["WINDOW", "StreamError", "StreamRows"]

WINDOW = 1_000


class StreamError(DataError):
    """A stream cannot be read again as it was read before; the message names the example."""


class StreamRows:
    """A dataset that can be read again from its beginning, with access to examples by position.

    It holds the examples of one window, of 1,000. Positions that come window after window are read
    in one pass; an earlier window starts the next pass, and what lies before a later one is read
    and dropped (with `skip` of the dataset, if it has one). Each process reads on its own.

    Args:
        where: Name of the candidate, for error messages.
        source: The dataset: its iterator yields the same examples in the same order each time.
        n: Number of examples, as counted in an earlier pass.

    Example:
        >>> rows = StreamRows("a", range(2500), 2500)
        >>> len(rows), rows[1200], rows[3]
        (2500, 1200, 3)
    """

    def __init__(self, where: str, source: Iterable[object], n: int) -> None:
        self._where, self._source, self._n = where, source, n
        self._drop()

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, position: int) -> object:
        if not 0 <= position < self._n:
            raise IndexError(position)
        window = position // WINDOW
        # a forked process has a copy of the iterator, whose files it shares with its parent
        if window != self._window or self._pid != os.getpid():
            self._read(window)
        return self._rows[position % WINDOW]

    def __getstate__(self) -> dict[str, Any]:
        return {"_where": self._where, "_source": self._source, "_n": self._n}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._drop()

    def _drop(self) -> None:
        self._pid = os.getpid()
        self._iterator: Iterator[object] | None = None
        self._at = 0  # position of the next example of the iterator
        self._window, self._rows = -1, list[object]()

    def _read(self, window: int) -> None:
        start, end = window * WINDOW, min((window + 1) * WINDOW, self._n)
        if self._pid != os.getpid() or self._iterator is None or self._at > start:
            self._drop()
            self._begin(start)
        rows = []
        self._window, self._rows = -1, []  # an error must not leave half a window
        while self._at < end:
            row = self._next()
            if self._at > start:
                rows.append(row)
        self._window, self._rows = window, rows

    def _begin(self, start: int) -> None:
        skip = getattr(self._source, "skip", None)
        with _without_worker():
            if callable(skip) and start:
                self._iterator, self._at = iter(skip(start)), start
            else:
                self._iterator = iter(self._source)

    def _next(self) -> object:
        assert self._iterator is not None
        try:
            with _without_worker():
                row = next(self._iterator)
        except StopIteration:
            position, self._iterator = self._at, None
            raise StreamError(
                f"{self._where}: the stream ended after {counted(position, 'example')}, but had "
                f"{self._n:,} when they were counted; it must yield the same examples each time, "
                "in every process"
            ) from None
        except Exception as error:  # a user's dataset may raise anything
            position, self._iterator = self._at, None
            raise StreamError(
                f"{self._where}, example {position} (counted from 0): reading it failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        self._at += 1
        return row


@contextmanager
def _without_worker() -> Iterator[None]:
    """Hide the worker process of a DataLoader, between which datasets divide their examples.

    The mixture decides which examples each worker needs, so each must find all of them.
    """
    info = torch_worker._worker_info
    torch_worker._worker_info = None
    try:
        yield
    finally:
        torch_worker._worker_info = info
