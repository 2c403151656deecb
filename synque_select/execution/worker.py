"""The process of a worker: `python -m synque_select.execution.worker FILE_DESCRIPTOR`."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["main"]


def main(file_descriptor: int) -> None:
    """Answer units until the driver closes the connection."""
    # an interrupt in a terminal reaches all processes: the driver decides what happens
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(file_descriptor) as connection:
        sys.path[:] = connection.recv()
        # not at the top: the path of the driver says where this package is
        from synque_select.execution.base import UnitFailure, Worker, run_unit
        from synque_select.execution.environment import Environment, become_worker

        become_worker(connection.recv())
        here = Environment.here()
        connection.send(here)
        worker, units = Worker(), _Units(connection)
        while (unit := units.next()) is not None:
            if isinstance(unit, Exception):
                text = f"a worker cannot read its unit: {type(unit).__name__}: {unit}"
                connection.send(UnitFailure("", text))
            else:
                connection.send(run_unit(unit, worker, f"on {here.host}"))


class _Units:
    """The units that arrive, until the driver closes the connection or ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._is_busy = connection, False
        self._units: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> Any:
        """Wait for the next unit, or the error of reading it; None after the last one."""
        self._is_busy = False
        unit = self._units.get()
        self._is_busy = True
        return unit

    def _receive(self) -> None:
        while True:
            try:
                unit = self._connection.recv()
            except (EOFError, OSError):
                if self._is_busy:  # nobody waits for the result, however the driver has ended
                    os._exit(1)
                unit = None
            except Exception as error:  # such as a class that this process cannot import
                unit = error
            self._units.put(unit)
            if unit is None:
                return


if __name__ == "__main__":
    main(int(sys.argv[1]))
