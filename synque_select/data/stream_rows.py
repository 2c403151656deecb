"""Examples of a stream by position, for training: read forward, a window at a time."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.data._utils.worker as torch_worker

from synque_select.errors import DataError
from synque_select.utils.wording import counted

__all__ = ["WINDOW", "StreamError", "StreamRows"]

WINDOW = 1_000
_KEPT_WINDOWS = 2  # an epoch may begin a little before what was fetched ahead in the last one


class StreamError(DataError):
    """A stream cannot be read again as it was read before; the message names the example."""


class StreamRows:
    """A dataset that can be read again from its beginning, with access to examples by position.

    It holds the examples of the last two windows, of 1,000 each. Positions that come window after
    window are read in one pass; an earlier window starts the next pass, and what lies before a
    later one is read and dropped (with `skip` of the dataset, if it has one). Each process reads
    on its own.

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
        if self._pid != os.getpid():
            self._drop()  # a forked process has a copy of the iterator, whose files it shares
        if window not in self._windows:
            self._windows[window] = self._read(window)
            if len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return self._windows[window][position % WINDOW]

    def __getstate__(self) -> dict[str, Any]:
        return {"_where": self._where, "_source": self._source, "_n": self._n}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._drop()

    def _drop(self) -> None:
        self._pid = os.getpid()
        self._iterator: Iterator[object] | None = None
        self._at = 0  # position of the next example of the iterator
        self._windows: OrderedDict[int, list[object]] = OrderedDict()

    def _read(self, window: int) -> list[object]:
        start, end = window * WINDOW, min((window + 1) * WINDOW, self._n)
        if self._iterator is None or self._at > start:
            self._begin(start)
        rows = []
        while self._at < end:
            row = self._next()
            if self._at > start:
                rows.append(row)
        return rows

    def _begin(self, start: int) -> None:
        skip = getattr(self._source, "skip", None)
        with _without_worker():
            if callable(skip) and start:
                self._iterator, self._at = iter(skip(start)), start
            else:
                self._iterator, self._at = iter(self._source), 0

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
