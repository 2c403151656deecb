"""The process of a worker: `python -m synque_select.execution.worker FILE_DESCRIPTOR`."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

__all__ = ["main"]


def main(file_descriptor: int) -> None:
    """Answer units until the driver closes the connection."""
    # an interrupt in a terminal reaches all processes: the driver decides what happens
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(file_descriptor) as connection:
        path = connection.recv()
        sys.path[:] = path
        # not at the top: the path of the driver says where this package is
        from synque_select.execution.base import Worker, run_unit
        from synque_select.execution.environment import Environment, become_worker

        become_worker(connection.recv())
        here = Environment.here()
        connection.send(here)
        worker = Worker()
        while True:
            try:
                unit = connection.recv()
            except EOFError:
                return
            connection.send(run_unit(unit, worker, f"on {here.host}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
